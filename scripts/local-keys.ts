import { hashOf } from "../src/catalog/key-hash.ts";
import { NEXT_KEY_NUMBER } from "./sql.ts";

/** The API keys of a local server, which may do everything. They are no secret, and no deployment ever has them. */
export const LOCAL_KEYS = { test: "sk_test_edgemeter_local", live: "sk_live_edgemeter_local" } as const;

/** SQL that puts the local keys in a database, where they are not yet. */
export const SEED_LOCAL_KEYS = Object.entries(LOCAL_KEYS)
  .map(
    ([mode, key]) => `
INSERT INTO api_keys (hash, id, number, name, livemode, created, permissions)
VALUES ('${hashOf(key)}', 'key_${mode}_local', ${NEXT_KEY_NUMBER}, 'local', ${mode === "live" ? 1 : 0}, 0, 'ingest read manage operate')
ON CONFLICT DO NOTHING;`,
  )
  .join("\n");
