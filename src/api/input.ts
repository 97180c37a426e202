import type { MeteringError } from "../metering/errors.ts";
import { LIMITS } from "../metering/limits.ts";
import { err, ok, type Result } from "../metering/result.ts";
import type * as z from "./zod.ts";

/** Checks raw fields against a schema; the first thing that is wrong becomes the error. */
export function check<T>(schema: z.ZodType<T>, raw: unknown): Result<T, MeteringError> {
  const checked = schema.safeParse(raw);
  if (checked.success) return ok(checked.data);
  const [issue] = checked.error.issues;
  return err(issue === undefined ? { reason: "invalid_field", message: "Invalid request." } : toError(issue));
}

function toError(issue: z.core.$ZodIssue): MeteringError {
  // A rule of the domain that ran inside a schema has named its error itself.
  if (issue.code === "custom" && issue.params?.error) return issue.params.error as MeteringError;
  // The last choice is what the parameter should have been; the others are ways to leave it out.
  const choice = issue.code === "invalid_union" ? issue.errors.at(-1)?.[0] : undefined;
  if (choice !== undefined) return toError({ ...choice, path: [...issue.path, ...choice.path] });
  if (issue.code === "unrecognized_keys")
    return { reason: "unknown_parameter", param: paramOf([...issue.path, issue.keys[0] ?? ""]) };
  const param = paramOf(issue.path);
  if (issue.message === MISSING) return { reason: "missing_parameter", param };
  return { reason: "invalid_field", message: `Invalid ${param}: ${issue.message}`, param };
}

/** The message of an issue about a parameter that is not there. */
export const MISSING = "missing";

/** A field that must be there; its absence is Stripe's "Missing required param". */
export const requiredError = {
  error: (issue: { input?: unknown }): string | undefined => (issue.input === undefined ? MISSING : undefined),
};

/** A name as forms write it, `payload[value]`, no longer than a message should quote. */
function paramOf(path: readonly PropertyKey[]): string {
  const [first = "", ...rest] = path.map((part) => String(part).slice(0, LIMITS.payloadKeyLength));
  return first + rest.map((part) => `[${part}]`).join("");
}
