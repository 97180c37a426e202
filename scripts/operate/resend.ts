import { z } from "zod";
import type { Caller } from "./caller.ts";

const Resend = z.object({ since: z.number(), groups: z.number() });

/** Has every log send again what was received `since` (unix seconds). */
export async function resend(caller: Caller, since: number | undefined, print: (line: string) => void): Promise<void> {
  const fields: Record<string, string> = since === undefined ? {} : { since: String(since) };
  const sent = await caller.post("/v1/edgemeter/resend", fields, Resend);
  print(
    `${sent.groups} groups received since ${new Date(sent.since * 1_000).toISOString()} are on their way again; GET /v1/edgemeter/pipeline shows how many wait`,
  );
}
