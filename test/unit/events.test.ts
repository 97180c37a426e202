import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  admit,
  type EventReport,
  payloadOf,
  readPayload,
  reportDigest,
  requestDigest,
} from "../../src/domain/event.ts";
import { deactivate, type Meter } from "../../src/domain/meter.ts";
import { isStorable } from "../../src/domain/text.ts";
import { aMeter, aReport, errorOf, NOON, resultOf } from "../support/builders.ts";

const EARLIEST = NOON - 35 * 86_400_000;
const LATEST = NOON + 5 * 60_000;

const active = aMeter();
const archived = deactivate(active, NOON);
const counting = aMeter({ formula: "count" });

const CUSTOMER = { stripe_customer_id: "cus_1" };
const VALUE = { value: "25" };

const admitted = (payload: Record<string, string>, meter = active) =>
  resultOf(admit(aReport({ payload }), meter, NOON));

/** Why an event is refused. */
const refusalOf = (payload: Record<string, string>, meter: Meter | undefined = active, timestamp?: number) =>
  errorOf(admit(aReport({ payload, timestamp }), meter, NOON));

/** The way of a payload that came as JSON. */
const admittedJson = (payload: string, meter = active) =>
  admit(aReport(resultOf(readPayload(JSON.parse(payload)))), meter, NOON);

/** A payload that is read. */
const payloadFrom = (raw: unknown) => resultOf(readPayload(raw)).payload;

/** Why the shape of a payload is refused, and where. */
const refused = (raw: unknown) => errorOf(readPayload(raw));

const noCustomer = (key = "stripe_customer_id") => ({ reason: "payload_no_customer_defined", key });
const noValue = (key = "value") => ({ reason: "payload_no_value_defined", key });

describe("the order of an event's rules", () => {
  const blank = { reason: "invalid_customer", key: "stripe_customer_id", fault: "it cannot be blank." };
  const rules: [string, Meter | undefined, Record<string, string>, object][] = [
    ["the meter exists", undefined, {}, { reason: "no_meter", eventName: "tokens" }],
    ["the meter is active", archived, {}, { reason: "archived_meter", eventName: "tokens" }],
    ["the customer is present", active, {}, noCustomer()],
    ["the customer is present, before an invalid value", active, { value: "0" }, noCustomer()],
    ["the customer is a name, before a missing value", active, { stripe_customer_id: " " }, blank],
    ["the value is present", active, CUSTOMER, noValue()],
    [
      "the value is valid",
      active,
      { ...CUSTOMER, value: "0" },
      { reason: "payload_invalid_value", key: "value", value: "0" },
    ],
  ];

  describe.each([
    ["too far in the past", EARLIEST, -1, { reason: "timestamp_too_far_in_past", earliest: EARLIEST }],
    ["in the future", LATEST, 1, { reason: "timestamp_in_future", latest: LATEST }],
  ])("with a timestamp %s", (_, limit, beyond, timestampError) => {
    test.each(rules)("an event that breaks every rule from '%s' on fails by that one", (_, meter, payload, error) => {
      expect(errorOf(admit(aReport({ payload, timestamp: limit + beyond }), meter, NOON))).toEqual(error);
    });

    test("an event that breaks only the timestamp's rule fails by it, from the first millisecond on", () => {
      expect(resultOf(admit(aReport({ timestamp: limit }), active, NOON)).timestamp).toBe(limit);
      for (const timestamp of [limit + beyond, beyond * 999_999_999_999_000]) {
        expect(errorOf(admit(aReport({ timestamp }), active, NOON))).toEqual(timestampError);
      }
    });
  });

  test("an event that breaks no rule is admitted with all that the log needs", () => {
    expect(resultOf(admit(aReport({ timestamp: NOON - 1 }), active, NOON))).toEqual({
      meter: active.id,
      customer: "cus_1",
      value: 25,
      aggregation: "additive",
      timestamp: NOON - 1,
      dimensions: "",
      payload: undefined,
    });
    expect(admitted({ ...CUSTOMER, ...VALUE }, aMeter({ formula: "last" })).aggregation).toBe("latest_of_quarter_hour");
  });

  test("an event without a timestamp is admitted at any time", () => {
    for (const now of [0, NOON, Number.MAX_SAFE_INTEGER]) {
      expect(resultOf(admit(aReport(), active, now)).timestamp).toBeUndefined();
    }
  });
});

