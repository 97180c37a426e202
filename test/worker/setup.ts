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
