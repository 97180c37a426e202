import fc from "fast-check";
import { type Fields, map, type Node, type Ref } from "./nodes.ts";

/** What no log line may ever hold: part of the payload of most fuzzed events. */
export const PAYLOAD_CONTENT = "zq-content-of-a-payload-zq";

/** How many entries of a mode wait for an operator; each can be put back on its way once. */
export const DEAD_LETTERS = 20;

const ref = (name: Ref): Node => ({ ref: name });

const HOUR = 3_600;
const DAY = 24 * HOUR;

/** One of few, so that they meet: as duplicates, and in adjustments. */
const sharedIdentifier = fc.nat({ max: 99 }).map((n) => `shared_${n}`);
const ownIdentifier = fc.bigInt({ min: 0n, max: 2n ** 60n }).map((n) => `fuzzed_${n.toString(36)}`);

const event: fc.Arbitrary<Fields> = fc
  .record({
    customer: fc.nat({ max: 5_000 }).map((n) => `cus_${n}`),
    value: fc.oneof(fc.integer({ min: 1, max: 999 }).map(String), fc.constantFrom<Node>("999999999999999", 25)),
    identifier: fc.option(fc.oneof(sharedIdentifier, ownIdentifier), { nil: undefined, freq: 4 }),
    timestamp: fc.option(
      fc.constantFrom(0, HOUR, 30 * DAY).map((ago) => ({ ago, align: 1 })),
      { nil: undefined },
    ),
    dimensions: fc.boolean(),
  })
  .map(({ customer, value, identifier, timestamp, dimensions }) =>
    map({
      event_name: ref("own.event"),
      payload: map({ stripe_customer_id: customer, value, ...(dimensions ? { note: PAYLOAD_CONTENT } : {}) }),
      identifier,
      timestamp,
    }),
  );

const adjustment = fc
  .oneof({ weight: 9, arbitrary: sharedIdentifier }, ownIdentifier)
  .map((identifier) => map({ event_name: ref("own.event"), type: "cancel", cancel: map({ identifier }) }));

const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const limit = maybe(fc.integer({ min: 1, max: 100 }).map(String));

const meter = fc
  .record({
    display_name: fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 30 }),
    event_name: fc.oneof(
      fc.nat({ max: 5 }).map((n) => `meter_${n}`),
      fc.bigInt({ min: 0n, max: 2n ** 60n }).map((n) => `meter_${n.toString(36)}`),
    ),
    formula: fc.constantFrom("sum", "count", "last"),
    window: maybe(fc.constantFrom("hour", "day", "")),
    keys: fc.boolean(),
  })
  .map(({ display_name, event_name, formula, window, keys }) =>
    map({
      display_name,
      event_name,
      default_aggregation: map({ formula }),
      event_time_window: window,
      ...(keys
        ? {
            customer_mapping: map({ type: "by_id", event_payload_key: "customer" }),
            value_settings: map({ event_payload_key: "amount" }),
          }
        : {}),
    }),
  );

const summaries = fc.constantFrom(undefined, "hour", "day").chain((window) => {
  const align = window === "day" ? DAY : window === "hour" ? HOUR : 60;
  return fc.record({ from: fc.integer({ min: 1, max: 40 }), limit, cursor: fc.boolean() }).map(({ from, limit }) =>
    map({
      customer: ref("own.customer"),
      start_time: { ago: from * DAY, align },
      end_time: { ago: -DAY, align },
      value_grouping_window: window,
      limit,
    }),
  );
});

const storedEvents = fc
  .record({ limit, cursor: maybe(fc.constantFrom("starting_after", "ending_before")), cancelled: fc.boolean() })
  .map(({ limit, cursor, cancelled }) =>
    map({
      meter: ref("own.meter"),
      customer: ref("own.customer"),
      limit,
      timestamp: map({ gte: { ago: 30 * DAY, align: 1 } }),
      cancelled: cancelled ? "false" : undefined,
      ...(cursor === undefined ? {} : { [cursor]: ref("own.place") }),
    }),
  );

