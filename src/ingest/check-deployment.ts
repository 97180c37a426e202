import { checkFixedSettings } from "../catalog/deployment.ts";
import { err, type Result } from "../domain/result.ts";
import { settingsOf } from "../env.ts";
import type { Call } from "../http/endpoint.ts";
import type { ApiError } from "../http/errors.ts";

/** Whether this deployment may look for identifiers in its logs at all. */
export async function checkDeployment({ env }: Call<unknown>): Promise<Result<void, ApiError>> {
  const settings = await checkFixedSettings(env.DB, settingsOf(env));
  return settings.ok ? settings : err({ reason: "setting_changed", ...settings.error });
}
