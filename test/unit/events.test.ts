import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { admit, readPayload, reportDigest, requestDigest } from "../../src/domain/event.ts";
import { deactivate } from "../../src/domain/meter.ts";
import { isStorable } from "../../src/domain/text.ts";
import { aMeter, aReport, errorOf, NOON, resultOf } from "../support/builders.ts";

const DAY = 86_400_000;
const EARLIEST = NOON - 35 * DAY;
const LATEST = NOON + 5 * 60_000;

const active = aMeter();
const archived = deactivate(active, NOON);

const CUSTOMER = { stripe_customer_id: "cus_1" };
const VALUE = { value: "25" };

const admitted = (payload: Record<string, string>, meter = active) =>
  resultOf(admit(aReport({ payload }), meter, NOON));

/** The way of a payload that came as JSON. */
const admittedJson = (payload: string, meter = active) =>
  admit(aReport(resultOf(readPayload(JSON.parse(payload)))), meter, NOON);

/** A payload that is read. */
const payloadFrom = (raw: unknown) => resultOf(readPayload(raw)).payload;

describe("the order of an event's rules", () => {
  const rules = [
    { rule: "the meter exists", error: { reason: "no_meter", eventName: "tokens" }, meter: undefined, payload: {} },
    {
      rule: "the meter is active",
      error: { reason: "archived_meter", eventName: "tokens" },
      meter: archived,
      payload: {},
    },
    {
      rule: "the customer is present",
      error: { reason: "payload_no_customer_defined", key: "stripe_customer_id" },
      meter: active,
      payload: {},
    },
    {
      rule: "the customer is present, before an invalid value",
      error: { reason: "payload_no_customer_defined", key: "stripe_customer_id" },
      meter: active,
      payload: { value: "0" },
    },
    {
      rule: "the customer is a name, before a missing value",
      error: { reason: "invalid_customer", key: "stripe_customer_id", fault: "it cannot be blank." },
      meter: active,
      payload: { stripe_customer_id: " " },
    },
    {
      rule: "the value is present",
      error: { reason: "payload_no_value_defined", key: "value" },
      meter: active,
      payload: CUSTOMER,
    },
    {
      rule: "the value is valid",
      error: { reason: "payload_invalid_value", key: "value", value: "0" },
      meter: active,
      payload: { ...CUSTOMER, value: "0" },
    },
  ];

  describe.each([
    ["too far in the past", EARLIEST - 1, { reason: "timestamp_too_far_in_past", earliest: EARLIEST }],
    ["in the future", LATEST + 1, { reason: "timestamp_in_future", latest: LATEST }],
  ])("with a timestamp %s", (_, timestamp, timestampError) => {
    test.each(rules)(
      "an event that breaks every rule from '$rule' on fails by that one",
      ({ meter, payload, error }) => {
        expect(errorOf(admit(aReport({ payload, timestamp }), meter, NOON))).toEqual(error);
      },
    );

    test("an event that breaks only the timestamp's rule fails by it", () => {
      expect(errorOf(admit(aReport({ timestamp }), active, NOON))).toEqual(timestampError);
    });
  });

  test("an event that breaks no rule is admitted with all that the log needs", () => {
    expect(resultOf(admit(aReport({ timestamp: NOON - 1 }), active, NOON))).toEqual({
      meter: active.id,
      customer: "cus_1",
      value: 25,
      aggregation: "additive",
      timestamp: NOON - 1,
      dimensions: undefined,
    });
  });

  test("an event is aggregated as its meter says", () => {
    expect(admitted({ ...CUSTOMER, ...VALUE }, aMeter({ formula: "last" })).aggregation).toBe("latest_of_hour");
    expect(admitted({ ...CUSTOMER, ...VALUE }, aMeter({ eventTimeWindow: "day" })).aggregation).toBe(
      "last_received_of_day",
    );
  });
});

