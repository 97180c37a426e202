// How long after its 200 an event is in the summary.
import { setTimeout as sleep } from "node:timers/promises";
import { CUSTOMERS, type Edgemeter, EVENT_NAME, EVENTS_PATH, withEdgemeters } from "../edgemeter.ts";
import { type Bench, figure, inTurn, type Measured, quantile } from "../results.ts";

/** Events a second while it is busy. */
const PACE = 500;

/** At a load a probe is sent so often (ms), whether or not the last is shown. */
const PROBE_EVERY_MS = 100;

/** How often a summary is asked for; a probe may have been there for as long (ms). */
const POLL_MS = 20;

/** A probe that is not shown by then has failed (ms). */
const PATIENCE_MS = 30_000;

/** Probes of one customer: the powers of two that are values (below 10^15). */
const BITS = 49;

const NAMES = { idle: "freshness, idle", busy: `freshness at ${PACE} events/s` };

export const measureFreshness = (bench: Bench): Promise<Measured> =>
  withEdgemeters(bench.sides, [], async (edgemeterOf) => {
    const taken = await inTurn(bench, {
      idle: (seconds, side) => idle(edgemeterOf(side), seconds),
      busy: (seconds, side) => busy(edgemeterOf(side), seconds),
    });
    const figures = Object.entries(NAMES).flatMap(([id, name]) =>
      ["p50", "p99"].map((p) => figure(`freshness-${id}-${p}`, `${name}, ${p}`, "ms", taken(id, p))),
    );
    return {
      figures: [
        ...figures,
        figure("freshness-pace", "  of these, accepted", "/s", taken("busy", "rate")),
        figure("freshness-response", "  p99 of a 200", "ms", taken("busy", "response")),
      ],
    };
  });

async function idle(edgemeter: Edgemeter, seconds: number) {
  await edgemeter.drained();
  return probe(edgemeter, Math.ceil(2 * seconds), async (open) => {
    while (open.size > 0) await sleep(POLL_MS);
    // Out of step with anything of the way.
    await sleep(Math.random() * 200);
  });
}

async function busy(edgemeter: Edgemeter, seconds: number) {
  const next = edgemeter.syncEvents();
  // Every customer's object is woken before the pace is kept.
  await edgemeter.load(next, { connections: 32, requests: 2 * CUSTOMERS });
  await edgemeter.drained();
  // A second to come into step, and one in which the last probes are shown.
  const loading = edgemeter.load(next, { perSecond: PACE, seconds: seconds + 2 });
  await sleep(1_000);
  const probing = probe(edgemeter, (seconds * 1_000) / PROBE_EVERY_MS, () => sleep(PROBE_EVERY_MS));
  const [waits, { rate, p99 }] = await Promise.all([probing, loading]);
  await edgemeter.drained();
  return { ...waits, rate, response: p99 };
}

let probed = 0;

/**
 * Sends probes, events whose values are powers of two, so that one sum says which of them it has. Measures how long
 * after its 200 each was in the sum (ms). `pause` is between two; `open` has those that are not in it yet.
 */
async function probe(edgemeter: Edgemeter, most: number, pause: (open: ReadonlyMap<bigint, number>) => Promise<void>) {
  const probes = Math.min(BITS, most);
  const customer = `cus_probe_${probed++}`;
  const open = new Map<bigint, number>();
  const waits: number[] = [];
  const sendAll = async (): Promise<void> => {
    for (let n = 0n; n < probes; n++) {
      const payload = { stripe_customer_id: customer, value: String(1n << n) };
      await accept(edgemeter, { event_name: EVENT_NAME, identifier: `${customer}-${n}`, payload });
      open.set(1n << n, performance.now());
      await pause(open);
    }
  };
  const watch = async (): Promise<void> => {
    for (; waits.length < probes; await sleep(POLL_MS)) {
      const sum = open.size === 0 ? 0n : await summed(edgemeter, customer);
      const seenAt = performance.now();
      for (const [bit, acceptedAt] of open) {
        if (seenAt - acceptedAt > PATIENCE_MS) throw new Error("a probe was not shown in time");
        if ((sum & bit) !== 0n && open.delete(bit)) waits.push(seenAt - acceptedAt);
      }
    }
  };
  await Promise.all([sendAll(), watch()]);
  return { p50: quantile(waits, 0.5), p99: quantile(waits, 0.99) };
}

/** Sends an event until it is accepted; the one before it may still have the customer's turn. */
async function accept(edgemeter: Edgemeter, event: object): Promise<void> {
  for (let status = 409; status !== 200; ) {
    ({ status } = await edgemeter.send(EVENTS_PATH, event));
    if (status === 409) await sleep(POLL_MS);
    else if (status !== 200) throw new Error(`a probe was answered with ${status}`);
  }
}

async function summed(edgemeter: Edgemeter, customer: string): Promise<bigint> {
  const minute = Math.floor(Date.now() / 60_000) * 60;
  const query = `customer=${customer}&start_time=${minute - 3_600}&end_time=${minute + 3_600}`;
  const { data } = await edgemeter.call(`/v1/billing/meters/${edgemeter.meter}/event_summaries?${query}`);
  return BigInt(data[0]?.aggregated_value ?? 0);
}
