import type { D1Migration } from "cloudflare:test";
import type { Env as WorkerEnv } from "../../src/env.ts";
import type { Archiver, CustomerMeter, EventLog } from "../../src/index.ts";

/** What the tests find bound: as the Worker does, with the classes of its objects. */
interface TestEnv extends Omit<WorkerEnv, "CUSTOMER_METER" | "EVENT_LOG" | "ARCHIVER" | "ARCHIVE"> {
  readonly ARCHIVE: R2Bucket;
  readonly EVENTS_1: D1Database;
  readonly EVENTS_2: D1Database;
  readonly EVENTS_3: D1Database;
  readonly CONTROL_MIGRATIONS: D1Migration[];
  readonly EVENTS_MIGRATIONS: D1Migration[];
  readonly CUSTOMER_METER: DurableObjectNamespace<CustomerMeter>;
  readonly EVENT_LOG: DurableObjectNamespace<EventLog>;
  readonly ARCHIVER: DurableObjectNamespace<Archiver>;
}

declare global {
  namespace Cloudflare {
    interface Env extends TestEnv {}
    interface GlobalProps {
      mainModule: typeof import("../../src/index.ts");
    }
  }
}
