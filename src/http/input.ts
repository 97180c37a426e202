import type { MeteringError } from "../domain/errors.ts";
import { LIMITS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { isLongerThan } from "../domain/text.ts";
import type * as z from "./zod.ts";

/** Checks raw fields against a schema; the first thing that is wrong becomes the error. */
export function check<T>(schema: z.ZodType<T>, raw: unknown): Result<T, MeteringError> {
  const checked = schema.safeParse(raw);
  if (checked.success) return ok(checked.data);
  const [issue] = checked.error.issues;
  return err(issue === undefined ? { reason: "invalid_field", message: "Invalid request." } : toError(issue));
}

function toError(issue: z.core.$ZodIssue): MeteringError {
  if (issue.code === "unrecognized_keys")
    return { reason: "unknown_parameter", param: paramOf([...issue.path, issue.keys[0] ?? ""]) };
  const param = paramOf(issue.path);
  if (issue.message === MISSING) return { reason: "missing_parameter", param };
  return { reason: "invalid_field", message: `Invalid ${param}: ${issue.message}`, param };
}

/**
 * The name of the first v1 parameter that is there but empty (the SDKs send null so), or nothing. What a
 * payload holds is the meter's to judge.
 */
export function emptyParameter(fields: unknown, path: readonly string[] = []): string | undefined {
  if (fields === "") return paramOf(path);
  if (typeof fields !== "object" || fields === null || path[0] === "payload") return undefined;
  for (const [key, value] of Object.entries(fields)) {
    const found = emptyParameter(value, [...path, key]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The message of an issue about a parameter that is not there. */
export const MISSING = "missing";

/** A field that must be there; its absence is Stripe's "Missing required param". */
export const requiredError = {
  error: (issue: { input?: unknown }): string | undefined => (issue.input === undefined ? MISSING : undefined),
};

/** A name as forms write it, `payload[value]`, no longer than a message should quote. */
function paramOf(path: readonly PropertyKey[]): string {
  const [first = "", ...rest] = path.map((part) => shortened(String(part)));
  return first + rest.map((part) => `[${part}]`).join("");
}

/** No half of a surrogate pair is left over: an error's text is well-formed. */
const shortened = (part: string): string =>
  isLongerThan(part, LIMITS.payloadKeyLength)
    ? [...part.slice(0, 2 * LIMITS.payloadKeyLength)].slice(0, LIMITS.payloadKeyLength).join("")
    : part;
