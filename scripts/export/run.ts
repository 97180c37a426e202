import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Client } from "../http.ts";
import { type ExportedEvent, openFile } from "./file.ts";

type What = {
  /** A meter's id or event name. */
  readonly meter: string;
  /** Unix seconds, half open. */
  readonly from: number;
  readonly to: number;
  readonly out: string;
};

const Meter = z.object({ id: z.string(), event_name: z.string(), status: z.string() });

const Event = z.object({
  id: z.string(),
  customer: z.string(),
  timestamp: z.int(),
  identifier: z.string(),
  value: z.int(),
  received: z.int(),
  dimensions: z.record(z.string(), z.string()).nullable(),
  payload: z.record(z.string(), z.string()).nullable(),
  api_key: z.string(),
  cancelled: z.int().nullable(),
  cancelled_by: z.string().nullable(),
});

const Page = z.object({
  meter: z.string(),
  event_name: z.string(),
  data: z.array(Event),
  next: z.string().nullable(),
});

/** Between two lines that say how far it has come (ms). */
const LINE_MS = 5_000;

/** Writes a meter's events to a file, page by page, and prints what is in it. Throws a `CommandError` when it cannot. */
export async function exportEvents(client: Client, what: What, print: (line: string) => void): Promise<void> {
  const meter = await findMeter(client, what.meter);
  const file = openFile(what.out);
  let [events, cancelled, sum] = [0, 0, 0n];
  const timer = setInterval(() => console.error(`exporting  ${events} events`), LINE_MS).unref();
  try {
    for await (const page of pages(client, meter, what)) {
      file.write(page);
      events += page.length;
      const counted = page.filter((event) => event.cancelled === null);
      cancelled += page.length - counted.length;
      sum += counted.reduce((total, { value }) => total + BigInt(value), 0n);
    }
    file.finish();
  } catch (error) {
    file.discard();
    throw error;
  } finally {
    clearInterval(timer);
  }
  print(`exported ${events} events, ${cancelled} of them cancelled; the values of the others add up to ${sum}`);
}

/** The id of the meter that an id or event name stands for: the active one, or the only one that had the name. */
async function findMeter(client: Client, name: string): Promise<string> {
  const meters = await Array.fromAsync(client.list("/v1/billing/meters?", Meter));
  const named = meters.filter(({ event_name }) => event_name === name);
  const found =
    meters.find(({ id }) => id === name) ??
    named.find(({ status }) => status === "active") ??
    (named.length === 1 ? named[0] : undefined);
  if (found !== undefined) return found.id;
  throw new CommandError(
    named.length === 0
      ? `there is no meter '${name}' in the mode of the key.`
      : `several meters had the event name '${name}': ${named.map(({ id }) => id).join(", ")}. Give an id.`,
  );
}

async function* pages(client: Client, meter: string, { from, to }: What): AsyncGenerator<ExportedEvent[]> {
  let cursor = "";
  for (;;) {
    const path = `/v1/edgemeter/events?meter=${encodeURIComponent(meter)}&from=${from}&to=${to}${cursor}`;
    const page = await client.call({ path }, Page);
    yield page.data.map((event) => ({ event_name: page.event_name, meter: page.meter, ...event }));
    if (page.next === null) return;
    cursor = `&cursor=${encodeURIComponent(page.next)}`;
  }
}
