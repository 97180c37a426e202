import fc from "fast-check";
import { some } from "../draw.ts";
import { type Fields, map, type Node, type Ref } from "./nodes.ts";
import type { Route } from "./requests.ts";

/** What no log line may ever hold: part of the payload of most fuzzed events. */
export const PAYLOAD_CONTENT = "zq-content-of-a-payload-zq";

/** How many entries of a mode wait for an operator; each can be put back on its way once. */
export const DEAD_LETTERS = 20;

const ref = (name: Ref): Node => ({ ref: name });

const HOUR = 3_600;
const DAY = 24 * HOUR;

/** One of few, so that they meet: as duplicates, and in adjustments. */
const sharedIdentifier = fc.nat({ max: 19 }).map((n) => `shared_${n}`);
const ownIdentifier = fc.bigInt({ min: 0n, max: 2n ** 60n }).map((n) => `fuzzed_${n.toString(36)}`);

const text = fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 30 });

const payload = fc
  .record({
    customer: fc.nat({ max: 5_000 }).map((n) => `cus_${n}`),
    value: fc.oneof(fc.integer({ min: 1, max: 999 }).map(String), fc.constantFrom<Node>("999999999999999", 25)),
    dimensions: fc.boolean(),
  })
  .map(({ customer, value, dimensions }) =>
    map({ stripe_customer_id: customer, value, ...(dimensions ? { note: PAYLOAD_CONTENT } : {}) }),
  );

const meterName = fc.oneof(
  fc.nat({ max: 5 }).map((n) => `meter_${n}`),
  fc.bigInt({ min: 0n, max: 2n ** 60n }).map((n) => `meter_${n.toString(36)}`),
);

const placeOf = (...names: readonly string[]) => fc.oneof(fc.constantFrom(...names), fc.string({ unit: "binary" }));

/** Where an audit goes on: places that there are, and places that there are not. */
const auditCursor = fc
  .record({
    received: fc.record({ start: fc.maxSafeInteger(), end: fc.maxSafeInteger() }),
    at: fc.oneof(
      fc.record({ shard: placeOf("live-0", "live-4", "test-0"), after: fc.maxSafeInteger() }),
      fc.record({ database: placeOf("EVENTS_0", "EVENTS_9", "TEST_EVENTS"), series: fc.nat(), time: fc.integer() }),
    ),
  })
  .map((position) => base64url(JSON.stringify(position)));

/** Where a restoration goes on, and an audit of the archive. */
const restoreCursor = fc
  .oneof(
    fc.record({ day: fc.nat(), place: fc.nat({ max: 5 }), after: fc.string() }),
    fc.record({ slice: fc.nat(), database: placeOf("EVENTS_0"), file: fc.nat(), keepMs: fc.maxSafeNat() }),
    fc.record({ again: fc.nat(), database: placeOf("EVENTS_0") }),
  )
  .map((position) => base64url(JSON.stringify(position)));

const archiveCursor = fc
  .record({
    day: fc.oneof(fc.nat({ max: 30_000 }), fc.nat()),
    place: fc.nat({ max: 5 }),
    at: fc.oneof(
      fc.record({ files: fc.record({ slice: fc.integer(), file: fc.maxSafeInteger() }) }),
      fc.record({ live: fc.record({ slice: fc.integer(), isLate: fc.boolean() }) }),
      fc.record({ sums: fc.maxSafeInteger() }),
    ),
  })
  .map((position) => base64url(JSON.stringify(position)));

const base64url = (ascii: string): string =>
  btoa(ascii.replaceAll(/[^\x20-\x7e]/g, "?"))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");

const recently = fc.constantFrom(0, HOUR, 30 * DAY).map((ago): Node => ({ ago, align: 1 }));

