import { z } from "zod";
import type { Client } from "../http.ts";

const Step = z.object({
  alias: z.string(),
  series: z.number(),
  events: z.number(),
  files: z.number(),
  dead_letters: z.number(),
  error_reports: z.number(),
  responses: z.number(),
  next: z.string().nullable(),
});

type Step = z.output<typeof Step>;

/** What an erasure cannot reach, and when it is gone. */
const STAYS = [
  "the logs         every event, at most 36 hours; longer while a database does not confirm them",
  "the queues       events on their way, at most 4 days",
  "the databases    who has which alias, 5 days: what was on its way is counted for the alias",
  "D1 Time Travel   all of D1 as it was, 30 days (7 on the Free plan)",
  "R2               nothing, unless the bucket keeps what is deleted",
];

/** Erases a customer from the key's mode, prints what was done and what stays; true when it is done. */
export async function erase(
  client: Client,
  { customer }: { readonly customer: string },
  print: (line: string) => void,
): Promise<boolean> {
  const steps: Step[] = [];
  const total = (field: { [K in keyof Step]: Step[K] extends number ? K : never }[keyof Step]): number =>
    steps.reduce((sum, step) => sum + step[field], 0);
  for (let cursor: string | null | undefined; cursor !== null; cursor = steps.at(-1)?.next) {
    const form = { customer, ...(cursor === undefined ? {} : { cursor }) };
    const step = await client.call({ path: "/v1/edgemeter/erasures", form }, Step);
    if (steps.length === 0) print(`alias        ${step.alias} has what the customer used so far`);
    steps.push(step);
    if (step.events + step.files > 0) {
      print(`             ${total("events")} events and ${total("files")} files blanked so far`);
    }
  }
  print(`databases    ${total("series")} series renamed, ${total("events")} events blanked`);
  print(`archive      ${total("files")} files written again`);
  print(
    `records      ${total("dead_letters")} dead letters, ${total("error_reports")} error reports, ${total("responses")} first responses`,
  );
  print("what stays, and for how long:");
  for (const line of STAYS) print(`  ${line}`);
  return true;
}
