// edgemeter's API, as far as the bench needs it.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pRetry from "p-retry";
import { load, type Pace, type Request, send } from "./load.ts";
import { cpuMs, type Database, type LocalWorkerd, withWorkerd } from "./local-workerd.ts";
import type { Side, Worker } from "./sides.ts";
import { countEvents } from "./tables.ts";

export const EVENT_NAME = "tokens";

/** Customers that a load spreads its events over. */
export const CUSTOMERS = 1_000;

/** How much is asked for of the rate that 32 connections reach, where requests are not to wait for each other. */
const MODERATE = 0.3;

/** Events of a stream's request. */
export const STREAM_EVENTS = 100;

/** How often it is asked whether everything is in D1, and how long that may take (ms). */
const POLL_MS = 50;
const PATIENCE_MS = 120_000;

export const EVENTS_PATH = "/v2/billing/meter_events";
const PIPELINE_PATH = "/v1/edgemeter/pipeline";

/** What a sync event says who it is: an identifier, unless told, and no key. */
export type Identity = { readonly key?: "sdk" | "caller"; readonly identifier?: boolean };

export type Named = { readonly id: string; readonly name: string; readonly identity?: Identity };

/** The ways in which sync events are sent; `id` is that of their figures. */
export const IDENTITIES: readonly Named[] = [
  { id: "sync", name: "no Idempotency-Key" },
  { id: "sync-sdk-key", name: "an SDK's key", identity: { key: "sdk" } },
  { id: "sync-key", name: "a caller's key, no identifier", identity: { key: "caller", identifier: false } },
  { id: "sync-key-identifier", name: "a caller's key and an identifier", identity: { key: "caller" } },
];

/** Makes the next request of a load. */
export type Target = () => Request;

/** Numbers the events of a process. */
let made = 0;

/** The n-th event, of the next customer in turn. */
const eventOf = (n: number, customers = CUSTOMERS, identified = true): object => ({
  event_name: EVENT_NAME,
  payload: { stripe_customer_id: `cus_${n % customers}`, value: "25" },
  ...(identified && { identifier: randomUUID() }),
});

/** Runs `work` with edgemeter of each side, with the meter that events are for, on one workerd that has others too. */
export const withEdgemeters = <T>(
  sides: readonly Side[],
  others: readonly Worker[],
  work: (edgemeterOf: (side: Side) => Edgemeter, workerd: LocalWorkerd) => Promise<T>,
): Promise<T> =>
  withWorkerd([...sides, ...others], async (workerd) => {
    const edgemeters = new Map(sides.map((side) => [side.name, new Edgemeter(workerd, side)]));
    const edgemeterOf = ({ name }: Side): Edgemeter => {
      const edgemeter = edgemeters.get(name);
      if (edgemeter === undefined) throw new Error(`there is no ${name}`);
      return edgemeter;
    };
    for (const edgemeter of edgemeters.values()) edgemeter.meter = await edgemeter.createMeter(EVENT_NAME);
    return work(edgemeterOf, workerd);
  });

export class Edgemeter {
  /** The id of the meter that events are for. */
  meter = "";
  readonly #workerd: LocalWorkerd;
  readonly #side: Side;

  constructor(workerd: LocalWorkerd, side: Side) {
    this.#workerd = workerd;
    this.#side = side;
  }

  /** One event a request. */
  syncEvents({ key, identifier = true }: Identity = {}, customers = CUSTOMERS): Target {
    const prefix = key === "sdk" ? "stripe-node-retry-" : "bench-key-";
    return () => {
      const n = made++;
      const headers = key && { "idempotency-key": `${prefix}${n}` };
      return this.request(EVENTS_PATH, eventOf(n, customers, identifier), headers);
    };
  }

  /** A hundred events a request, under a session's token; `make` makes one. */
  async streamEvents(make = () => eventOf(made++)): Promise<Target> {
    const session = await this.call("/v2/billing/meter_event_session", {});
    const headers = { authorization: `Bearer ${session.authentication_token}` };
    return () => {
      const events = Array.from({ length: STREAM_EVENTS }, make);
      return this.request("/v2/billing/meter_event_stream", { events }, headers);
    };
  }

