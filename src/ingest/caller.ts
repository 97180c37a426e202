import type { ApiKey } from "../catalog/api-keys.ts";
import type { Env, Execution } from "../env.ts";

/** Who makes a request, and what tells it from others. */
export type Caller = {
  readonly key: ApiKey;
  /** What the caller chose, or its SDK made, to have the request carried out once. */
  readonly idempotencyKey: string | undefined;
  /** Method and path, as defined: what an Idempotency-Key belongs to. */
  readonly endpoint: string;
  /** When the request came in (ms). */
  readonly now: number;
  /** What tells this request from all others; its ids and those of what it makes end with it. */
  readonly token: string;
  readonly env: Env;
  readonly execution: Execution;
};
