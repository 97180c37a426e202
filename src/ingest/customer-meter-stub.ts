import { objectNamed } from "../catalog/objects.ts";
import type { Env } from "../env.ts";
import type { CustomerMeter } from "./customer-meter.ts";

/** The object that takes a customer's writes on a meter one at a time. */
export const customerMeter = (env: Env, meter: string, customer: string): DurableObjectStub<CustomerMeter> =>
  objectNamed<CustomerMeter>(env, env.CUSTOMER_METER, `${meter}:${customer}`);
