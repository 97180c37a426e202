import { applyD1Migrations } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { SEED_LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { eventsDatabases } from "../../src/catalog/databases.ts";
import { recordPlacement } from "./support.ts";

await applyD1Migrations(env.DB, env.CONTROL_MIGRATIONS);
for (const { db } of [...eventsDatabases(env, true), ...eventsDatabases(env, false)]) {
  await applyD1Migrations(db, env.EVENTS_MIGRATIONS);
}
const seeds = SEED_LOCAL_KEYS.split(";").filter((text) => text.trim() !== "");
await env.DB.batch(seeds.map((text) => env.DB.prepare(text)));
// One database, of the four that are bound, until a test grows; the log has the shards of wrangler.toml.
await env.DB.exec(
  "INSERT INTO deployment VALUES ('jurisdiction', ''), ('event_log_shards', '[[4,0]]'), ('test_event_log_shards', '[[1,0]]')",
);
await recordPlacement([{ databases: 1, since: 0 }]);

// A session is the database itself, as it is without replicas, so that what a test does to one it does to both.
env.DB.withSession = () => env.DB as unknown as D1DatabaseSession;
