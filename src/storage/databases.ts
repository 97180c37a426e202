import type { Env } from "../env.ts";

/**
 * The database that holds events and summaries: the one place that decides it. When one database
 * is not enough, the choice is made here from what never changes about an event: its received time,
 * meter and customer. `commitOnce`, which redrives dead letters too, then needs another way for them:
 * it commits a change and its Idempotency-Key in one transaction, and that is on `env.DB`.
 */
export const eventsDatabase = (env: Env): D1Database => env.DB;
