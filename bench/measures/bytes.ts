// What a stored event takes in D1, sums included, and in the log until it expires there.
import { randomUUID } from "node:crypto";
import { HOUR_MS } from "../../src/domain/window.ts";
import { CUSTOMERS, type Edgemeter, EVENT_NAME, IDENTITIES, STREAM_EVENTS, withEdgemeters } from "../edgemeter.ts";
import { type Bench, type Figure, figure, type Measured, type Values } from "../results.ts";

const EVENTS = 200_000;

/** Sync events of each way to send them; they take longer. */
const SYNC_EVENTS = 20_000;

/** Connections that they come by: dense traffic, some seven events a commit. */
const CONNECTIONS = 32;

/** Customers take turns; each has its events evenly over so long, which makes some eight of them share a quarter hour. */
const SPAN_MS = 6 * HOUR_MS;

/** Keys of payloads that the meter does not declare. */
const CASES = [
  { id: "plain", name: "an event with a UUID as its identifier", keys: {} },
  { id: "payload", name: "the same with two more keys", keys: { model: "gpt-5-mini", region: "eu-west-1" } },
] as const;

export async function measureBytes({ sides, progress }: Bench): Promise<Measured> {
  /** What each side's edgemeter, which is new, has stored after some work. */
  const ofSides = async (name: string, work: (edgemeter: Edgemeter) => Promise<Bytes>) => {
    const taken: Bytes[] = [];
    for (const side of sides) {
      progress(`${name}${side.base ? ", of the commit" : ""}`);
      taken.push(await withEdgemeters([side], [], (edgemeterOf) => work(edgemeterOf(side))));
    }
    return (field: keyof Bytes): Values => {
      const [present = Number.NaN, base] = taken.map((bytes) => bytes[field]);
      return { rounds: [present], base: base === undefined ? undefined : [base] };
    };
  };
  const figures: Figure[] = [];
  for (const { id, name, keys } of CASES) {
    const of = await ofSides(name, (edgemeter) => bytesOf(edgemeter, EVENTS, () => streamed(edgemeter, keys)));
    const note = `${EVENTS} events of ${CUSTOMERS} customers within ${SPAN_MS / HOUR_MS} hours`;
    figures.push(figure(`bytes-${id}`, `in D1, ${name}`, "bytes", of("database"), { note }));
    figures.push(figure(`bytes-${id}-log`, "  in the log", "bytes", of("log")));
  }
  for (const { id, name, identity } of IDENTITIES) {
    const pace = { connections: CONNECTIONS, requests: SYNC_EVENTS };
    const of = await ofSides(name, (edgemeter) =>
      bytesOf(edgemeter, SYNC_EVENTS, () => edgemeter.aggregated(edgemeter.syncEvents(identity), pace)),
    );
    const note = `${SYNC_EVENTS} sync events by ${CONNECTIONS} connections`;
    figures.push(figure(`bytes-log-${id}`, `in the log, ${name}`, "bytes", of("log"), { note }));
  }
  return { figures };
}

/** Bytes an event. */
type Bytes = { readonly database: number; readonly log: number };

async function bytesOf(edgemeter: Edgemeter, events: number, load: () => Promise<unknown>): Promise<Bytes> {
  const before = await edgemeter.bytes();
  await load();
  const after = await edgemeter.bytes();
  return { database: (after.database - before.database) / events, log: (after.log - before.log) / events };
}

async function streamed(edgemeter: Edgemeter, keys: object): Promise<void> {
  const start = Date.now() - SPAN_MS;
  let made = 0;
  const next = await edgemeter.streamEvents(() => {
    const payload = { stripe_customer_id: `cus_${made % CUSTOMERS}`, value: String(1 + (made % 1_000)), ...keys };
    const timestamp = new Date(start + (SPAN_MS * made++) / EVENTS).toISOString();
    return { event_name: EVENT_NAME, identifier: randomUUID(), timestamp, payload };
  });
  await edgemeter.aggregated(next, { connections: 8, requests: EVENTS / STREAM_EVENTS }, STREAM_EVENTS);
}
