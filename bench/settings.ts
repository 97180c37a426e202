import path from "node:path";
import { unstable_readConfig } from "wrangler";
import type { Timers } from "./cost.ts";

/** What the bench needs to know of a deployment's settings. */
export type Settings = Timers & { readonly shards: number };

/** As wrangler.toml has them. */
export function readSettings(): Settings {
  const { vars } = unstable_readConfig({ config: path.join(import.meta.dirname, "../wrangler.toml") });
  const setting = (name: string): number => Number(vars[name]);
  return {
    shards: setting("EVENT_LOG_SHARDS"),
    groupCommitMs: setting("GROUP_COMMIT_MS"),
    sendDelayMs: setting("SEND_DELAY_MS"),
  };
}