  load(next: Target, pace: Pace): ReturnType<typeof load> {
    return load(this.#workerd.url, next, pace);
  }

  /** A pace, by the clock, that leaves room for more on the machine as it is now. Customers' objects are awake then. */
  async moderatePace(next: Target): Promise<{ readonly perSecond: number }> {
    const full = { connections: 32, requests: CUSTOMERS };
    await this.load(next, full);
    const { rate } = await this.load(next, full);
    await this.drained();
    return { perSecond: MODERATE * rate };
  }

  /**
   * A load until all its events are in D1, of so many events a request: also milliseconds of workerd's processor time
   * an event, and events a second from the first request until then (`drained`). Throws when an event is missing.
   */
  async aggregated(next: Target, pace: Pace, events = 1) {
    const before = await this.stored();
    const cpu = await cpuMs();
    const started = performance.now();
    const loaded = await this.load(next, pace);
    await this.drained();
    const seconds = (performance.now() - started) / 1_000;
    const spent = (await cpuMs()) - cpu;
    const stored = (await this.stored()) - before;
    const accepted = loaded.accepted * events;
    if (stored !== accepted) throw new Error(`${accepted} events were accepted, and ${stored} are in D1`);
    return { ...loaded, rate: loaded.rate * events, cpu: spent / stored, drained: stored / seconds };
  }

  /** Makes a meter that sums; its id. */
  async createMeter(eventName: string): Promise<string> {
    const body = `display_name=Tokens&event_name=${eventName}&default_aggregation[formula]=sum`;
    return (await this.call("/v1/billing/meters", body)).id;
  }

  /** How it says that it is doing; it has a 503 for that where the machine is busy. */
  // biome-ignore lint/suspicious/noExplicitAny: what is in it is for the caller to know.
  pipeline(): Promise<any> {
    return pRetry(() => this.call(PIPELINE_PATH));
  }

  /** Waits until the aggregator has confirmed every event. */
  async drained(): Promise<void> {
    for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await sleep(POLL_MS)) {
      if ((await this.pipeline()).entries_waiting === 0) return;
    }
    throw new Error(`events were not aggregated within ${PATIENCE_MS / 1_000} s`);
  }

  /** Events in D1. */
  async stored(): Promise<number> {
    return this.#sumOverDatabases(countEvents);
  }

  /** Bytes of all logs, and of all databases. */
  async bytes(): Promise<{ readonly log: number; readonly database: number }> {
    const { shards }: { shards: { storage_bytes: number }[] } = await this.pipeline();
    const log = shards.reduce((total, shard) => total + shard.storage_bytes, 0);
    const database = await this.#sumOverDatabases(async (db) => (await db.prepare("SELECT 1").run()).meta.size_after);
    return { log, database };
  }

  async #sumOverDatabases(measure: (db: Database) => Promise<number>): Promise<number> {
    const bindings = Object.keys(this.#side.databases);
    const each = bindings.map(async (binding) => measure(await this.#workerd.database(this.#side, binding)));
    return (await Promise.all(each)).reduce((total, number) => total + number, 0);
  }

  /** One request; throws unless it is answered with 200. Gives the body, parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: what is in the body is for the caller to know.
  async call(path: string, body?: object | string): Promise<any> {
    const answer = await this.send(path, body);
    if (answer.status === 200) return JSON.parse(answer.body);
    throw new Error(`${path} of ${this.#side.name} was answered with ${answer.status}: ${answer.body}`);
  }

  send(path: string, body?: object | string): ReturnType<typeof send> {
    return send(this.#workerd.url, this.request(path, body));
  }

  /** A request with the live key: a GET, or a POST of JSON or of a form's text. */
  request(path: string, body?: object | string, headers: Readonly<Record<string, string>> = {}): Request {
    const { name, key } = this.#side;
    const isForm = typeof body === "string";
    const type = isForm ? "application/x-www-form-urlencoded" : "application/json";
    return {
      path,
      headers: { host: `${name}.test`, authorization: `Bearer ${key}`, "content-type": type, ...headers },
      body: isForm ? body : JSON.stringify(body),
    };
  }
}
