// The yardsticks: the least that a request can cost that goes through Durable Objects, or is stored in one or in D1.
import { DurableObject } from "cloudflare:workers";
import { INSERT_BULK, SCHEMA } from "./sql.ts";

type Env = {
  readonly ECHO: DurableObjectNamespace<Echo>;
  readonly STORE: DurableObjectNamespace<Store>;
  readonly DB: D1Database;
};

const INSERT_ONE = "INSERT INTO single (key, body) VALUES (?, ?)";

/** At least so long from one commit of grouped rows to the next, as GROUP_COMMIT_MS is (ms). */
const GROUP_MS = 20;

/** A thousand rows of about an event's size, without their call's part of their keys. */
const BULK_ROWS = JSON.stringify(
  Array.from({ length: 1_000 }, (_, i) => {
    const place = String(i).padStart(4, "0");
    return [place, `cus_${i}`, 1_790_000_000_000 + i, 25, `identifier-of-an-event-${place}`, "x".repeat(60)];
  }),
);

/** No storage. */
export class Echo extends DurableObject<Env> {
  echo(value: string): string {
    return value;
  }

  /** A second hop, to where rows are grouped: the two that an event's design needs. */
  pass(shard: string, key: string, body: string): Promise<void> {
    return this.env.STORE.getByName(shard).append(key, body);
  }
}

/** Calls are answered once their rows are on disk (output gate). */
export class Store extends DurableObject<Env> {
  #waiting: (() => void)[] = [];
  #committedAt = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    ctx.storage.sql.exec(SCHEMA);
  }

  insertBulk(key: string, rows: string): void {
    this.ctx.storage.sql.exec(INSERT_BULK, key, rows);
  }

  /** Rows that come within 20 ms of the last commit share the next one, as the log's do. */
  append(key: string, body: string): Promise<void> {
    const wait = this.#committedAt + GROUP_MS - Date.now();
    if (this.#waiting.length === 0) setTimeout(() => this.#commit(), Math.max(0, wait));
    return new Promise((appended) => {
      this.#waiting.push(() => {
        this.ctx.storage.sql.exec(INSERT_ONE, key, body);
        appended();
      });
    });
  }

  #commit(): void {
    this.#committedAt = Date.now();
    this.ctx.storage.transactionSync(() => {
      for (const insert of this.#waiting.splice(0)) insert();
    });
  }
}

type Call = { readonly env: Env; readonly name: string; readonly key: string; readonly body: string };

/** What a path's first part does with its second, an object's name, and its third, a key of its own for each request. */
const ROUTES: Record<string, (call: Call) => Promise<unknown>> = {
  worker: async () => {},
  echo: ({ env, name, body }) => env.ECHO.getByName(name).echo(body),
  grouped: ({ env, name, key, body }) => {
    const [object = "", shard = ""] = name.split(":");
    return env.ECHO.getByName(object).pass(shard, key, body);
  },
  d1: ({ env, key, body }) => env.DB.prepare(INSERT_ONE).bind(key, body).run(),
  bulk: async ({ env, name, key }) => {
    await env.STORE.getByName(name).insertBulk(key, BULK_ROWS);
    await env.DB.prepare(INSERT_BULK).bind(key, BULK_ROWS).run();
  },
};

export default {
  async fetch(request, env) {
    const [, route = "", name = "", key = ""] = new URL(request.url).pathname.split("/");
    const body = await request.text();
    const run = ROUTES[route];
    if (run === undefined) return new Response("no such yardstick", { status: 404 });
    await run({ env, name, key, body });
    return new Response(body);
  },
} satisfies ExportedHandler<Env>;
