import { gunzipSync } from "node:zlib";
import { parse } from "qs";
import { LIMITS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { ApiError, ApiVersion } from "./errors.ts";

/** What a request says, before any schema has seen it. */
export type Fields = Readonly<Record<string, unknown>>;

const FORM = "application/x-www-form-urlencoded";
const JSON_TYPE = "application/json";

/**
 * Reads a request's body in the API version's encoding: forms for v1, a JSON object for v2. An absent body
 * has no fields. `limit` in bytes.
 */
export async function readBody(
  request: Request,
  apiVersion: ApiVersion,
  limit: number = LIMITS.bodyBytes,
): Promise<Result<Fields, ApiError>> {
  const text = await readText(request, limit);
  if (!text.ok) return text;
  if (text.value === "") return ok({});
  const expected = apiVersion === "v1" ? FORM : JSON_TYPE;
  const type = request.headers.get("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
  if (type !== expected) return err({ reason: "unsupported_content_type", expected });
  return apiVersion === "v1" ? parseForm(text.value) : parseJsonObject(text.value);
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** A body's text: no more bytes than the limit, as sent and as inflated, and only well-formed UTF-8. */
async function readText(request: Request, limit: number): Promise<Result<string, ApiError>> {
  if (request.body === null) return ok("");
  const encoding = request.headers.get("content-encoding")?.trim().toLowerCase() || "identity";
  if (encoding !== "identity" && encoding !== "gzip") return err({ reason: "unsupported_content_encoding", encoding });
  const sent = await readSent(request, request.body, limit);
  if (!sent.ok) return sent;
  const bytes = encoding === "gzip" && sent.value.byteLength > 0 ? inflate(sent.value, limit) : sent;
  if (!bytes.ok) return bytes;
  try {
    return ok(UTF8.decode(bytes.value));
  } catch {
    return err({ reason: "malformed_body", message: "The request body is not valid UTF-8." });
  }
}

/** Reads no more of a body than the limit allows. */
async function readSent(
  request: Request,
  body: ReadableStream<Uint8Array>,
  limit: number,
): Promise<Result<Uint8Array | ArrayBuffer, ApiError>> {
  // A body with a length has no more bytes than that; one without is counted as it comes.
  const length = request.headers.get("content-length");
  if (Number(length ?? 0) > limit) return err({ reason: "body_too_large", limit });
  try {
    const bytes = length === null ? await readBytes(body, limit) : await request.arrayBuffer();
    return bytes === undefined ? err({ reason: "body_too_large", limit }) : ok(bytes);
  } catch {
    // Its sender went away, which is no failure of this service.
    return err({ reason: "malformed_body", message: "The request body broke off before its end." });
  }
}

/**
 * What a gzip body holds. zlib stops at the limit, so a body that would inflate to more costs no more
 * than one that fits; a DecompressionStream would inflate all of a chunk before it could be stopped.
 */
function inflate(bytes: Uint8Array | ArrayBuffer, limit: number): Result<Uint8Array, ApiError> {
  try {
    return ok(gunzipSync(bytes, { maxOutputLength: limit }));
  } catch (error) {
    return error instanceof RangeError
      ? err({ reason: "body_too_large", limit })
      : err({ reason: "malformed_body", message: "The request body is not valid gzip." });
  }
}

/** How much more of a body that is too long is read and thrown away (bytes). */
const DRAINED_BYTES = 8_000_000;

/**
 * A body's bytes, or nothing when they are more than the limit. A body that is too long is still read for
 * a while: a response before its end often reaches the sender as a reset connection.
 */
async function readBytes(body: ReadableStream<Uint8Array>, limit: number): Promise<Uint8Array | undefined> {
  let chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes <= limit) chunks.push(chunk);
    else chunks = [];
    if (bytes > limit + DRAINED_BYTES) break;
  }
  return bytes > limit ? undefined : Buffer.concat(chunks);
}

function parseJsonObject(text: string): Result<Fields, ApiError> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return err({ reason: "malformed_body", message: "The request body is not valid JSON." });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return err({ reason: "malformed_body", message: "The request body must be a JSON object." });
  }
  return ok(value as Fields);
}

/**
 * Parses Stripe's bracketed form encoding (`a[b]=c`, `a[0]=x`), of a body or a query. A key that
 * comes twice becomes an array, which no schema takes for a string.
 */
export function parseForm(text: string): Result<Fields, ApiError> {
  try {
    const fields = parse(text, {
      depth: 4,
      strictDepth: true,
      parameterLimit: 200,
      throwOnLimitExceeded: true,
      plainObjects: true,
      decoder: decodeStrictly,
    });
    return ok(fields);
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    return err({ reason: "malformed_body", message: `The form-encoded parameters cannot be read. ${message}`.trim() });
  }
}

/** qs passes over what it cannot decode and drops `__proto__`; here both are the sender's mistake. */
function decodeStrictly(text: string, _: unknown, __: unknown, part: "key" | "value" = "value"): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw new Error("They contain a broken percent encoding.");
  }
  if (part === "key" && decoded.includes("__proto__")) throw new Error("__proto__ cannot be used.");
  return decoded;
}
