import { z } from "zod";
import type { Client } from "../http.ts";
import { table } from "../table.ts";

const Tallies = z.record(
  z.string(),
  z.object({ events: z.number(), sum: z.string(), digest: z.string(), survivors: z.number() }),
);

const Step = z.object({
  database: z.string(),
  file: z.string().nullable(),
  fault: z.string().nullable(),
  stored: Tallies,
  kept: Tallies,
  surpassed: z.number(),
  next: z.string().nullable(),
});

type Step = z.output<typeof Step>;

type Tally = { events: bigint; sum: bigint; digest: bigint; survivors: bigint };

/** Compares UTC days of the archive with manifest and sums, prints what differs, and says whether nothing does. */
export async function auditArchive(
  client: Client,
  days: readonly string[],
  print: (line: string) => void,
): Promise<boolean> {
  const totals = new Map<string, { files: number; events: bigint; differences: number }>();
  for (const day of days) {
    const steps: Step[] = [];
    for (let form: Record<string, string> | undefined = { day }; form !== undefined; ) {
      const step: Step = await client.call({ path: "/v1/edgemeter/archive_audit", form }, Step);
      steps.push(step);
      form = step.next === null ? undefined : { cursor: step.next };
    }
    for (const [database, ofOne] of Map.groupBy(steps, (step) => step.database)) {
      const found = differencesOf(ofOne);
      for (const difference of found) print(`${database}  ${difference}`);
      const total = totals.get(database) ?? { files: 0, events: 0n, differences: 0 };
      total.files += ofOne.filter(({ file }) => file !== null).length;
      for (const { events } of addUp(ofOne.map(({ stored }) => stored)).values()) total.events += events;
      total.differences += found.length;
      totals.set(database, total);
    }
  }
  const rows = [...totals].map(([database, { files, events, differences }]) => [
    ...[database, String(files), String(events), String(differences)],
  ]);
  print(table([["database", "files", "events in sums", "differences"], ...rows]));
  const differences = [...totals.values()].reduce((sum, total) => sum + total.differences, 0);
  print(differences === 0 ? "no difference" : `${differences} differences; nothing was changed`);
  return differences === 0;
}

/** What the steps of a day of one database have found, a line each. */
function differencesOf(steps: readonly Step[]): string[] {
  const faults = steps.flatMap(({ file, fault }) => (fault === null ? [] : [`${file}: ${fault}`]));
  const surpassed = steps.reduce((sum, step) => sum + step.surpassed, 0);
  const stored = addUp(steps.map((step) => step.stored));
  const kept = addUp(steps.map((step) => step.kept));
  const quarters = [...new Set([...stored.keys(), ...kept.keys()])].toSorted();
  const differing = quarters.flatMap((start) => {
    const [events, sums] = [stored.get(start) ?? none(), kept.get(start) ?? none()];
    if (describe(events) === describe(sums) && events.digest === sums.digest) return [];
    const time = new Date(Number(start)).toISOString().slice(0, 16);
    const where = describe(events) === describe(sums) ? ", of other series" : "";
    return [`${time}Z: events make ${describe(events)}; sums say ${describe(sums)}${where}`];
  });
  return [...faults, ...differing, ...(surpassed === 0 ? [] : ["a survivor is not the greatest event of its window"])];
}

const describe = ({ events, sum, survivors }: Tally): string => `${events} of ${sum}, ${survivors} survivors`;

const none = (): Tally => ({ events: 0n, sum: 0n, digest: 0n, survivors: 0n });

function addUp(all: readonly z.output<typeof Tallies>[]): Map<string, Tally> {
  const totals = new Map<string, Tally>();
  for (const [start, tally] of all.flatMap(Object.entries<z.output<typeof Tallies>[string]>)) {
    const total = totals.get(start) ?? none();
    totals.set(start, {
      events: total.events + BigInt(tally.events),
      sum: total.sum + BigInt(tally.sum),
      digest: BigInt.asUintN(64, total.digest + BigInt(tally.digest)),
      survivors: total.survivors + BigInt(tally.survivors),
    });
  }
  return totals;
}
