import { DurableObject } from "cloudflare:workers";
import { BULK_ROWS, INSERT_BULK } from "./bulk.ts";
import { SCHEMA } from "./schema.ts";

/** HTTP in, one RPC to one of many objects, no storage, no framework. */
export class Echo extends DurableObject {
  echo(value: string): string {
    return value;
  }
}

/** One RPC, one transaction, and the answer once that is on disk (output gate). */
export class Store extends DurableObject {
  constructor(ctx: DurableObjectState, env: object) {
    super(ctx, env);
    ctx.storage.sql.exec(SCHEMA);
  }

  insert(key: string, body: string): void {
    this.ctx.storage.sql.exec("INSERT INTO single (key, body) VALUES (?, ?)", key, body);
  }

  insertBulk(key: string, rows: string): void {
    this.ctx.storage.sql.exec(INSERT_BULK, key, rows);
  }
}

type Env = {
  readonly ECHO: DurableObjectNamespace<Echo>;
  readonly STORE: DurableObjectNamespace<Store>;
  readonly DB: D1Database;
};

/** What a path's first part does with an object's name or a shard, and a key of its own for each request. */
const ROUTES: Record<string, (env: Env, name: string, key: string, body: string) => Promise<unknown>> = {
  worker: async () => {},
  echo: (env, name, _, body) => env.ECHO.getByName(name).echo(body),
  insert: (env, name, key, body) => env.STORE.getByName(name).insert(key, body),
  d1: (env, _, key, body) => env.DB.prepare("INSERT INTO single (key, body) VALUES (?, ?)").bind(key, body).run(),
  "bulk-object": bulkObject,
  "bulk-d1": bulkD1,
  "bulk-both": async (env, name, key) => {
    await bulkObject(env, name, key);
    await bulkD1(env, name, key);
  },
};

async function bulkObject(env: Env, name: string, key: string): Promise<void> {
  await env.STORE.getByName(name).insertBulk(key, BULK_ROWS);
}

async function bulkD1(env: Env, _: string, key: string): Promise<void> {
  await env.DB.prepare(INSERT_BULK).bind(key, BULK_ROWS).run();
}

export default {
  async fetch(request, env) {
    const [, route = "", name = "", key = ""] = new URL(request.url).pathname.split("/");
    const body = await request.text();
    const run = ROUTES[route];
    if (run === undefined) return new Response("no such yardstick", { status: 404 });
    await run(env, name, key, body);
    return new Response(body);
  },
} satisfies ExportedHandler<Env>;
