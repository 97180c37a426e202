// edgemeter's API, as far as the bench needs it.
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { LOCAL_KEYS } from "../scripts/local-keys.ts";
import type { LocalWorkerd, WorkerSpec } from "./local-workerd.ts";
import { EVENT_NAME, hostOf, syncEvents, type TargetRequest } from "./targets.ts";

/** How often it is asked whether everything is in D1 (ms). */
const POLL_MS = 50;

/** Longer than this nothing may take (ms). */
const PATIENCE_MS = 120_000;

export type Answer = { readonly status: number; readonly body: string };

export class Edgemeter {
  readonly #workerd: LocalWorkerd;
  readonly #worker: WorkerSpec;

  constructor(workerd: LocalWorkerd, worker: WorkerSpec) {
    this.#workerd = workerd;
    this.#worker = worker;
  }

  /** Makes the meter that all events are for; its id. */
  async createMeter(eventName: string = EVENT_NAME): Promise<string> {
    const body = `display_name=Tokens&event_name=${eventName}&default_aggregation[formula]=sum`;
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return this.#text(await this.call("POST", "/v1/billing/meters", { headers, body }), "id");
  }

  /** A session's token. */
  async openSession(): Promise<string> {
    const headers = { "content-type": "application/json" };
    const answer = await this.call("POST", "/v2/billing/meter_event_session", { headers, body: "{}" });
    return this.#text(answer, "authentication_token");
  }

  /** Sends one event; throws unless it is accepted. */
  async sendEvent(): Promise<void> {
    this.#check(await this.send(syncEvents(this.#worker)()));
  }

  /** Waits until the aggregator has confirmed every event. */
  async drained(): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    // Twice, since a request whose answer nobody waits for may still be on its way.
    for (let quiet = 0; quiet < 2; ) {
      if (Date.now() > deadline) throw new Error(`events were not aggregated within ${PATIENCE_MS / 1_000} s`);
      const { body } = this.#check(await this.call("GET", "/v1/edgemeter/pipeline"));
      quiet = JSON.parse(body).entries_waiting === 0 ? quiet + 1 : 0;
      if (quiet < 2) await sleep(POLL_MS);
    }
  }

  /** Bytes of all logs. */
  async logBytes(): Promise<number> {
    const { body } = this.#check(await this.call("GET", "/v1/edgemeter/pipeline"));
    const { shards }: { shards: { storage_bytes: number }[] } = JSON.parse(body);
    return shards.reduce((total, shard) => total + shard.storage_bytes, 0);
  }

  /** Events in D1. */
  async stored(): Promise<number> {
    const db = await this.#workerd.database(this.#worker);
    return Number(await db.prepare("SELECT COUNT(*) AS stored FROM events").first("stored"));
  }

  /** Bytes of D1. */
  async databaseBytes(): Promise<number> {
    const db = await this.#workerd.database(this.#worker);
    return Number((await db.prepare("SELECT 1").run()).meta.size_after);
  }

  call(
    method: "GET" | "POST",
    path: string,
    { headers = {}, body }: { headers?: Record<string, string>; body?: string } = {},
  ): Promise<Answer> {
    const all = { host: hostOf(this.#worker), authorization: `Bearer ${LOCAL_KEYS.test}`, ...headers };
    return this.send({ method, path, headers: all, ...(body === undefined ? {} : { body }) });
  }

  /** One request; fetch would not send the host header that names the Worker. */
  send({ method, path, headers, body = "" }: TargetRequest): Promise<Answer> {
    const { hostname, port } = this.#workerd.url;
    return new Promise((resolve, reject) => {
      const lengths = body === "" ? {} : { "content-length": Buffer.byteLength(body) };
      request({ hostname, port, method, path, headers: { ...headers, ...lengths } }, (response) => {
        text(response).then((answer) => resolve({ status: response.statusCode ?? 0, body: answer }), reject);
      })
        .on("error", reject)
        .end(body);
    });
  }

  #text(answer: Answer, field: string): string {
    return String(JSON.parse(this.#check(answer).body)[field]);
  }

  #check(answer: Answer): Answer {
    if (answer.status !== 200) throw new Error(`${this.#worker.name} answered ${answer.status}: ${answer.body}`);
    return answer;
  }
}
