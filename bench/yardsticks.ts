// Loads on the yardsticks of bench/bare, which run in the same workerd as what is measured.
import path from "node:path";
import { SCHEMA } from "./bare/sql.ts";
import { CUSTOMERS } from "./edgemeter.ts";
import { load } from "./load.ts";
import { cpuMs, type LocalWorkerd } from "./local-workerd.ts";
import { root, type Worker } from "./sides.ts";

export const BARE: Worker = {
  name: "bare",
  config: path.join(root, "bench/bare/wrangler.toml"),
  databases: { DB: SCHEMA },
};

/** A body as an event has. */
const BODY = JSON.stringify({
  event_name: "tokens",
  identifier: "bench-event-1000000",
  payload: { stripe_customer_id: "cus_1", value: "25" },
});

let made = 0;

/**
 * Gives loads of a route, whose n-th request is for the object that `object` says. Also milliseconds of workerd's
 * processor time a request (`cpu`). Objects are woken before their time is taken.
 */
export const yardsticksOn =
  ({ url }: LocalWorkerd, connections: number) =>
  (route: string, object: (n: number) => string | number, share = 1) =>
  async (seconds: number) => {
    const next = () => {
      const n = made++;
      const path = `/${route}/${object(n)}/${String(n).padStart(10, "0")}`;
      return { path, headers: { host: `${BARE.name}.test` }, body: BODY };
    };
    // workerd ends an object that had nothing to do for ten seconds, which is about what other loads of a round take.
    if (route !== "bulk") await load(url, next, { connections, requests: CUSTOMERS });
    const cpu = await cpuMs();
    const loaded = await load(url, next, { connections, seconds: share * seconds });
    return { ...loaded, cpu: ((await cpuMs()) - cpu) / loaded.accepted };
  };