describe("an event's customer", () => {
  test("is found under the meter's own key", () => {
    const meter = aMeter({ customerKey: "tenant" });
    expect(admitted({ tenant: "t_1", ...VALUE, ...CUSTOMER }, meter).customer).toBe("t_1");
    expect(refusalOf({ ...CUSTOMER, ...VALUE }, meter)).toEqual(noCustomer("tenant"));
  });

  test("is missing when it is empty", () => {
    expect(refusalOf({ stripe_customer_id: "", ...VALUE })).toEqual(noCustomer());
  });

  test.each(["constructor", "toString", "__proto__", "hasOwnProperty"])(
    "may be under a key called %s, and is not taken from what every object inherits as it",
    (key) => {
      const meter = aMeter({ customerKey: key });
      expect(refusalOf(VALUE, meter)).toEqual(noCustomer(key));
      if (key === "__proto__") return;
      const result = admittedJson(`{"${key}":"cus_9","value":"7"}`, meter);
      expect(resultOf(result)).toMatchObject({ customer: "cus_9", value: 7, payload: undefined });
    },
  );

  test("is any text within the limits, with its blanks and its case", () => {
    for (const customer of ["cus 1", "CUS_1", "客户🙂", "a:b/c", "0", "x".repeat(500), "\u200bcus"]) {
      expect(admitted({ stripe_customer_id: customer, ...VALUE }).customer).toBe(customer);
    }
  });

  test.each([
    ["blank", [" ", "\n", "\u00a0\u3000"]],
    ["control characters", ["cus_9\n", "cus\u00009", "\u0085cus_9", "cus\u007f", "cus\t9"]],
    ["white space", [" cus_9", "cus_9 ", "\ufeffcus_9", "cus_9\u2028"]],
  ])("is refused when its %s make it look like another: the error names its key and why", (why, customers) => {
    for (const customer of customers) {
      expect(refusalOf({ tenant: customer, ...VALUE }, aMeter({ customerKey: "tenant" }))).toEqual({
        reason: "invalid_customer",
        key: "tenant",
        fault: expect.stringContaining(why),
      });
    }
  });

  test("may be an exact integer, but no other JSON number, since two would become one", () => {
    expect(resultOf(admittedJson('{"stripe_customer_id":9007199254740991,"value":1}'))).toMatchObject({
      customer: "9007199254740991",
    });
    for (const number of ["9007199254740993", "-9007199254740993", "1e21", "1e400", "1.10", "0.5"]) {
      const result = admittedJson(`{"stripe_customer_id":${number},"value":1}`);
      expect(errorOf(result)).toMatchObject({ reason: "invalid_customer", key: "stripe_customer_id" });
    }
  });
});