describe("an event's customer", () => {
  test("is found under the meter's own key", () => {
    const meter = aMeter({ customerKey: "tenant" });
    expect(admitted({ tenant: "t_1", ...VALUE, ...CUSTOMER }, meter).customer).toBe("t_1");
    expect(errorOf(admit(aReport(), meter, NOON))).toEqual({ reason: "payload_no_customer_defined", key: "tenant" });
  });

  test("is missing when it is empty", () => {
    const report = aReport({ payload: { stripe_customer_id: "", ...VALUE } });
    expect(errorOf(admit(report, active, NOON)).reason).toBe("payload_no_customer_defined");
  });

  test.each(["constructor", "toString", "__proto__", "hasOwnProperty"])(
    "is not taken from what every object inherits as %s",
    (key) => {
      const meter = aMeter({ customerKey: key });
      expect(errorOf(admit(aReport({ payload: VALUE }), meter, NOON)).reason).toBe("payload_no_customer_defined");
    },
  );

  test.each(["constructor", "toString", "hasOwnProperty"])("is found under a key called %s", (key) => {
    const result = admittedJson(`{"${key}":"cus_9","value":"7"}`, aMeter({ customerKey: key }));
    expect(resultOf(result)).toMatchObject({ customer: "cus_9", value: 7, dimensions: undefined });
  });

  test("is any text within the limits, with its blanks and its case", () => {
    for (const customer of ["cus 1", "CUS_1", "客户🙂", "a:b/c", "0", "x".repeat(500), "\u200bcus"]) {
      expect(admitted({ stripe_customer_id: customer, ...VALUE }).customer).toBe(customer);
    }
  });

  test.each([
    [" ", "blank"],
    ["\n", "blank"],
    ["\u00a0\u3000", "blank"],
    ["cus_9\n", "control characters"],
    ["cus\u00009", "control characters"],
    ["\u0085cus_9", "control characters"],
    ["cus\u007f", "control characters"],
    ["cus\t9", "control characters"],
    [" cus_9", "white space"],
    ["cus_9 ", "white space"],
    ["\ufeffcus_9", "white space"],
    ["cus_9\u2028", "white space"],
  ])("is refused when it is %j, which looks like another: the error names its key and why", (customer, why) => {
    const meter = aMeter({ customerKey: "tenant" });
    expect(errorOf(admit(aReport({ payload: { tenant: customer, ...VALUE } }), meter, NOON))).toEqual({
      reason: "invalid_customer",
      key: "tenant",
      fault: expect.stringContaining(why),
    });
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
  test.each([
    ["1", 1],
    ["25", 25],
    ["10", 10],
    ["999999999999999", 999_999_999_999_999],
    ["100000000000000", 100_000_000_000_000],
  ])("%s is taken", (text, value) => {
    expect(admitted({ ...CUSTOMER, value: text }).value).toBe(value);
  });

  test.each([
    "0",
    "007",
    "00",
    "+5",
    "-1",
    "1.5",
    "1.0",
    "1e3",
    "0x10",
    "1_000",
    "1,000",
    " 5",
    "5 ",
    "5\n",
    "\n5",
    "5n",
    "٥",
    "５",
    "Infinity",
    "NaN",
    "abc",
    "1000000000000000",
    "9999999999999999",
    "1".repeat(400),
  ])("%j is not a positive integer of at most 15 digits", (value) => {
    const report = aReport({ payload: { ...CUSTOMER, value } });
    expect(errorOf(admit(report, active, NOON))).toEqual({ reason: "payload_invalid_value", key: "value", value });
  });

  test("is missing when it is empty or not there", () => {
    for (const payload of [{ ...CUSTOMER, value: "" }, CUSTOMER]) {
      expect(errorOf(admit(aReport({ payload }), active, NOON))).toEqual({
        reason: "payload_no_value_defined",
        key: "value",
      });
    }
  });

  test("is found under the meter's own key, and not in what every object inherits", () => {
    expect(admitted({ ...CUSTOMER, toString: "8" }, aMeter({ valueKey: "toString" })).value).toBe(8);
    for (const valueKey of ["constructor", "toString", "__proto__", "tokens"]) {
      const error = errorOf(admit(aReport(), aMeter({ valueKey }), NOON));
      expect(error).toEqual({ reason: "payload_no_value_defined", key: valueKey });
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

  test.each(["1.5", "0", "-1", "-0", "1000000000000000", "9999999999999999", "1e21", "1e400", "1e-7", "0.1"])(
    "the JSON number %s is that event's invalid value",
    (number) => {
      const error = errorOf(admittedJson(`{"stripe_customer_id":"cus_1","value":${number}}`));
      expect(error).toMatchObject({ reason: "payload_invalid_value", key: "value" });
    },
  );

  test.each(["sum", "last"] as const)("counts for a %s meter", (formula) => {
    expect(admitted({ ...CUSTOMER, ...VALUE }, aMeter({ formula })).value).toBe(25);
    expect(errorOf(admit(aReport({ payload: CUSTOMER }), aMeter({ formula }), NOON)).reason).toBe(
      "payload_no_value_defined",
    );
  });

  test.each([{}, { value: "25" }, { value: "" }, { value: "1.5" }, { value: "lots" }])(
    "is ignored by a count meter: %j counts as 1",
    (value) => {
      expect(admitted({ ...CUSTOMER, ...value }, aMeter({ formula: "count" })).value).toBe(1);
    },
  );

  test.each(["0.5", "1e21", "9007199254740993"])(
    "that is the JSON number %s is ignored by a count meter too",
    (number) => {
      const meter = aMeter({ formula: "count" });
      expect(resultOf(admittedJson(`{"stripe_customer_id":"cus_1","value":${number}}`, meter)).value).toBe(1);
    },
  );
});

describe("an event's timestamp", () => {
  const at = (timestamp: number) => admit(aReport({ timestamp }), active, NOON);

  test("may lie exactly 35 days back and not a millisecond more", () => {
    expect(resultOf(at(EARLIEST)).timestamp).toBe(EARLIEST);
    expect(errorOf(at(EARLIEST - 1))).toEqual({ reason: "timestamp_too_far_in_past", earliest: EARLIEST });
  });

  test("may lie exactly 5 minutes ahead and not a millisecond more", () => {
    expect(resultOf(at(LATEST)).timestamp).toBe(LATEST);
    expect(errorOf(at(LATEST + 1))).toEqual({ reason: "timestamp_in_future", latest: LATEST });
  });

  test("may be absent, at any time", () => {
    for (const now of [0, NOON, Number.MAX_SAFE_INTEGER]) {
      expect(resultOf(admit(aReport(), active, now)).timestamp).toBeUndefined();
    }
  });

  test("is refused at the ends of what numbers hold", () => {
    expect(errorOf(at(0)).reason).toBe("timestamp_too_far_in_past");
    expect(errorOf(at(-1)).reason).toBe("timestamp_too_far_in_past");
    expect(errorOf(at(999_999_999_999_000)).reason).toBe("timestamp_in_future");
  });
});

describe("an event's dimensions", () => {
  test("are what the payload holds besides customer and value", () => {
    expect(admitted({ ...CUSTOMER, ...VALUE, model: "small", region: "" }).dimensions).toEqual({
      model: "small",
      region: "",
    });
  });

  test("are absent when there is nothing else", () => {
    expect(admitted({ ...CUSTOMER, ...VALUE }).dimensions).toBeUndefined();
  });

  test("hold the value key of a count meter, which is a key like any other there", () => {
    const meter = aMeter({ formula: "count" });
    expect(admitted({ ...CUSTOMER, ...VALUE }, meter).dimensions).toEqual(VALUE);
    expect(admitted(CUSTOMER, meter).dimensions).toBeUndefined();
  });

  test("may be a JSON fraction, which is its own text", () => {
    const result = admittedJson('{"stripe_customer_id":"c","value":1,"temperature":0.7}');
    expect(resultOf(result).dimensions).toEqual({ temperature: "0.7" });
  });

  test.each(["9007199254740993", "-1e21", "1e400"])(
    "that come as the JSON number %s, which lost digits, refuse their event by name",
    (number) => {
      const result = admittedJson(`{"stripe_customer_id":"c","value":1,"trace":${number},"seats":2}`);
      expect(errorOf(result)).toEqual({
        reason: "invalid_dimension",
        key: "trace",
        fault: expect.stringContaining("send it as a string"),
      });
    },
  );

  test("follow the meter's own keys", () => {
    const meter = aMeter({ customerKey: "tenant", valueKey: "bytes" });
    expect(admitted({ tenant: "t", bytes: "1", ...VALUE, ...CUSTOMER }, meter).dimensions).toEqual({
      ...VALUE,
      ...CUSTOMER,
    });
  });

  test("may have the names of what every object inherits", () => {
    const result = resultOf(
      admittedJson('{"stripe_customer_id":"c","value":"1","constructor":"a","toString":"b","valueOf":"c"}'),
    );
    expect(Object.entries(result.dimensions ?? {}).sort()).toEqual([
      ["constructor", "a"],
      ["toString", "b"],
      ["valueOf", "c"],
    ]);
  });
});

/** Why the shape of a payload is refused, and where. */
const refused = (raw: unknown) => errorOf(readPayload(raw));

describe("a payload", () => {
  const keys = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`key${i}`, "x"]));

  test.each([["text"], [5], [true], [null], [undefined], [["a"]], [[]]])("cannot be %j", (raw) => {
    expect(refused(raw)).toEqual({ message: "it must be a map of strings." });
  });

  test.each([
    ["null", null],
    ["true", true],
    ["an object", { a: "b" }],
    ["an array", ["b"]],
    ["an empty array", []],
    ["undefined", undefined],
  ])("cannot hold %s, and the error names the key", (_, value) => {
    expect(refused({ good: "x", bad: value })).toMatchObject({ key: "bad" });
  });

  test("may be empty, and may come without a prototype", () => {
    expect(payloadFrom({})).toEqual({});
    expect(payloadFrom(Object.assign(Object.create(null), VALUE))).toEqual(VALUE);
  });

  test("has at most 50 keys, and the error says so", () => {
    expect(Object.keys(payloadFrom(keys(50)))).toHaveLength(50);
    expect(refused(keys(51)).message).toContain("50");
  });

  test("has keys of 1 to 100 characters, and the error says so", () => {
    for (const longest of ["k".repeat(100), "🙂".repeat(100)]) {
      expect(payloadFrom({ [longest]: "x" })).toEqual({ [longest]: "x" });
      expect(refused({ [`${longest}k`]: "x" }).message).toContain("100");
    }
    expect(refused({ "": "x" }).message).toContain("1 to 100");
  });

  test("has values of up to 500 characters, and the error says so and where", () => {
    for (const longest of ["v".repeat(500), "🙂".repeat(500)]) {
      expect(payloadFrom({ note: longest, empty: "" })).toEqual({ note: longest, empty: "" });
      expect(refused({ note: `${longest}v` })).toEqual({ message: expect.stringContaining("500"), key: "note" });
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

  test.each([
    ["NUL", "a\0b"],
    ["a lone high surrogate", "a\ud83d"],
    ["a lone low surrogate", "\ude42b"],
    ["surrogates the wrong way round", "\ude42\ud83d"],
  ])("cannot hold %s, in a key or in a value", (_, text) => {
    expect(isStorable(text)).toBe(false);
    expect(refused({ [text]: "x" }).message).toContain("a payload key");
    expect(refused({ x: text })).toEqual({ message: "it contains characters that cannot be stored.", key: "x" });
  });

  test("may hold any other character", () => {
    for (const text of ["\u0001\t\n\r\u007f", "\ufeff\uffff\u2028", "🙂👩‍👩‍👧", "é vs e\u0301", "</script>'\"\\"]) {
      expect(isStorable(text)).toBe(true);
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

  test.each([
    ["the event name", { ...report, eventName: "other" }],
    ["the identifier", { ...report, identifier: "i_2" }],
    ["the absence of the identifier", { ...report, identifier: undefined }],
    ["the timestamp", { ...report, timestamp: NOON + 1 }],
    ["the absence of the timestamp", { ...report, timestamp: undefined }],
    ["a value of the payload", { ...report, payload: { ...report.payload, value: "26" } }],
    ["a key of the payload", { ...report, payload: { stripe_customer_id: "cus_1", values: "25" } }],
    ["a value that came as a number and lost digits", { ...report, inexact: ["value"] }],
    ["one more key", { ...report, payload: { ...report.payload, x: "" } }],
    ["one key less", { ...report, payload: CUSTOMER }],
    ["values that swapped keys", { ...report, payload: { stripe_customer_id: "25", value: "cus_1" } }],
  ])("changes with %s", (_, other) => {
    expect(reportDigest(other)).not.toBe(digest);
  });

  test("of a request changes with the endpoint too, since an Idempotency-Key belongs to one", () => {
    const [v1, v2] = ["post /v1/billing/meter_events", "post /v2/billing/meter_events"] as const;
    expect(requestDigest(v1, report)).not.toBe(requestDigest(v2, report));
    expect(requestDigest(v1, report)).toBe(requestDigest(v1, { ...report }));
  });

  test("tells apart what would read the same run together", () => {
    const digests = [
      ["ab", aReport({ eventName: "c" })],
      ["a", aReport({ eventName: "bc" })],
      ["a", aReport({ eventName: "b", identifier: "c" })],
      ["a", aReport({ eventName: "b", identifier: "5" })],
      ["a", aReport({ eventName: "b", timestamp: 5 })],
      ["a", aReport({ eventName: "b", payload: { k: "vw" } })],
      ["a", aReport({ eventName: "b", payload: { kv: "w" } })],
      ["a", aReport({ eventName: "b", payload: { k: "v", w: "" } })],
      ["a", aReport({ eventName: "b", payload: { k: 'v","w' } })],
      ["a", aReport({ eventName: "b", payload: { k: "v", "": "w" } })],
      ["a", aReport({ eventName: "b", payload: {} })],
    ] as const;
    expect(new Set(digests.map(([endpoint, other]) => requestDigest(endpoint, other)))).toHaveLength(digests.length);
  });
});
