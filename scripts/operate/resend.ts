import { z } from "zod";
import type { Server } from "../http.ts";
import { post } from "./call.ts";

const Resend = z.object({ since: z.number(), groups: z.number() });

/** Has every log send again what was received `since` (unix seconds). */
export async function resend(server: Server, since: number | undefined, print: (line: string) => void): Promise<void> {
  const fields: Record<string, string> = since === undefined ? {} : { since: String(since) };
  const sent = await post(server, "/v1/edgemeter/resend", fields, Resend);
  print(
    `${sent.groups} commits received since ${new Date(sent.since * 1_000).toISOString()} are on their way again; GET /v1/edgemeter/pipeline shows how many wait`,
  );
}