describe("an event's value", () => {
  test("is missing when it is empty", () => {
    expect(refusalOf({ ...CUSTOMER, value: "" })).toEqual(noValue());
    expect(refusalOf(CUSTOMER, aMeter({ formula: "last" }))).toEqual(noValue());
  });

  test("is found under the meter's own key, and not in what every object inherits", () => {
    expect(admitted({ ...CUSTOMER, toString: "8" }, aMeter({ valueKey: "toString" })).value).toBe(8);
    for (const valueKey of ["constructor", "toString", "__proto__", "tokens"]) {
      expect(refusalOf({ ...CUSTOMER, ...VALUE }, aMeter({ valueKey }))).toEqual(noValue(valueKey));
    }
  });

  test("may be a JSON integer, which is echoed as a string", () => {
    expect(resultOf(readPayload(JSON.parse('{"stripe_customer_id":"cus_1","value":25,"seats":3.0}')))).toEqual({
      payload: { stripe_customer_id: "cus_1", value: "25", seats: "3" },
    });
    expect(resultOf(admittedJson('{"stripe_customer_id":"cus_1","value":999999999999999}'))).toMatchObject({
      value: 999_999_999_999_999,
    });
  });

  test.each("1.5 0 -1 -0 1000000000000000 9999999999999999 1e21 1e400 1e-7 0.1".split(" "))(
    "the JSON number %s is that event's invalid value",
    (number) => {
      const error = errorOf(admittedJson(`{"stripe_customer_id":"cus_1","value":${number}}`));
      expect(error).toMatchObject({ reason: "payload_invalid_value", key: "value" });
    },
  );

  test.each(['"25"', '""', '"1.5"', '"lots"', "0.5", "1e21", "9007199254740993"])(
    "is ignored by a count meter: %s counts as 1, as does none",
    (value) => {
      expect(admitted(CUSTOMER, counting).value).toBe(1);
      expect(resultOf(admittedJson(`{"stripe_customer_id":"cus_1","value":${value}}`, counting)).value).toBe(1);
    },
  );
});

describe("the rest of a payload", () => {
  test("is what it holds besides customer and value, under the meter's own keys", () => {
    const all = { ...CUSTOMER, ...VALUE, model: "small", region: "" };
    expect(admitted(all)).toMatchObject({ payload: { model: "small", region: "" }, dimensions: "" });
    const meter = aMeter({ customerKey: "tenant", valueKey: "bytes" });
    expect(admitted({ tenant: "t", bytes: "1", ...all }, meter).payload).toEqual(all);
  });

  test("holds the value key of a count meter, which is a key like any other there", () => {
    expect(admitted({ ...CUSTOMER, ...VALUE }, counting).payload).toEqual(VALUE);
    expect(admitted(CUSTOMER, counting).payload).toBeUndefined();
  });

  test("may be a JSON fraction, which is its own text", () => {
    const result = admittedJson('{"stripe_customer_id":"c","value":1,"temperature":0.7}');
    expect(resultOf(result).payload).toEqual({ temperature: "0.7" });
  });

  test.each(["9007199254740993", "-1e21", "1e400"])(
    "that comes as the JSON number %s, which lost digits, refuses its event by name",
    (number) => {
      expect(errorOf(admittedJson(`{"stripe_customer_id":"c","value":1,"trace":${number},"seats":2}`))).toEqual({
        reason: "invalid_dimension",
        key: "trace",
        fault: expect.stringContaining("send it as a string"),
      });
    },
  );
});

describe("the dimensions that a meter declares", () => {
  const meter: Meter = { ...active, dimensionKeys: ["region", "model"] };

  test("are split off, and the same values are the same text in whatever order they come", () => {
    const dimensions = '{"model":"small","region":"eu"}';
    for (const declared of [
      { model: "small", region: "eu" },
      { region: "eu", model: "small" },
    ]) {
      const event = admitted({ ...declared, ...CUSTOMER, trace: "t", ...VALUE }, meter);
      expect(event).toMatchObject({ dimensions, payload: { trace: "t" } });
    }
  });

  test("must all be there, if empty", () => {
    const event = { ...CUSTOMER, ...VALUE, region: "" };
    const inherited = { ...meter, dimensionKeys: [...meter.dimensionKeys, "constructor"] };
    expect(refusalOf(event, inherited)).toEqual({
      ...{ reason: "missing_dimension_payload_keys", keys: ["model", "constructor"] },
    });
    expect(admitted({ ...event, model: "", constructor: "c" }, inherited).dimensions).toBe(
      '{"constructor":"c","model":"","region":""}',
    );
  });

  test.each([active, meter, counting, { ...counting, dimensionKeys: ["value", "model"] }])(
    "and the rest make the payload again that was reported",
    (each) => {
      for (const more of [{}, { trace: "t", constructor: "c" }]) {
        const payload = { ...CUSTOMER, ...VALUE, region: "", model: "small", ...more };
        expect(payloadOf(admitted(payload, each), each)).toEqual(payload);
      }
    },
  );
});

