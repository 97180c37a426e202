import { createHash, randomBytes } from "node:crypto";

let prefix: string | undefined;
let made = 0;

/**
 * An id that no other isolate makes: 96 random bits of this isolate and a counter. Random bits for
 * every event would cost more than checking it.
 */
export function newId(): string {
  // Not at start-up, where a Worker has no randomness.
  prefix ??= randomBytes(12).toString("base64url");
  return prefix + (made++).toString(36);
}

/** Characters of a token, six random bits each, and how many tokens are drawn at once, since each draw is a call into the runtime. */
const TOKEN_LENGTH = 10;
const TOKENS_PER_DRAW = 256;

let drawn = "";
let used = 0;

/** 60 random bits, in 10 URL-safe characters. */
export function newToken(): string {
  if (used === drawn.length) {
    drawn = randomBytes((TOKENS_PER_DRAW * TOKEN_LENGTH * 6) / 8).toString("base64url");
    used = 0;
  }
  used += TOKEN_LENGTH;
  return drawn.slice(used - TOKEN_LENGTH, used);
}

/** Event ids that one isolate makes within a millisecond, before it borrows from the next. */
const IDS_PER_MS = 1_024;

/** Characters of an event id's place in receipt order. Exact numbers until the year 2248. */
const ORDER_LENGTH = 9;

/** The digits of a place, in the order in which text sorts. */
const DIGITS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

let lastOrder = 0;

/**
 * A new event's id. Ids sort in receipt order: a time (ms), a counter, which this isolate never turns
 * back, and a token that no other event has.
 */
export function newEventId(now: number, token: string = newToken()): string {
  lastOrder = Math.max(orderAt(now), lastOrder + 1);
  return writeOrder(lastOrder) + token;
}

/** The first place in receipt order of a time (ms). */
export const orderAt = (time: number): number => time * IDS_PER_MS;

/** An event id's place in receipt order: a number that grows with the time and the counter. */
export function orderOf(id: string): number {
  let order = 0;
  for (let i = 0; i < ORDER_LENGTH; i++) order = order * DIGITS.length + DIGITS.indexOf(id.charAt(i));
  return order;
}

/** Later times (ms) have no places. */
const LAST_TIME = Math.floor(Number.MAX_SAFE_INTEGER / IDS_PER_MS);

/** What sorts before every event id of a time (ms) and later, and after all of earlier ones. */
export const idsFrom = (time: number): string => writeOrder(orderAt(Math.min(Math.max(0, time), LAST_TIME)));

/** The time (ms) of an event id's place in receipt order. */
export const timeOfId = (id: string): number => Math.floor(orderOf(id) / IDS_PER_MS);

/** The part of an event id that no other event has, whatever its place. */
export const tokenOf = (id: string): string => id.slice(ORDER_LENGTH);

/** An event's id at another place in receipt order. */
export const placedAt = (order: number, id: string): string => writeOrder(order) + tokenOf(id);

function writeOrder(order: number): string {
  let text = "";
  let rest = order;
  for (let i = 0; i < ORDER_LENGTH; i++) {
    text = DIGITS.charAt(rest % DIGITS.length) + text;
    rest = Math.floor(rest / DIGITS.length);
  }
  return text;
}

/** 96 bits of SHA-256 over the parts, in 16 URL-safe characters; parts cannot run into each other. */
export function digest(...parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("base64url").slice(0, 16);
}

/**
 * 64 bits over the parts, in 16 hex characters; parts cannot run into each other. It tells reports of one
 * caller apart, nothing more: two FNV-1a hashes over UTF-16 units, mixed. A tenth of what `digest` costs.
 */
export function fingerprint(...parts: readonly string[]): string {
  const text = JSON.stringify(parts);
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x5bd1e995);
    b ^= b >>> 15;
  }
  return hex(mix(a ^ text.length)) + hex(mix(b ^ a));
}

/** Spreads every bit over all others (MurmurHash3's finalizer). */
function mix(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

const HEX_BYTES = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** 32 bits in hex. From a table, since `toString(16)` takes numbers apart as fractions, which takes longer than all hashing. */
const hex = (hash: number): string =>
  `${HEX_BYTES[hash >>> 24]}${HEX_BYTES[(hash >>> 16) & 255]}${HEX_BYTES[(hash >>> 8) & 255]}${HEX_BYTES[hash & 255]}`;

/** An id that sorts by its time of creation (ms), so that lists page by it without a second column. */
export const timeOrderedId = (prefix: string, now: number): string =>
  prefix + now.toString(36).padStart(9, "0") + randomBytes(8).toString("hex");

/** What identifiers that the service makes begin with. Callers cannot report one. */
export const OWN_PREFIX = "em_";

/** The identifier of an event that came with neither identifier nor Idempotency-Key. */
export const newIdentifier = (): string => OWN_PREFIX + newId();

/**
 * The identifier that an Idempotency-Key stands for; with the place of an event, when several came under
 * one key. It is always the same, so that a retry meets the first attempt in the log.
 */
export function identifierOfKey(livemode: boolean, idempotencyKey: string, ...place: readonly string[]): string {
  return OWN_PREFIX + digest("identifier", mode(livemode), idempotencyKey, ...place);
}

const mode = (livemode: boolean): "live" | "test" => (livemode ? "live" : "test");

/** What is unique for 24 hours: an identifier within its mode. */
export const uniqueKey = (livemode: boolean, identifier: string): string => `${mode(livemode)}:${identifier}`;

/** Which of so many shards has a unique key: FNV-1a over its UTF-16 units, so it never changes with the platform. */
export function hashedTo(key: string, shards: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) {
    hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  }
  // FNV's low bits alone spread short keys poorly; the high half is folded in.
  return ((hash ^ (hash >>> 16)) >>> 0) % shards;
}

/** A canonical UUID by its bytes in hex. */
export const uuidOf = (hex: string): string =>
  hex.toLowerCase().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
