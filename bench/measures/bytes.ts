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

export const measureBytes = async ({ sides, progress }: Bench): Promise<Measured> => {
  const figures: Figure[] = [];
  for (const { id, name, keys } of CASES) {
    const taken: Bytes[] = [];
    for (const side of sides) {
      progress(name);
      taken.push(await withEdgemeters([side], [], (edgemeterOf) => bytesOf(edgemeterOf(side), keys)));
    }
    const of = (field: keyof Bytes): Values => {
      const [present = Number.NaN, base] = taken.map((bytes) => bytes[field] / EVENTS);
      return { rounds: [present], base: base === undefined ? undefined : [base] };
    };
    const note = `${EVENTS} events of ${CUSTOMERS} customers within ${SPAN_MS / HOUR_MS} hours`;
    figures.push(figure(`bytes-${id}`, `in D1, ${name}`, "bytes", of("database"), { note }));
    figures.push(figure(`bytes-${id}-log`, "  in the log", "bytes", of("log")));
  }
  for (const { id, name, identity } of IDENTITIES) {
    const taken: number[] = [];
    for (const side of sides) {
      progress(name);
      taken.push(
        await withEdgemeters([side], [], async (edgemeterOf) => {
          const edgemeter = edgemeterOf(side);
          const before = await edgemeter.bytes();
          await edgemeter.aggregated(edgemeter.syncEvents(identity), {
            connections: CONNECTIONS,
            requests: SYNC_EVENTS,
          });
          return ((await edgemeter.bytes()).log - before.log) / SYNC_EVENTS;
        }),
      );
    }
    const [present = Number.NaN, base] = taken;
    const values: Values = { rounds: [present], base: base === undefined ? undefined : [base] };
    const note = `${SYNC_EVENTS} sync events by ${CONNECTIONS} connections`;
    figures.push(figure(`bytes-log-${id}`, `in the log, ${name}`, "bytes", values, { note }));
  }
  return { figures };
};

/** Bytes of all events. */
type Bytes = { readonly database: number; readonly log: number };

async function bytesOf(edgemeter: Edgemeter, keys: object): Promise<Bytes> {
  const start = Date.now() - SPAN_MS;
  let made = 0;
  const before = await edgemeter.bytes();
  const next = await edgemeter.streamEvents(() => {
    const payload = { stripe_customer_id: `cus_${made % CUSTOMERS}`, value: String(1 + (made % 1_000)), ...keys };
    const timestamp = new Date(start + (SPAN_MS * made++) / EVENTS).toISOString();
    return { event_name: EVENT_NAME, identifier: randomUUID(), timestamp, payload };
  });
  await edgemeter.aggregated(next, { connections: 8, requests: EVENTS / STREAM_EVENTS }, STREAM_EVENTS);
  const after = await edgemeter.bytes();
  return { database: after.database - before.database, log: after.log - before.log };
}
