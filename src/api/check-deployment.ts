import { settingsOf } from "../env.ts";
import { err, type Result } from "../metering/result.ts";
import { checkShards } from "../storage/deployment.ts";
import type { Call } from "./endpoint.ts";
import type { ApiError } from "./errors.ts";

/** Whether this deployment may look for identifiers in its logs at all. */
export async function checkDeployment({ env }: Call<unknown>): Promise<Result<void, ApiError>> {
  const settings = settingsOf(env);
  const shards = await checkShards(env.DB, settings);
  if (shards.ok) return shards;
  return err({ reason: "shards_changed", configured: settings.EVENT_LOG_SHARDS, recorded: shards.error });
}