/** What belongs in a field by its name, where its schema alone does not say. */
const NAMED: Readonly<Record<string, fc.Arbitrary<Node>>> = {
  event_name: fc.constant(ref("own.event")),
  payload,
  identifier: fc.oneof(some(9, sharedIdentifier), some(1, ownIdentifier)),
  timestamp: recently,
  since: recently,
  gte: recently,
  start_time: fc.integer({ min: 1, max: 40 }).map((days) => ({ ago: days * DAY, align: DAY })),
  end_time: fc.constant({ ago: -DAY, align: DAY }),
  starts_at: fc.integer({ min: 1, max: 40 }).map((days) => ({ ago: days * DAY, align: 1 })),
  ends_at: fc.constant({ ago: -DAY, align: 1 }),
  timezone: fc.constantFrom("UTC", "America/Santiago", "Asia/Kathmandu"),
  cycle_anchor: recently,
  group_by: fc.constant("customer"),
  // Its meter declares none.
  dimension_filters: fc.constant(map({})),
  dimension_group_by_keys: fc.constant([]),
  from: fc.integer({ min: 1, max: 40 }).map((days) => ({ ago: days * DAY, align: 1 })),
  to: fc.constant({ ago: -DAY, align: 1 }),
  limit: fc.integer({ min: 1, max: 100 }).map(String),
  customer: fc.constant(ref("own.customer")),
  meter: fc.constant(ref("own.meter")),
  object_id: fc.constant(ref("own.meter")),
  page: fc.constant(ref("own.report")),
  starting_after: fc.constant(ref("own.place")),
  ending_before: fc.constant(ref("own.place")),
  cursor: auditCursor,
  day: fc.nat({ max: 9 }).map((n) => `2026-11-1${n}`),
  slice: fc.nat({ max: 999_999 }).map(String),
  export_again: fc.nat({ max: 999_999 }).map(String),
  keep_days: fc.nat({ max: 999 }).map(String),
  database: fc.constantFrom("EVENTS_0", "EVENTS_9"),
};

/** And where the same name is something else. */
const NAMED_AT: Readonly<Record<string, fc.Arbitrary<Node>>> = {
  "post /v1/billing/meters event_name": meterName,
  "post /v1/edgemeter/restore cursor": restoreCursor,
  "post /v1/edgemeter/archive_audit cursor": archiveCursor,
  "get /v1/billing/meters starting_after": fc.constant(ref("own.meter")),
  "get /v1/billing/meters ending_before": fc.constant(ref("own.meter")),
};

/** As much of a zod schema's definition as the endpoints use. */
type Schema = {
  readonly def: {
    readonly type: string;
    readonly shape?: Readonly<Record<string, Schema>>;
    readonly entries?: Readonly<Record<string, string>>;
    readonly innerType?: Schema;
    readonly element?: Schema;
    readonly in?: Schema;
  };
};

/** What a schema takes, mostly: for a field of this name, of this endpoint. */
function validNode(schema: Schema, name: string, endpoint: string): fc.Arbitrary<Node | undefined> {
  const { type, shape, entries, innerType, element, in: input } = schema.def;
  const inside = (inner: Schema) => validNode(inner, name, endpoint);
  if (innerType !== undefined) return fc.option(inside(innerType), { nil: undefined, freq: 2 });
  const named = NAMED_AT[`${endpoint} ${name}`] ?? NAMED[name];
  if (named !== undefined) return named;
  if (type === "object") return fieldsOf(shape ?? {}, endpoint);
  if (type === "enum") return fc.constantFrom(...Object.values(entries ?? {}));
  if (input !== undefined) return inside(input);
  return element === undefined ? text : listOf(inside(element) as fc.Arbitrary<Node>);
}

/** Few of them, or nearly as many as a stream's request may have. */
const listOf = (item: fc.Arbitrary<Node>): fc.Arbitrary<Node> =>
  fc.oneof(
    some(9, fc.array(item, { minLength: 1, maxLength: 4 })),
    some(
      1,
      fc.tuple(item, fc.constantFrom(99, 100, 101)).map(([one, n]) => Array<Node>(n).fill(one)),
    ),
  );

const fieldsOf = (shape: Readonly<Record<string, Schema>>, endpoint: string): fc.Arbitrary<Fields> =>
  fc
    .record(Object.fromEntries(Object.entries(shape).map(([name, field]) => [name, validNode(field, name, endpoint)])))
    .map(map);

/** Requests that an endpoint's own schema takes; a page takes no fields. */
export function validFields({ method, path, documented }: Route): fc.Arbitrary<Fields> {
  return fieldsOf((documented?.fields as Schema | undefined)?.def.shape ?? {}, `${method} ${path}`);
}

/** What stands for a parameter of a path. */
export const pathParameter = (method: string, path: string, name: string): fc.Arbitrary<Node> => {
  if (name === "identifier") return fc.oneof(fc.constant(ref("own.identifier")), sharedIdentifier);
  if (path.includes("/dead_letters/")) return fc.nat({ max: DEAD_LETTERS - 1 }).map((n) => ref(`own.letter${n}`));
  if (path.startsWith("/v2/core/")) return fc.constant(ref("own.report"));
  // What is changed is not the meter whose content must stay recognisable.
  return fc.constant(ref(method === "get" ? "own.meter" : "own.victim"));
};

/** What should not stand there: what the caller may guess or know of the other mode. */
export const foreignParameter: fc.Arbitrary<Node> = fc
  .constantFrom("meter", "victim", "identifier", "report", "place", "letter0")
  .map((what) => ref(`other.${what}`));
