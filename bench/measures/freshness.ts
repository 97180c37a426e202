// How long after its 200 an event is in the summary.
import { setTimeout as sleep } from "node:timers/promises";
import { CUSTOMERS, Edgemeter, EVENT_NAME, JSON_BODY } from "../edgemeter.ts";
import { sampleOf } from "../load.ts";
import { withWorkerd } from "../local-workerd.ts";
import { type Bench, figure, inTurn, type Measured, onEach, quantile, type Sample } from "../results.ts";
import type { Side } from "../sides.ts";

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

export const measureFreshness = (bench: Bench): Promise<Measured> =>
  withWorkerd(bench.sides, async (workerd) => {
    const meters = new Map<Side, string>();
    for (const side of bench.sides) meters.set(side, await new Edgemeter(workerd, side).createMeter());
    const contestants = Object.entries({ idle, busy }).flatMap(([name, measure]) =>
      onEach(bench.sides, name, (side) => measure(new Edgemeter(workerd, side), meters.get(side) ?? "", bench.seconds)),
    );
    const taken = await inTurn(bench, contestants);
    const names = { idle: "freshness, idle", busy: `freshness at ${PACE} events/s` };
    const figures = Object.entries(names).flatMap(([id, name]) =>
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

async function idle(edgemeter: Edgemeter, meter: string, seconds: number): Promise<Sample> {
  await edgemeter.drained();
  const probes = Math.min(BITS, Math.ceil(2 * seconds));
  const waits = await probe(edgemeter, meter, probes, async (open) => {
    while (open.size > 0) await sleep(POLL_MS);
    // Out of step with anything of the way.
    await sleep(Math.random() * 200);
  });
  return { p50: quantile(waits, 0.5), p99: quantile(waits, 0.99) };
}

async function busy(edgemeter: Edgemeter, meter: string, seconds: number): Promise<Sample> {
  const next = edgemeter.syncEvents();
  // Every customer's object is woken before the pace is kept.
  await edgemeter.load(next, { connections: 32, requests: 2 * CUSTOMERS });
  await edgemeter.drained();
  const probes = Math.min(BITS, Math.ceil((seconds * 1_000) / PROBE_EVERY_MS));
  // A second to come into step, and one in which the last probes are shown.
  const loading = edgemeter.load(next, { perSecond: PACE, seconds: (probes * PROBE_EVERY_MS) / 1_000 + 2 });
  await sleep(1_000);
  const [waits, loaded] = await Promise.all([probe(edgemeter, meter, probes, () => sleep(PROBE_EVERY_MS)), loading]);
  await edgemeter.drained();
  const { rate = 0, p99 = 0 } = sampleOf(loaded);
  return { p50: quantile(waits, 0.5), p99: quantile(waits, 0.99), rate, response: p99 };
}

let probed = 0;

/**
 * Sends probes, events whose values are powers of two, so that one sum says which of them it has. Gives how long after
 * its 200 each was in the sum (ms). `pause` is between two; `open` has those that are not in it yet.
 */
async function probe(
  edgemeter: Edgemeter,
  meter: string,
  probes: number,
  pause: (open: ReadonlyMap<bigint, number>) => Promise<void>,
): Promise<number[]> {
  const customer = `cus_probe_${probed++}`;
  const open = new Map<bigint, number>();
  const waits: number[] = [];
  const sendAll = async (): Promise<void> => {
    for (let n = 0n; n < probes; n++) {
      const payload = { stripe_customer_id: customer, value: String(1n << n) };
      const event = { event_name: EVENT_NAME, identifier: `${customer}-${n}`, payload };
      await accepted(() => edgemeter.send("POST", "/v2/billing/meter_events", JSON_BODY, event));
      open.set(1n << n, performance.now());
      await pause(open);
    }
  };
  const watch = async (): Promise<void> => {
    for (; waits.length < probes; await sleep(POLL_MS)) {
      const sum = open.size === 0 ? 0n : await summed(edgemeter, meter, customer);
      const seenAt = performance.now();
      for (const [bit, acceptedAt] of open) {
        if (seenAt - acceptedAt > PATIENCE_MS) throw new Error("a probe was not shown in time");
        if ((sum & bit) !== 0n && open.delete(bit)) waits.push(seenAt - acceptedAt);
      }
    }
  };
  await Promise.all([sendAll(), watch()]);
  return waits;
}

/** Sends a probe until it is accepted; the one before it may still have the customer's turn. */
async function accepted(send: () => ReturnType<Edgemeter["send"]>): Promise<void> {
  for (let status = 409; status !== 200; ) {
    ({ status } = await send());
    if (status === 409) await sleep(POLL_MS);
    else if (status !== 200) throw new Error(`a probe was answered with ${status}`);
  }
}

/** The sum as digits: as a number it would be rounded past 2^53. */
async function summed(edgemeter: Edgemeter, meter: string, customer: string): Promise<bigint> {
  const minute = Math.floor(Date.now() / 60_000) * 60;
  const query = `customer=${customer}&start_time=${minute - 3_600}&end_time=${minute + 3_600}`;
  const { body } = await edgemeter.send("GET", `/v1/billing/meters/${meter}/event_summaries?${query}`);
  return BigInt(/"aggregated_value":(\d+)/.exec(body)?.[1] ?? 0);
}
