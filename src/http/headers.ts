import type { ApiError, CommonHeaders } from "./errors.ts";

/**
 * The version of Stripe's API that this service is written against. Every response names it, whatever
 * version its request asked for: requests of any version are served alike, and to echo another one
 * would claim that its rules were followed.
 */
const STRIPE_VERSION = "2026-10-28.endive";

/** `2026-10-28.endive`, an older one without a name, and either with what an SDK adds for betas (`; some_beta=v1`). */
const VERSION_FORM = /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(\.[a-z]+)?(; ?[a-z0-9_]+=v\d+)*$/;

/** What names another account than the one that a deployment is. */
const ACCOUNT_HEADERS = ["Stripe-Account", "Stripe-Context"] as const;

/** Why a request's headers are refused, on whatever route; nothing when they are not. */
export function headerFault(headers: Headers): ApiError | undefined {
  for (const name of ACCOUNT_HEADERS) {
    if (headers.get(name)) {
      const message = `The header ${name} cannot be used: a deployment is one account, and its customers would be added up whatever the header says. Leave it out.`;
      return { reason: "invalid_field", message };
    }
  }
  const version = headers.get("stripe-version");
  if (!version || VERSION_FORM.test(version)) return undefined;
  const message = `Invalid Stripe-Version: it must have the form of ${STRIPE_VERSION}, or be a date like 2024-06-20.`;
  return { reason: "invalid_field", message };
}

/** The headers that every response has, errors included. */
export const commonHeaders = (requestId: string, idempotencyKey: string | undefined): CommonHeaders => ({
  "request-id": requestId,
  "stripe-version": STRIPE_VERSION,
  "x-content-type-options": "nosniff",
  "cache-control": "no-store",
  ...(idempotencyKey ? { "idempotency-key": idempotencyKey } : {}),
});