describe("a payload", () => {
  const keys = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`key${i}`, "x"]));

  test("is a map of strings: nothing else is one, and an error about a value names its key", () => {
    for (const raw of ["text", 5, true, null, undefined, ["a"], []]) {
      expect(refused(raw)).toEqual({ message: "it must be a map of strings." });
    }
    for (const bad of [null, true, { a: "b" }, ["b"], [], undefined]) {
      expect(refused({ good: "x", bad })).toMatchObject({ key: "bad" });
    }
  });

  test("may be empty, and may come without a prototype", () => {
    expect(payloadFrom({})).toEqual({});
    expect(payloadFrom(Object.assign(Object.create(null), VALUE))).toEqual(VALUE);
  });

  test("has at most 50 keys, and the error says so", () => {
    expect(Object.keys(payloadFrom(keys(50)))).toHaveLength(50);
    expect(refused(keys(51)).message).toContain("50");
  });

  test("has keys of 1 to 100 characters and values of up to 500, and the error says so and where", () => {
    expect(refused({ "": "x" }).message).toContain("1 to 100");
    for (const character of ["k", "🙂"]) {
      const payload = { [character.repeat(100)]: character.repeat(500), empty: "" };
      expect(payloadFrom(payload)).toEqual(payload);
      expect(refused({ [`${character.repeat(100)}k`]: "x" }).message).toContain("100");
      const error = { message: expect.stringContaining("500"), key: "note" };
      expect(refused({ note: `${character.repeat(500)}v` })).toEqual(error);
    }
  });

  test.each([
    ["plain letters", "x", 1],
    ["letters of three bytes", "€", 3],
    ["characters of four bytes", "🙂", 4],
    ["control characters, which JSON writes in six", "\u0001", 6],
    ["quotes, which JSON escapes", '"', 2],
  ])("has at most 8,000 bytes as JSON, counted exactly for %s", (_, character, bytes) => {
    const payload: Record<string, string> = {};
    const left = () => 8_000 - Buffer.byteLength(JSON.stringify(payload));
    const wide = character.repeat(500 / character.length);
    for (let i = 0; left() > 500 * bytes + 20; i++) payload[`key${i}`] = wide;
    // Plain letters fill up the rest to the byte; a further key and its punctuation take 8.
    for (let i = 0; left() > 0; i++) payload[`f${i}`] = "x".repeat(Math.min(left() - (left() > 507 ? 28 : 8), 499));
    expect(left()).toBe(0);
    expect(payloadFrom(payload)).toEqual(payload);
    const [last = "", value] = Object.entries(payload).at(-1) ?? [];
    expect(refused({ ...payload, [last]: `${value}x` })).toEqual({ message: expect.stringContaining("8000") });
  });

  test("cannot hold the key __proto__, which would vanish silently", () => {
    expect(refused(JSON.parse('{"__proto__":"x"}')).key).toBe("__proto__");
    expect(refused(JSON.parse('{"__proto__":{"value":"1"}}')).key).toBe("__proto__");
    expect(({} as Record<string, unknown>).value).toBeUndefined();
  });

  test("cannot hold NUL or half of a surrogate pair, in a key or in a value", () => {
    for (const text of ["a\0b", "a\ud83d", "\ude42b", "\ude42\ud83d"]) {
      expect(isStorable(text)).toBe(false);
      expect(refused({ [text]: "x" }).message).toContain("a payload key");
      expect(refused({ x: text })).toEqual({ message: "it contains characters that cannot be stored.", key: "x" });
    }
  });

  test("may hold any other character", () => {
    for (const text of ["\u0001\t\n\r\u007f", "\ufeff\uffff\u2028", "🙂👩‍👩‍👧", "é vs e\u0301", "</script>'\"\\"]) {
      expect(payloadFrom({ [text]: text })).toEqual({ [text]: text });
    }
  });

  test("what is accepted comes out unchanged, whatever it holds", () => {
    const flat = fc.dictionary(
      fc.string({ unit: "binary", minLength: 1, maxLength: 100 }),
      fc.string({ unit: "binary" }),
    );
    fc.assert(
      fc.property(flat, (payload) => {
        const result = readPayload(payload);
        if (result.ok) expect(Object.entries(result.value.payload)).toEqual(Object.entries(payload));
        else expect(JSON.stringify(payload)).toMatch(/\\u0000|__proto__/);
      }),
    );
  });
});

