import { z } from "zod";
import type { Client } from "../http.ts";

const Resend = z.object({ status: z.enum(["started", "under_way"]), since: z.number(), groups: z.number() });

/** Has every log send again what was received `since` (unix seconds); prints and says whether it began. */
export async function resend(
  client: Client,
  { since }: { readonly since?: number },
  print: (line: string) => void,
): Promise<boolean> {
  const form: Record<string, string> = since === undefined ? {} : { since: String(since) };
  const { status, groups, since: from } = await client.call({ path: "/v1/edgemeter/resend", form }, Resend);
  const started = status === "started";
  const what = started ? `${groups} groups` : "nothing was begun: the groups";
  const state = started ? "on their way again" : "still on their way from an earlier resend";
  print(
    `${what} received since ${new Date(from * 1_000).toISOString()} are ${state}; GET /v1/edgemeter/pipeline shows how many wait`,
  );
  return started;
}
