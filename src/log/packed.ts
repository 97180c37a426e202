// How the log keeps keys, digests and lines of entries in few bytes, and gets them back as they were.
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { uuidOf } from "../domain/identifiers.ts";
import { UUID } from "./codec.ts";

/** A text as SQLite stores it: as bytes, in hex, where it can be had back from those; otherwise as it is. */
export type Packed = readonly [hex: string, text: null] | readonly [hex: null, text: string];

/** SQL for a value that stands as `Packed` at two places of `value`, a JSON array. */
export const packedAt = (place: number): string => `COALESCE(unhex(value ->> ${place}), value ->> ${place + 1})`;

/** Values as a statement's parameters, those that are `Packed` as SQLite stores them. All bytes are decoded in one call. */
export function toStored(
  values: readonly (Packed | string | number | null)[],
): (Uint8Array | string | number | null)[] {
  const bytes = Buffer.from(values.map((value) => (isPacked(value) ? (value[0] ?? "") : "")).join(""), "hex");
  let at = bytes.byteOffset;
  return values.map((value) => {
    if (!isPacked(value)) return value;
    const [hex, text] = value;
    if (hex === null) return text;
    const own = new Uint8Array(bytes.buffer, at, hex.length / 2);
    at += own.length;
    return own;
  });
}

const isPacked = (value: Packed | string | number | null): value is Packed => Array.isArray(value);

/** What an identifier's unique key begins with; see `uniqueKey`. */
const MODES = ["live:", "test:"];

/** The identifiers that Idempotency-Keys stand for: 96 bits in base64url. */
const DERIVED = /^em_([\w-]{16})$/;

const HEX_DIGEST = /^[0-9a-f]{16}$/;
const BASE64_DIGEST = /^[\w-]{16}$/;

/** Bytes of the kinds of keys, which tell them apart; all others are longer. */
const UUID_BYTES = 16;
const DERIVED_BYTES = 12;

/**
 * A unique key, within its mode: a canonical UUID as 16 bytes, what an Idempotency-Key stands for as 12, any other
 * identifier as text. What is no identifier (a rejection's key, a cancellation's retry key) is all of its bytes, so that no identifier is like it.
 */
export function packKey(key: string): Packed {
  const mode = MODES.find((each) => key.startsWith(each));
  if (mode === undefined) return [Buffer.from(key).toString("hex"), null];
  const identifier = key.slice(mode.length);
  if (UUID.test(identifier)) return [identifier.replaceAll("-", ""), null];
  const [, derived] = DERIVED.exec(identifier) ?? [];
  return derived === undefined ? [null, identifier] : [Buffer.from(derived, "base64url").toString("hex"), null];
}

/** The unique key that `packKey` packed, in a mode. */
export function unpackKey(stored: ArrayBuffer | string, livemode: boolean): string {
  const mode = livemode ? "live" : "test";
  if (typeof stored === "string") return `${mode}:${stored}`;
  const bytes = Buffer.from(stored);
  if (bytes.length === UUID_BYTES) return `${mode}:${uuidOf(bytes.toString("hex"))}`;
  if (bytes.length === DERIVED_BYTES) return `${mode}:em_${bytes.toString("base64url")}`;
  return bytes.toString();
}

/** A digest: 64 bits in hex, 96 bits in base64url, or any text. */
export function packDigest(digest: string): Packed {
  if (HEX_DIGEST.test(digest)) return [digest, null];
  return BASE64_DIGEST.test(digest) ? [Buffer.from(digest, "base64url").toString("hex"), null] : [null, digest];
}

export function unpackDigest(stored: ArrayBuffer | string): string {
  if (typeof stored === "string") return stored;
  const bytes = Buffer.from(stored);
  return bytes.toString(bytes.length === 8 ? "hex" : "base64url");
}

/**
 * What lines are likely to hold, the likeliest last. It belongs to the layout of bodies and messages: to change it, raise
 * the version of messages (message.ts), and keep this one for the bodies that were deflated with it.
 */
const DICTIONARY = Buffer.from(
  [
    '{"region":"us-east-1","endpoint":"/v1/chat/completions","model":"gpt-4o","type":"input_tokens","unit":"output"}',
    '"last_received_of_day","last_received_of_hour","latest_of_quarter_hour","additive"',
    '00000000-0000-4000-8000-000000000000","order-","user_","org_","acct_",0123456789abcdef,',
    '],["mtr_test_0mw","cus_","",17,"0mw","em_",null,1,17,null,1,"additive"]',
    ',"additive"],["mtr_0mw","cus_","",17,"0mw",null,"',
  ].join(""),
);

/** Deflates text. Level 1 takes a third of the time of the usual one, and leaves a twentieth more. */
export const deflate = (text: string): Uint8Array =>
  new Uint8Array(deflateRawSync(text, { level: 1, dictionary: DICTIONARY }));

/** More than a group ever has (bytes). */
const BODY_INFLATED_BYTES = 1_000_000;

/** Throws for what `deflate` did not make of a group. */
export const inflate = (bytes: Uint8Array): string =>
  inflateRawSync(bytes, { dictionary: DICTIONARY, maxOutputLength: BODY_INFLATED_BYTES }).toString();
