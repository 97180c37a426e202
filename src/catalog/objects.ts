import { type Env, settingsOf } from "../env.ts";

/**
 * An object of a class by its name, where the settings say: within JURISDICTION, where the same name is another
 * object than elsewhere, and near LOCATION_HINT, which Cloudflare honours at an object's first use. A new stub for
 * each call: one that has seen its object reset keeps failing.
 */
export function objectNamed<T extends Rpc.DurableObjectBranded>(
  env: Env,
  objects: DurableObjectNamespace,
  name: string,
): DurableObjectStub<T> {
  const { JURISDICTION: jurisdiction, LOCATION_HINT: locationHint } = settingsOf(env);
  // The bindings in Env name no class, since the classes themselves need Env.
  const ofClass = objects as DurableObjectNamespace<T>;
  const within = jurisdiction === "" ? ofClass : ofClass.jurisdiction(jurisdiction);
  return within.getByName(name, locationHint === "" ? {} : { locationHint });
}