describe("the digest of a report", () => {
  const report = aReport({ identifier: "i_1", timestamp: NOON });
  const digest = reportDigest(report);

  test("does not change from one version to the next, since a retry may meet another version", () => {
    expect(digest).toBe("53a775cd33af9c9a");
  });

  test("is the same whatever the order of the payload", () => {
    const entries = fc.dictionary(fc.string({ minLength: 1 }), fc.string());
    fc.assert(
      fc.property(entries, fc.infiniteStream(fc.nat()), (payload, ranks) => {
        const shuffled = Object.entries(payload)
          .map((entry) => ({ entry, rank: ranks.next().value ?? 0 }))
          .sort((a, b) => a.rank - b.rank);
        const other = Object.fromEntries(shuffled.map(({ entry }) => entry));
        expect(reportDigest(aReport({ payload: other }))).toBe(reportDigest(aReport({ payload })));
      }),
    );
  });

  test.each<[string, Partial<EventReport>]>([
    ["the event name", { eventName: "other" }],
    ["the identifier", { identifier: "i_2" }],
    ["the absence of the identifier", { identifier: undefined }],
    ["the timestamp", { timestamp: NOON + 1 }],
    ["the absence of the timestamp", { timestamp: undefined }],
    ["a value of the payload", { payload: { ...CUSTOMER, value: "26" } }],
    ["a key of the payload", { payload: { ...CUSTOMER, values: "25" } }],
    ["a value that came as a number and lost digits", { inexact: ["value"] }],
    ["one more key", { payload: { ...report.payload, x: "" } }],
    ["one key less", { payload: CUSTOMER }],
    ["values that swapped keys", { payload: { stripe_customer_id: "25", value: "cus_1" } }],
  ])("changes with %s", (_, changes) => {
    expect(reportDigest({ ...report, ...changes })).not.toBe(digest);
  });

  test("of a request changes with the endpoint too, since an Idempotency-Key belongs to one", () => {
    const [v1, v2] = ["post /v1/billing/meter_events", "post /v2/billing/meter_events"] as const;
    expect(requestDigest(v1, report)).not.toBe(requestDigest(v2, report));
    expect(requestDigest(v1, report)).toBe(requestDigest(v1, { ...report }));
  });

  test("tells apart what would read the same run together", () => {
    const payloads = [{ k: "vw" }, { kv: "w" }, { k: "v", w: "" }, { k: 'v","w' }, { k: "v", "": "w" }, {}];
    const digests: [string, Partial<EventReport>][] = [
      ["ab", { eventName: "c" }],
      ["a", { eventName: "bc" }],
      ["a", { eventName: "b", identifier: "c" }],
      ["a", { eventName: "b", identifier: "5" }],
      ["a", { eventName: "b", timestamp: 5 }],
      ...payloads.map((payload): [string, Partial<EventReport>] => ["a", { eventName: "b", payload }]),
    ];
    const made = digests.map(([endpoint, changes]) => requestDigest(endpoint, aReport(changes)));
    expect(new Set(made)).toHaveLength(digests.length);
  });
});
