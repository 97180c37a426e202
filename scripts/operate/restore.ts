import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Client } from "../http.ts";
import { table } from "../table.ts";

const Step = z.object({
  database: z.string(),
  file: z.string().nullable(),
  events: z.number(),
  restored: z.number(),
  deleted: z.number(),
  waits: z.boolean(),
  next: z.string().nullable(),
});

type Step = z.output<typeof Step>;

type Options = {
  /** UTC days. */
  readonly day?: readonly string[];
  readonly slice?: string;
  readonly exportAgain?: string;
  readonly database?: string;
  readonly keepDays?: string;
};

/** How long another's work on a database's archive is waited for, between two attempts (ms). */
const PAUSE_MS = 1_000;

/** Brings back what the options name from the archive, and prints what it was. */
export async function restore(client: Client, options: Options, print: (line: string) => void): Promise<boolean> {
  const steps: Step[] = [];
  let hasWaited = false;
  for (const form of formsOf(options)) {
    let next: Record<string, string> | undefined = form;
    while (next !== undefined) {
      const step: Step = await client.call({ path: "/v1/edgemeter/restore", form: next }, Step);
      if (step.waits) {
        if (!hasWaited) print(`waiting: another works on the archive of ${step.database}`);
        hasWaited = true;
        await setTimeout(PAUSE_MS);
      } else steps.push(step);
      next = step.next === null ? undefined : { cursor: step.next };
    }
  }
  const files = steps.filter(({ file }) => file !== null);
  if (options.exportAgain !== undefined) {
    const deleted = steps.reduce((sum, step) => sum + step.deleted, 0);
    print(`${deleted} objects of slice ${options.exportAgain} deleted: the archive exports it again`);
    return true;
  }
  const byDatabase = Map.groupBy(files, ({ database }) => database);
  const rows = [...byDatabase].map(([database, of]) => [
    database,
    String(of.length),
    String(of.reduce((sum, { events }) => sum + events, 0)),
    String(of.reduce((sum, { restored }) => sum + restored, 0)),
  ]);
  print(table([["database", "files", "events in them", "brought back"], ...rows]));
  return true;
}

function formsOf({ day, slice, exportAgain, database, keepDays }: Options): Record<string, string>[] {
  if ([day, slice, exportAgain].filter((one) => one !== undefined).length !== 1) {
    throw new CommandError("name one of --day, --slice and --export-again");
  }
  if (day !== undefined) return day.map((one) => ({ day: one }));
  if (database === undefined) throw new CommandError("name the slice's database too, like --database EVENTS_0");
  if (exportAgain !== undefined) return [{ export_again: exportAgain, database }];
  return [{ slice: slice ?? "", database, ...(keepDays !== undefined && { keep_days: keepDays }) }];
}
