// Loads on the yardsticks of bench/bare, which run in the same workerd as what is measured.
import path from "node:path";
import { SCHEMA } from "./bare/sql.ts";
import { CUSTOMERS } from "./edgemeter.ts";
import { load, sampleOf } from "./load.ts";
import { cpuMs, type LocalWorkerd } from "./local-workerd.ts";
import type { Sample } from "./results.ts";
import { root, type Worker } from "./sides.ts";

export const BARE: Worker = { name: "bare", config: path.join(root, "bench/bare/wrangler.toml"), schema: SCHEMA };

/** A body as an event has. */
const BODY = JSON.stringify({
  event_name: "tokens",
  identifier: "bench-event-1000000",
  payload: { stripe_customer_id: "cus_1", value: "25" },
});

export type Yardstick = {
  readonly route: string;
  /** The object of the n-th request. */
  readonly object: (n: number) => string | number;
  readonly connections: number;
  readonly seconds: number;
};

let made = 0;

/** Also milliseconds of workerd's processor time a request (`cpu`). Objects are woken before their time is taken. */
export async function measureYardstick(workerd: LocalWorkerd, yardstick: Yardstick): Promise<Sample> {
  const { route, object, connections, seconds } = yardstick;
  const next = () => {
    const n = made++;
    const path = `/${route}/${object(n)}/${String(n).padStart(10, "0")}`;
    return { method: "POST", path, headers: { host: `${BARE.name}.test` }, body: BODY } as const;
  };
  // workerd ends an object that had nothing to do for ten seconds, which is about what other loads of a round take.
  if (!route.startsWith("bulk")) await load(workerd.url, next, { connections, requests: CUSTOMERS });
  const cpu = await cpuMs();
  const loaded = await load(workerd.url, next, { connections, seconds });
  return { ...sampleOf(loaded), cpu: ((await cpuMs()) - cpu) / loaded.accepted };
}
