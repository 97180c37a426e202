import { env } from "cloudflare:workers";
import schema from "../../schema.sql?raw";
import { SEED_LOCAL_KEYS } from "../../scripts/local-keys.ts";

/** Runs a script on the test's D1, which takes single statements only. */
async function run(script: string): Promise<void> {
  const statements = script.replaceAll(/--.*$/gm, "").split(";");
  await env.DB.batch(statements.filter((text) => text.trim() !== "").map((text) => env.DB.prepare(text)));
}

await run(schema);
await run(SEED_LOCAL_KEYS);

// A session is the database itself, as it is without replicas, so that what a test does to one it does to both.
env.DB.withSession = () => env.DB as unknown as D1DatabaseSession;
