import { err, type Result } from "../domain/result.ts";
import { settingsOf } from "../env.ts";
import { checkFixedSettings } from "../storage/deployment.ts";
import type { Call } from "./endpoint.ts";
import type { ApiError } from "./errors.ts";

/** Whether this deployment may look for identifiers in its logs at all. */
export async function checkDeployment({ env }: Call<unknown>): Promise<Result<void, ApiError>> {
  const settings = await checkFixedSettings(env.DB, settingsOf(env));
  return settings.ok ? settings : err({ reason: "setting_changed", ...settings.error });
}
