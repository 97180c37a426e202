// edgemeter's API, as far as the bench needs it.
import { setTimeout as sleep } from "node:timers/promises";
import { type Loaded, load, type Pace, type Request, sampleOf, send } from "./load.ts";
import { cpuMs, type LocalWorkerd } from "./local-workerd.ts";
import type { Sample } from "./results.ts";
import type { Side } from "./sides.ts";

export const EVENT_NAME = "tokens";

/** Customers that a load spreads its events over. */
export const CUSTOMERS = 1_000;

/** Events of a stream's request. */
export const STREAM_EVENTS = 100;

/** How often it is asked whether everything is in D1, and how long that may take (ms). */
const POLL_MS = 50;
const PATIENCE_MS = 120_000;

export const JSON_BODY = { "content-type": "application/json" };

const SELECT_EVENT_TABLES = `
  SELECT name FROM sqlite_schema WHERE type = 'table' AND (name = 'events' OR name GLOB 'events_[0-9]*')`;

/** What a sync event says who it is: an identifier, unless told, and no key. */
export type Identity = { readonly key?: "sdk" | "caller"; readonly identifier?: boolean };

/** Makes the next request of a load. */
type Target = () => Request;

/** Numbers the events of a process. */
let made = 0;

/** The n-th event, of the next customer in turn. */
const eventOf = (n: number, customers = CUSTOMERS, identified = true): object => ({
  event_name: EVENT_NAME,
  payload: { stripe_customer_id: `cus_${n % customers}`, value: "25" },
  ...(identified && { identifier: `bench-event-${n}` }),
});

export class Edgemeter {
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
      const headers = key === undefined ? JSON_BODY : { ...JSON_BODY, "idempotency-key": `${prefix}${n}` };
      return this.request("POST", "/v2/billing/meter_events", headers, eventOf(n, customers, identifier));
    };
  }

  /** A hundred events a request, under a session's token. */
  async streamEvents(): Promise<Target> {
    const session = await this.call("POST", "/v2/billing/meter_event_session", JSON_BODY, {});
    const headers = { ...JSON_BODY, authorization: `Bearer ${session.authentication_token}` };
    return () => {
      const events = Array.from({ length: STREAM_EVENTS }, () => eventOf(made++));
      return this.request("POST", "/v2/billing/meter_event_stream", headers, { events });
    };
  }

  load(next: Target, pace: Pace): Promise<Loaded> {
    return load(this.#workerd.url, next, pace);
  }

  /**
   * A load until all its events are in D1, of so many events a request: also milliseconds of workerd's processor time
   * an event, and events a second from the first request until then (`drained`). Throws when an event is missing.
   */
  async aggregated(next: Target, pace: Pace, events = 1): Promise<Sample> {
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
    return { ...sampleOf(loaded), rate: accepted / loaded.seconds, cpu: spent / stored, drained: stored / seconds };
  }

  /** Makes the meter that events are for; its id. */
  async createMeter(eventName: string = EVENT_NAME): Promise<string> {
    const body = `display_name=Tokens&event_name=${eventName}&default_aggregation[formula]=sum`;
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return (await this.call("POST", "/v1/billing/meters", headers, body)).id;
  }

  /** Waits until the aggregator has confirmed every event. */
  async drained(): Promise<void> {
    for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await sleep(POLL_MS)) {
      if ((await this.call("GET", "/v1/edgemeter/pipeline")).entries_waiting === 0) return;
    }
    throw new Error(`events were not aggregated within ${PATIENCE_MS / 1_000} s`);
  }

  /** Events in D1, in whatever databases and tables of events there are. */
  async stored(): Promise<number> {
    let stored = 0;
    for (const db of await this.#workerd.databases(this.#side)) {
      const { results } = await db.prepare(SELECT_EVENT_TABLES).all<{ name: string }>();
      for (const { name } of results)
        stored += Number(await db.prepare(`SELECT COUNT(*) AS n FROM ${name}`).first("n"));
    }
    return stored;
  }

  /** Bytes of all logs, and of all databases. */
  async bytes(): Promise<{ readonly log: number; readonly database: number }> {
    const { shards }: { shards: { storage_bytes: number }[] } = await this.call("GET", "/v1/edgemeter/pipeline");
    const log = shards.reduce((total, shard) => total + shard.storage_bytes, 0);
    let database = 0;
    for (const db of await this.#workerd.databases(this.#side)) {
      database += Number((await db.prepare("SELECT 1").run()).meta.size_after);
    }
    return { log, database };
  }

  /** One request; throws unless it is answered with 200. Gives the body, parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: what is in the body is for the caller to know.
  async call(...request: Parameters<Edgemeter["request"]>): Promise<any> {
    const { status, body } = await this.send(...request);
    if (status === 200) return JSON.parse(body);
    throw new Error(`${request[0]} ${request[1]} of ${this.#side.name} was answered with ${status}: ${body}`);
  }

  send(...request: Parameters<Edgemeter["request"]>): ReturnType<typeof send> {
    return send(this.#workerd.url, this.request(...request));
  }

  /** A request with the test key; a body that is no text is sent as JSON. */
  request(
    method: "GET" | "POST",
    path: string,
    headers: Record<string, string> = {},
    body: object | string = "",
  ): Request {
    const { name, key } = this.#side;
    const all = { host: `${name}.test`, authorization: `Bearer ${key}`, ...headers };
    return { method, path, headers: all, body: typeof body === "string" ? body : JSON.stringify(body) };
  }
}
