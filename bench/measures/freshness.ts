// How long after its 200 an event is in the summary.
import { setTimeout as sleep } from "node:timers/promises";
import { Edgemeter } from "../edgemeter.ts";
import { load } from "../load.ts";
import { EDGEMETER, withWorkerd } from "../local-workerd.ts";
import { pacedLoad } from "../paced.ts";
import type { Bench, Figure, Measured } from "../results.ts";
import { quantile } from "../statistics.ts";
import { CUSTOMERS, EVENT_NAME, syncEvents } from "../targets.ts";

const PACE = 500;

/** For waking every customer's object before the pace is kept. */
const CONNECTIONS = 32;

/** Probes at a load: one after the other every so often (ms), whether or not the last is shown. */
const PROBE_EVERY_MS = 100;

/** How often a summary is asked for; a probe may have been there for as long (ms). */
const POLL_MS = 20;

/** A probe that is not shown by then has failed (ms). */
const PATIENCE_MS = 30_000;

/** Probes of one customer: the powers of two that are values (below 10^15). */
const BITS = 49;

const MINUTE_S = 60;

export const measureFreshness = (bench: Bench): Promise<Measured> =>
  withWorkerd([EDGEMETER], async (workerd) => {
    const edgemeter = new Edgemeter(workerd, EDGEMETER);
    const meter = await edgemeter.createMeter();
    await edgemeter.sendEvent();
    await edgemeter.drained();

    bench.progress("idle");
    const idle = new Probes(edgemeter, meter, "idle");
    for (let probe = 0; probe < 4 * bench.seconds; probe++) {
      await idle.send();
      // Not in step with anything of the way.
      await sleep(Math.random() * POLL_MS * 10);
    }

    bench.progress(`${PACE} events a second: warming up`);
    await load(workerd.url, syncEvents(EDGEMETER), CONNECTIONS, { requests: 2 * CUSTOMERS });
    await edgemeter.drained();
    await pacedLoad(edgemeter, syncEvents(EDGEMETER), PACE, 2 * bench.seconds);
    bench.progress(`${PACE} events a second`);
    const busy = new Probes(edgemeter, meter, "busy");
    const loading = pacedLoad(edgemeter, syncEvents(EDGEMETER), PACE, 4 * bench.seconds);
    const sent: Promise<void>[] = [];
    for (let probe = 0; probe < (4_000 * bench.seconds) / PROBE_EVERY_MS; probe++) {
      const probe = busy.send();
      // Looked at when all are sent.
      probe.catch(() => {});
      sent.push(probe);
      await sleep(PROBE_EVERY_MS);
    }
    const paced = await loading;
    await Promise.all(sent);
    await edgemeter.drained();
    return {
      figures: [
        ...figures("freshness-idle", "freshness, idle", idle.waits),
        ...figures("freshness-busy", `freshness at ${PACE} events/s`, busy.waits),
        {
          id: "freshness-pace",
          name: "  of these, accepted",
          value: paced.rate,
          unit: "/s",
          note: `sent in an open loop; ${paced.refused} were refused, p99 of a 200 ${quantile(paced.latencies, 0.99).toFixed(0)} ms`,
        },
      ],
    };
  });

function figures(id: string, name: string, waits: readonly number[]): Figure[] {
  const note = `of ${waits.length} probes; asked every ${POLL_MS} ms`;
  return [
    { id: `${id}-p50`, name: `${name}, p50`, value: quantile(waits, 0.5), unit: "ms", note },
    { id: `${id}-p99`, name: `${name}, p99`, value: quantile(waits, 0.99), unit: "ms", note },
  ];
}

type Probe = { readonly bit: bigint; readonly acceptedAt: number; readonly shown: () => void };

/**
 * Events whose values are powers of two, so that one sum says of each whether it is in it: one
 * question at a time is enough for any number of probes.
 */
class Probes {
  readonly #edgemeter: Edgemeter;
  readonly #meter: string;
  readonly #name: string;
  #sent = 0;
  /** Those not shown yet, by customer. */
  readonly #open = new Map<string, Set<Probe>>();
  #polling: Promise<void> | undefined;
  /** How long each took (ms). */
  readonly waits: number[] = [];

  constructor(edgemeter: Edgemeter, meter: string, name: string) {
    this.#edgemeter = edgemeter;
    this.#meter = meter;
    this.#name = name;
  }

  /** Sends a probe, and waits until it is shown. */
  async send(): Promise<void> {
    const n = this.#sent++;
    const customer = `cus_${this.#name}_${Math.floor(n / BITS)}`;
    const bit = 1n << BigInt(n % BITS);
    const body = JSON.stringify({
      event_name: EVENT_NAME,
      identifier: `probe-${this.#name}-${n}`,
      payload: { stripe_customer_id: customer, value: String(bit) },
    });
    const headers = { "content-type": "application/json" };
    // A probe before it may still have its customer's turn.
    for (;;) {
      const { status } = await this.#edgemeter.call("POST", "/v2/billing/meter_events", { headers, body });
      if (status === 200) break;
      if (status !== 409) throw new Error(`a probe was answered with ${status}`);
      await sleep(POLL_MS);
    }
    await new Promise<void>((shown, failed) => {
      const open = this.#open.get(customer) ?? new Set();
      this.#open.set(customer, open.add({ bit, acceptedAt: performance.now(), shown }));
      this.#polling ??= this.#poll().finally(() => {
        this.#polling = undefined;
      });
      this.#polling.catch(failed);
    });
  }

  async #poll(): Promise<void> {
    while (this.#open.size > 0) {
      for (const [customer, open] of this.#open) await this.#look(customer, open);
      await sleep(POLL_MS);
    }
  }

  async #look(customer: string, open: Set<Probe>): Promise<void> {
    const now = Math.floor(Date.now() / 1_000 / MINUTE_S) * MINUTE_S;
    const range = `start_time=${now - 60 * MINUTE_S}&end_time=${now + 5 * MINUTE_S}`;
    const path = `/v1/billing/meters/${this.#meter}/event_summaries?customer=${customer}&${range}`;
    const { status, body } = await this.#edgemeter.call("GET", path);
    if (status !== 200) throw new Error(`a summary was answered with ${status}: ${body}`);
    const seenAt = performance.now();
    const sum = BigInt(/"aggregated_value":(\d+)/.exec(body)?.[1] ?? 0);
    for (const probe of open) {
      if (seenAt - probe.acceptedAt > PATIENCE_MS) throw new Error("a probe was not shown in time");
      if ((sum & probe.bit) === 0n) continue;
      open.delete(probe);
      this.waits.push(seenAt - probe.acceptedAt);
      probe.shown();
    }
    if (open.size === 0) this.#open.delete(customer);
  }
}
