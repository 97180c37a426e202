import { z } from "zod";
import type { Client } from "../http.ts";
import { auditArchive } from "./audit-archive.ts";

const counts = z.record(z.string(), z.number());

const Step = z.object({
  checked: z.number(),
  missing: z.number(),
  altered: z.number(),
  summaries: z.number(),
  summaries_repaired: z.number(),
  summaries_suspect: z.number(),
  portions_failed: z.number(),
  entries_waiting: z.number(),
  accepted: counts,
  stored: counts,
  counted: z.object({ start: z.number(), end: z.number() }),
  next: z.string().nullable(),
});

type Step = z.output<typeof Step>;

type AuditOptions = {
  readonly trustEvents?: boolean;
  /** UTC days of the archive, instead of the log and what is live. */
  readonly archive?: readonly string[];
};

/** Runs a full audit, or one of the archive, prints what it found, and says whether nothing was wrong. */
export async function audit(
  client: Client,
  { trustEvents = false, archive }: AuditOptions,
  print: (line: string) => void,
): Promise<boolean> {
  if (archive !== undefined) return auditArchive(client, archive, print);
  const steps: Step[] = [];
  for (let cursor: string | null | undefined; cursor !== null; cursor = steps.at(-1)?.next) {
    const form = { trust_events: String(trustEvents), ...(cursor === undefined ? {} : { cursor }) };
    steps.push(await client.call({ path: "/v1/edgemeter/audit", form }, Step));
  }
  const total = (field: { [K in keyof Step]: Step[K] extends number ? K : never }[keyof Step]): number =>
    steps.reduce((sum, step) => sum + step[field], 0);
  const accepted = addUp(steps.map((step) => step.accepted));
  const stored = addUp(steps.map((step) => step.stored));
  // What is missing was found one by one, and is sent again; here only what is too much.
  const surplus = [...stored].filter(([minute, count]) => count > (accepted.get(minute) ?? 0));

  print(`event log   ${total("checked")} entries compared with the databases: ${total("missing")} missing, sent again`);
  print(`            ${total("altered")} altered, repaired`);
  print(
    `summaries   ${total("summaries")} compared with their events: ${total("summaries_repaired")} differed, repaired`,
  );
  if (total("summaries_suspect") > 0) {
    print(
      `            ${total("summaries_suspect")} say more than their events, from before the log's reach: left as they are`,
    );
    print("            (--trust-events repairs them, if no events were lost)");
  }
  if (total("portions_failed") > 0) print(`            ${total("portions_failed")} portions could not be compared`);
  if (total("entries_waiting") > 0)
    print(`waiting     ${total("entries_waiting")} entries were not compared: they wait for the aggregator`);
  const { start = 0, end = 0 } = steps[0]?.counted ?? {};
  if (end > start) {
    print(
      `events      received from ${time(start)} to ${time(end)}: ${sum(accepted)} in the log, ${sum(stored)} in the databases`,
    );
  }
  for (const [minute, count] of surplus) {
    const more = count - (accepted.get(minute) ?? 0);
    print(
      `            ${more} more in the databases than in the log, received in the minute of ${time(Number(minute))}`,
    );
  }
  const differences =
    total("missing") +
    total("altered") +
    total("summaries_repaired") +
    total("summaries_suspect") +
    total("portions_failed") +
    surplus.length;
  print(
    differences === 0 ? "no difference" : `${differences} differences; run it again in a minute to see what is left`,
  );
  return differences === 0;
}

function addUp(all: readonly Readonly<Record<string, number>>[]): Map<string, number> {
  const totals = new Map<string, number>();
  for (const [minute, count] of all.flatMap(Object.entries<number>)) {
    totals.set(minute, (totals.get(minute) ?? 0) + count);
  }
  return totals;
}

const sum = (numbers: ReadonlyMap<string, number>): number => [...numbers.values()].reduce((a, b) => a + b, 0);

const time = (ms: number): string => new Date(ms).toISOString().slice(0, 16).concat("Z");