/** Where an audit goes on: places that there are, and places that there are not. */
const auditCursor = fc
  .record({
    received: fc.record({ start: fc.maxSafeInteger(), end: fc.maxSafeInteger() }),
    at: fc.oneof(
      fc.record({ shard: fc.oneof(fc.nat({ max: 4 }), fc.maxSafeNat()), after: fc.maxSafeInteger() }),
      fc.record({ meter: fc.string({ unit: "binary" }), customer: fc.string({ unit: "binary" }), time: fc.integer() }),
    ),
  })
  .map((position) => base64url(JSON.stringify(position)));

const base64url = (ascii: string): string =>
  btoa(ascii.replaceAll(/[^\x20-\x7e]/g, "?"))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");

const nothing = fc.constant(map({}));

/** Requests that every rule allows, by method and path; what is not here takes none of its own fields. */
const VALID: Readonly<Record<string, fc.Arbitrary<Fields>>> = {
  "post /v1/billing/meter_events": event,
  "post /v2/billing/meter_events": event,
  "post /v2/billing/meter_event_stream": fc
    .oneof(
      { weight: 9, arbitrary: fc.array(event, { minLength: 1, maxLength: 4 }) },
      { weight: 1, arbitrary: event.chain((one) => fc.constantFrom(99, 100, 101).map((n) => Array(n).fill(one))) },
    )
    .map((events) => map({ events })),
  "post /v1/billing/meter_event_adjustments": adjustment,
  "post /v2/billing/meter_event_adjustments": adjustment,
  "post /v1/billing/meters": meter,
  "post /v1/billing/meters/{id}": fc
    .string({ unit: "grapheme-ascii", minLength: 1, maxLength: 30 })
    .map((display_name) => map({ display_name })),
  "get /v1/billing/meters": fc
    .record({ limit, status: maybe(fc.constantFrom("active", "inactive", "")), after: fc.boolean() })
    .map(({ limit, status, after }) => map({ limit, status, starting_after: after ? ref("own.meter") : undefined })),
  "get /v1/billing/meters/{id}/event_summaries": summaries,
  "get /v1/billing/meter_events": storedEvents,
  "post /v1/edgemeter/audit": maybe(auditCursor).map((cursor) => map({ cursor })),
  "post /v1/edgemeter/resend": maybe(fc.constantFrom(0, 60, 10 * DAY)).map((ago) =>
    map({ since: ago === undefined ? undefined : { ago, align: 1 } }),
  ),
  "get /v2/core/events": fc.record({ limit, page: fc.boolean(), object: fc.boolean() }).map(({ limit, page, object }) =>
    map({
      limit,
      page: page ? ref("own.report") : undefined,
      object_id: object ? ref("own.meter") : undefined,
      types: ["v1.billing.meter.error_report_triggered"],
      created: map({ gte: { ago: DAY, align: 1 } }),
    }),
  ),
};

export const validFields = (endpoint: string): fc.Arbitrary<Fields> => VALID[endpoint] ?? nothing;

/** What stands for a parameter of a path. */
export const pathParameter = (method: string, path: string, name: string): fc.Arbitrary<Node> => {
  if (name === "identifier") return fc.oneof(fc.constant(ref("own.identifier")), sharedIdentifier);
  if (path.includes("/dead_letters/")) return fc.nat({ max: DEAD_LETTERS - 1 }).map((n) => ref(`own.letter${n}`));
  if (path.startsWith("/v2/core/")) return fc.constant(ref("own.report"));
  // What is changed is not the meter whose content must stay recognisable.
  return fc.constant(ref(method === "get" ? "own.meter" : "own.victim"));
};

/** What should not stand there: what the caller may guess or know of the other mode. */
export const foreignParameter: fc.Arbitrary<Node> = fc.constantFrom(
  ref("other.meter"),
  ref("other.victim"),
  ref("other.identifier"),
  ref("other.report"),
  ref("other.place"),
  ref("other.letter0"),
);
