import { env, exports } from "cloudflare:workers";
import { sign } from "hono/jwt";
import { afterEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { hashOf } from "../../../src/catalog/key-hash.ts";
import worker from "../../../src/index.ts";
import type { Append, CallContext, RejectionAppend, ShareName } from "../../../src/log/entries.ts";
import type { EventLog } from "../../../src/log/event-log.ts";
import { unique } from "../../support/builders.ts";
import { answerOf, aToken, call, createdMeter, eventually, storedEvents, storedIn } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const SESSION = "/v2/billing/meter_event_session";
const STREAM = "/v2/billing/meter_event_stream";

const MINUTE_MS = 60_000;

const anEvent = (meter: { event_name: string }, fields: Record<string, unknown> = {}) => ({
  event_name: meter.event_name,
  identifier: unique("streamed"),
  payload: { stripe_customer_id: "cus_1", value: "25" },
  ...fields,
});

type Streaming = { token?: string; key?: string; outcomes?: string };

/** Streams events in a session, under an Idempotency-Key when there is one, and asks for outcomes when told to. */
async function stream(events: unknown, { token, key, outcomes }: Streaming = {}) {
  const { status, body, headers } = await answerOf(STREAM, {
    key: token ?? (await aToken()),
    body: { events },
    headers: {
      ...(key === undefined ? {} : { "idempotency-key": key }),
      ...(outcomes === undefined ? {} : { "edgemeter-outcomes": outcomes }),
    },
  });
  return { status, body, headers };
}

const ACCEPTED = { status: 200, body: {} };

/** Claims of a token as good as any of the service's own. */
const claims = (changes: Record<string, unknown> = {}) => ({
  sub: "key_test_local",
  livemode: false,
  aud: "meter_event_stream",
  exp: Math.floor(Date.now() / 1_000) + 600,
  ...changes,
});

const signed = async (changes: Record<string, unknown> = {}, secret = env.SESSION_SECRET ?? ""): Promise<string> =>
  `token_${await sign(claims(changes), secret, "HS256")}`;

/** An API key of its own, in test mode. */
async function aKey(): Promise<{ key: string; id: string }> {
  const key = `sk_test_${unique("streams")}_0123456789`;
  const id = unique("key");
  await env.DB.prepare(
    `INSERT INTO api_keys (hash, id, number, name, livemode, created)
     VALUES (?, ?, (SELECT MAX(number) + 1 FROM api_keys), 'test', 0, 0)`,
  )
    .bind(hashOf(key), id)
    .run();
  return { key, id };
}

/** Looks at what is appended, on its way to the logs; `fail` makes the call to a shard fail. */
function watchAppends(fail: (shard: string) => boolean = () => false): Append[] {
  const seen: Append[] = [];
  const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
  vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) => {
    const log = getByName(name, options);
    const append = async (entries: readonly Append[], context: CallContext) => {
      if (fail(name)) throw new Error("the shard is being reset");
      seen.push(...entries);
      return log.append(entries, context);
    };
    return {
      append,
      recall: (...asked: Parameters<EventLog["recall"]>) => log.recall(...asked),
      confirm: (shares: readonly ShareName[]) => log.confirm(shares),
    } as unknown as DurableObjectStub<EventLog>;
  });
  return seen;
}

const rejections = (entries: readonly Append[]): RejectionAppend[] =>
  entries.filter((entry): entry is RejectionAppend => "rejection" in entry);

describe("a session", () => {
  it("has a token that lasts 15 minutes, in its key's mode", async () => {
    for (const [key, livemode] of [
      [LOCAL_KEYS.test, false],
      [LOCAL_KEYS.live, true],
    ] as const) {
      const { status, body } = await answerOf(SESSION, { key, body: {} });
      expect({ status, body }).toEqual({
        status: 200,
        body: {
          object: "v2.billing.meter_event_session",
          id: expect.stringMatching(/^mtr_event_session_/),
          livemode,
          authentication_token: expect.stringMatching(/^token_/),
          created: expect.stringMatching(/\.000Z$/),
          expires_at: expect.stringMatching(/\.000Z$/),
        },
      });
      expect(Date.parse(String(body.expires_at)) - Date.parse(String(body.created))).toBe(15 * MINUTE_MS);
    }
  });

  it("can be asked for without a body, and under one Idempotency-Key again", async () => {
    const headers = { "idempotency-key": unique("key") };
    const meter = await createdMeter();
    for (const _ of [1, 2]) {
      const { status, body } = await answerOf(SESSION, { method: "POST", headers });
      expect(status).toBe(200);
      expect(await stream([anEvent(meter)], { token: String(body.authentication_token) })).toMatchObject(ACCEPTED);
    }
    expect(await answerOf(SESSION, { body: { a: 1 } })).toMatchObject({ status: 400 });
  });

  it("neither begins nor works where the deployment has no secret, or a short one", async () => {
    const token = await aToken();
    for (const secret of [undefined, "", "short"]) {
      const { SESSION_SECRET: _, ...others } = env;
      const deployment = { ...others, ...(secret === undefined ? {} : { SESSION_SECRET: secret }) };
      for (const [path, key] of [
        [SESSION, LOCAL_KEYS.test],
        [STREAM, token],
      ] as const) {
        const request = new Request(`http://edgemeter.test${path}`, {
          method: "POST",
          headers: { authorization: `Bearer ${key}` },
        });
        const execution = { waitUntil: () => {}, passThroughOnException: () => {} } as unknown as ExecutionContext;
        const response = await worker.fetch(
          request as Request<unknown, IncomingRequestCfProperties>,
          deployment,
          execution,
        );
        expect(response.status).toBe(503);
        expect(await response.json()).toMatchObject({ error: { code: "sessions_not_configured" } });
      }
    }
  });
});

describe("a token", () => {
  const refused = { status: 401, body: { error: { code: "unauthorized", message: expect.any(String) } } };

  /** What a stream of nothing answers: past the token, that it is empty. */
  const tried = async (token: string) => {
    const { status, body } = await stream([], { token });
    return { status, body };
  };

  it("is refused, without a type, when the service did not sign it", async () => {
    expect((await tried(await signed())).status).toBe(400);
    const [header = "", body = "", signature = ""] = (await aToken()).slice("token_".length).split(".");
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
    const forged = [
      `token_${header}.${part(claims({ livemode: true, sub: "key_live_local" }))}.${signature}`,
      `token_${header}.${body}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`,
      `token_${header}.${body}.`,
      `token_${header}.${body}`,
      `token_${part({ alg: "none", typ: "JWT" })}.${part(claims())}.`,
      `token_${part({ alg: "none", typ: "JWT" })}.${part(claims())}.${signature}`,
      `token_${await sign(claims(), env.SESSION_SECRET ?? "", "HS512")}`,
      await signed({}, "another secret of more than 32 characters"),
      // Expired as well: only a genuine token is told so.
      await signed({ exp: 1 }, "another secret of more than 32 characters"),
      `${header}.${body}.${signature}`,
      "token_",
      "token_null.null.null",
      `token_${part({ alg: "HS256" })}.${Buffer.from("null").toString("base64url")}.${signature}`,
      LOCAL_KEYS.test,
      "",
    ];
    for (const token of forged) expect(await tried(token), token).toEqual(refused);
  });

  it("is refused when it was signed for something else, or lacks a claim", async () => {
    for (const changes of [
      { aud: "other" },
      { aud: undefined },
      { exp: undefined },
      { exp: "9" },
      { sub: undefined },
    ]) {
      expect(await tried(await signed(changes)), JSON.stringify(changes)).toEqual(refused);
    }
  });

  it("is refused in a mode that is not its API key's", async () => {
    expect(await tried(await signed({ livemode: true }))).toEqual(refused);
  });

  it("ends after 15 minutes with what the SDKs recognise", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() });
    const { body } = await answerOf(SESSION, { body: {} });
    const token = String(body.authentication_token);
    vi.setSystemTime(Date.parse(String(body.expires_at)) - 1);
    expect((await tried(token)).status).toBe(400);
    vi.setSystemTime(Date.parse(String(body.expires_at)));
    expect(await tried(token)).toEqual({
      status: 401,
      body: {
        error: {
          code: "billing_meter_event_session_expired",
          type: "temporary_session_expired",
          message: expect.any(String),
          doc_url: "/docs",
        },
      },
    });
  });

  it("is refused once its API key is revoked, at most the ten seconds of the cache later", async () => {
    const { key, id } = await aKey();
    const token = await aToken(key);
    expect((await tried(token)).status).toBe(400);
    await env.DB.prepare("UPDATE api_keys SET revoked_at = 1 WHERE id = ?").bind(id).run();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 10_001 });
    expect(await tried(token)).toEqual(refused);
  });

  it("costs no look into the database once its key is known", async () => {
    const meter = await createdMeter();
    const token = await aToken();
    await stream([anEvent(meter)], { token });
    const prepare = vi.spyOn(env.DB, "prepare");
    expect(await stream([anEvent(meter)], { token })).toMatchObject(ACCEPTED);
    expect(prepare.mock.calls.filter(([sql]) => sql.includes("api_keys"))).toEqual([]);
  });

  it("is no API key", async () => {
    const token = await aToken();
    const meter = await createdMeter();
    for (const request of [
      { path: "/v1/billing/meters" },
      { path: "/v2/billing/meter_events", body: anEvent(meter) },
      { path: SESSION, body: {} },
    ]) {
      expect((await call(request.path, { key: token, body: request.body })).status).toBe(401);
    }
  });
});

describe("a stream's request", () => {
  it("makes valid events count, ignores repeated reports, and rejects the rest with the codes of error reports", async () => {
    const appended = watchAppends();
    const meter = await createdMeter();
    const archived = await createdMeter();
    await call(`/v1/billing/meters/${archived.id}/deactivate`, { method: "POST" });
    const unknown = { event_name: unique("unknown") };
    const at = (ms: number): string => new Date(Date.now() + ms).toISOString();
    const paid = (value?: string, customer: string | undefined = "cus_1") => ({
      payload: {
        ...(customer === "" ? {} : { stripe_customer_id: customer }),
        ...(value === undefined ? {} : { value }),
      },
    });
    const first = anEvent(meter);
    const events = [
      first,
      anEvent(meter),
      { ...first, payload: { stripe_customer_id: "cus_1", value: "1000" } },
      anEvent(unknown),
      anEvent(archived),
      anEvent(meter, paid("1", "")),
      anEvent(meter, paid()),
      anEvent(meter, paid("1.5")),
      anEvent(meter, paid("1234567890123456")),
      anEvent(meter, { timestamp: at(10 * MINUTE_MS) }),
      anEvent(meter, { timestamp: at(-36 * 24 * 60 * MINUTE_MS) }),
      first,
      anEvent(meter, paid("1", "cus_9\n")),
      anEvent({ event_name: `${meter.event_name} ` }),
    ];
    expect(await stream(events, { key: unique("key") })).toMatchObject(ACCEPTED);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(2));
    const reported = rejections(appended).map(({ identifier, rejection }) => ({ identifier, ...rejection }));
    const expected = [
      [2, meter.id, "duplicate_meter_event", `An event already exists with identifier ${first.identifier}.`],
      [3, null, "no_meter", `No active meter found for event name "${unknown.event_name}".`],
      [4, archived.id, "archived_meter", `No active meter found for event name "${archived.event_name}".`],
      [5, meter.id, "meter_event_no_customer_defined", "Customer mapping key stripe_customer_id not found in payload."],
      [6, meter.id, "meter_event_value_not_found", "Value key value not found in payload."],
      [7, meter.id, "meter_event_invalid_value", expect.stringContaining("Received 1.5.")],
      [8, meter.id, "meter_event_value_too_many_digits", expect.stringContaining("at most 15 digits")],
      [9, meter.id, "timestamp_in_future", expect.stringContaining("5 minutes")],
      [10, meter.id, "timestamp_too_far_in_past", expect.stringContaining("35 days")],
      [12, meter.id, "meter_event_invalid_customer", expect.stringContaining("payload[stripe_customer_id]")],
      [13, null, "no_meter", `No active meter found for event name "${meter.event_name} ".`],
    ] as const;
    expect(new Set(reported)).toEqual(
      new Set(
        expected.map(([i, id, code, message]) => ({
          identifier: events[i]?.identifier,
          livemode: false,
          meter: id,
          code,
          message,
        })),
      ),
    );
  });

  it("with JSON numbers that are no exact integers is taken: they go to the error report, its other events count", async () => {
    const appended = watchAppends();
    const meter = await createdMeter();
    const raw = (fields: string) =>
      `{"event_name":"${meter.event_name}","identifier":"${unique("number")}","payload":{${fields}}}`;
    const events = [
      raw('"stripe_customer_id":"cus_1","value":7'),
      raw('"stripe_customer_id":"cus_1","value":0.5'),
      raw('"stripe_customer_id":"cus_1","value":1e21'),
      raw('"stripe_customer_id":"cus_1","value":9007199254740993'),
      raw('"stripe_customer_id":9007199254740993,"value":1'),
      raw('"stripe_customer_id":"cus_1","value":1,"trace":9007199254740993'),
      raw('"stripe_customer_id":"cus_1","value":1,"temperature":0.7'),
    ];
    const body = `{"events":[${events.join(",")}]}`;
    expect(await answerOf(STREAM, { key: await aToken(), body })).toMatchObject(ACCEPTED);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(2));
    expect(
      rejections(appended)
        .map(({ rejection }) => rejection.code)
        .sort(),
    ).toEqual([
      "meter_event_invalid_customer",
      "meter_event_invalid_dimension",
      "meter_event_invalid_value",
      "meter_event_invalid_value",
      "meter_event_value_too_many_digits",
    ]);
  });

  it("looks an event name up once, and calls each shard once", async () => {
    const meter = await createdMeter({}, LOCAL_KEYS.live);
    const token = await aToken(LOCAL_KEYS.live);
    const shards = vi.spyOn(env.EVENT_LOG, "getByName");
    const prepare = vi.spyOn(env.DB, "prepare");
    expect(
      await stream(
        Array.from({ length: 100 }, () => anEvent(meter)),
        { token },
      ),
    ).toMatchObject(ACCEPTED);
    // At the nearest replica, and at the primary behind the request.
    expect(prepare.mock.calls.filter(([sql]) => sql.includes("FROM meters"))).toHaveLength(2);
    const names = shards.mock.calls.slice(0, 4).map(([name]) => name);
    expect(new Set(names).size).toBe(names.length);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(100));
  });

  it("with only refused events asks for all names at once, and each shard once", async () => {
    const token = await aToken(LOCAL_KEYS.live);
    const unknown = Array.from({ length: 100 }, () => anEvent({ event_name: unique("unknown") }));
    const prepare = vi.spyOn(env.DB, "prepare");
    expect(await stream(unknown, { token })).toMatchObject(ACCEPTED);
    const lookUps = prepare.mock.calls.filter(([sql]) => sql.includes("FROM meters"));
    // At the nearest replica, and at the primary.
    expect(lookUps).toHaveLength(2);
    prepare.mockRestore();

    const meter = await createdMeter({}, LOCAL_KEYS.live);
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST", key: LOCAL_KEYS.live });
    const shards = vi.spyOn(env.EVENT_LOG, "getByName");
    const refused = Array.from({ length: 100 }, () => anEvent(meter));
    expect(await stream(refused, { token })).toMatchObject(ACCEPTED);
    // Once to ask what was accepted before, once to append the rejections.
    expect(shards.mock.calls.length).toBeLessThanOrEqual(2 * Number(env.EVENT_LOG_SHARDS));
  });

  it("that is malformed changes nothing, not even for its valid events", async () => {
    const meter = await createdMeter();
    const appended = watchAppends();
    const good = anEvent(meter);
    for (const events of [
      undefined,
      {},
      [],
      Array.from({ length: 101 }, () => anEvent(meter)),
      [good, { ...good, event_name: undefined }],
      [good, { ...good, payload: { value: { deep: "1" } } }],
      [good, { ...good, identifier: "" }],
      [good, { ...good, timestamp: "yesterday" }],
      [good, { ...good, colour: "red" }],
      [good, null],
    ]) {
      const { status, body } = await stream(events);
      expect({ status, body }).toMatchObject({ status: 400, body: { error: { code: "invalid_fields" } } });
    }
    const { body } = await stream([good, good, { ...good, payload: { ...good.payload, region: null } }]);
    expect(body.error).toMatchObject({
      param: "events[2][payload][region]",
      message: expect.stringContaining("events[2][payload][region]"),
    });
    expect(appended.filter((entry) => !entry.claims)).toEqual([]);
  });

  it("can have a body of a million bytes, four times what others can", async () => {
    const meter = await createdMeter();
    const token = await aToken();
    const padding = Object.fromEntries(Array.from({ length: 15 }, (_, i) => [`key_${i}`, "x".repeat(480)]));
    const events = Array.from({ length: 100 }, () =>
      anEvent(meter, { payload: { stripe_customer_id: "cus_1", value: "1", ...padding } }),
    );
    expect(JSON.stringify(events).length).toBeGreaterThan(700_000);
    expect(await stream(events, { token })).toMatchObject(ACCEPTED);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(100));
    const { status } = await answerOf(STREAM, { key: token, body: " ".repeat(1_000_001) });
    expect(status).toBe(413);
  });

  it("takes one customer's events at once, also from several requests", async () => {
    const meter = await createdMeter();
    const token = await aToken();
    const answers = await Promise.all(
      Array.from({ length: 5 }, () =>
        stream(
          Array.from({ length: 10 }, () => anEvent(meter)),
          { token },
        ),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(5).fill(200));
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(50));
  });

  it("past a shard's high-water mark is a 503 to be sent again", async () => {
    const meter = await createdMeter();
    vi.spyOn(env.EVENT_LOG, "getByName").mockReturnValue({
      append: async (entries: readonly Append[]) => entries.map(() => ({ outcome: "full" })),
    } as never);
    const { status, body, headers } = await stream([anEvent(meter)]);
    expect({ status, body }).toMatchObject({ status: 503, body: { error: { code: "log_full" } } });
    expect(headers.get("stripe-should-retry")).toBe("true");
  });
});

describe("a stream's request sent again", () => {
  it("counts once: under the same Idempotency-Key without identifiers, and with identifiers under any", async () => {
    const meter = await createdMeter();
    const unnamed = [1, 2, 3].map(() => anEvent(meter, { identifier: undefined }));
    const key = unique("key");
    for (const _ of [1, 2]) expect(await stream(unnamed, { key })).toMatchObject(ACCEPTED);
    const named = [1, 2, 3].map(() => anEvent(meter));
    for (const again of [{}, {}, { key: unique("key") }]) expect(await stream(named, again)).toMatchObject(ACCEPTED);
    // Without either, nobody can know.
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(6));
  });

  it("with another body under the same key is an idempotency_error, not dropped usage", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    const events = [anEvent(meter, { identifier: undefined }), anEvent(meter, { identifier: undefined })];
    await stream(events, { key });
    const other = [
      events[0],
      anEvent(meter, { identifier: undefined, payload: { stripe_customer_id: "c", value: "1" } }),
    ];
    const { status, body } = await stream(other, { key });
    expect({ status, body }).toMatchObject({
      status: 409,
      body: { error: { code: "idempotency_error", type: "idempotency_error" } },
    });
  });

  it("with another body under the same key changes nothing at all, whichever part of it differs", async () => {
    const meter = await createdMeter();
    const good = anEvent(meter, { identifier: undefined });
    const bad = { ...good, payload: { ...good.payload, value: "bad" } };
    for (const other of [[bad], [good, good], [good, anEvent(meter)], [bad, anEvent(meter)]]) {
      const key = unique("key");
      expect(await stream([good], { key })).toMatchObject(ACCEPTED);
      expect(await stream(other, { key })).toMatchObject({ status: 409 });
    }
    const named = anEvent(meter);
    const key = unique("key");
    await stream([good], { key });
    expect(await stream([bad, named], { key })).toMatchObject({ status: 409 });
    // What a refused body names is still free.
    expect((await answerOf("/v2/billing/meter_events", { body: named })).status).toBe(200);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(6));
  });

  it("with one identifier twice in it is no reuse of its key: the first of them counts, and the other is reported", async () => {
    const meter = await createdMeter();
    const key = unique("key");
    const appended = watchAppends();
    const first = anEvent(meter);
    const second = { ...first, payload: { stripe_customer_id: "cus_1", value: "7" } };
    for (const _ of [1, 2]) expect(await stream([first, second], { key })).toMatchObject(ACCEPTED);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(1));
    expect(await storedIn(env.TEST_EVENTS, meter.id)).toMatchObject([{ value: 25 }]);
    const reported = rejections(appended).map(({ key, rejection }) => [key, rejection.code]);
    expect(new Set(reported.map(String))).toEqual(new Set([`${reported[0]?.[0]},duplicate_meter_event`]));
  });

  it("after one shard failed counts once, whole", async () => {
    const meter = await createdMeter({}, LOCAL_KEYS.live);
    const key = unique("key");
    const events = Array.from({ length: 40 }, (_, i) => anEvent(meter, i % 2 ? {} : { identifier: undefined }));
    const token = await aToken(LOCAL_KEYS.live);
    watchAppends((shard) => shard === "live-1");
    const { status, body, headers } = await stream(events, { key, token });
    expect({ status, body }).toMatchObject({ status: 503, body: { error: { code: "service_unavailable" } } });
    expect(headers.get("stripe-should-retry")).toBe("true");
    vi.restoreAllMocks();
    for (const _ of [1, 2]) expect(await stream(events, { key, token })).toMatchObject(ACCEPTED);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(40));
  });

  it("reports what it rejects once, also within the request", async () => {
    const appended = watchAppends();
    const bad = anEvent(await createdMeter(), { payload: { stripe_customer_id: "cus_1", value: "-1" } });
    const key = unique("key");
    await stream([bad, bad], { key });
    await stream([bad, bad], { key });
    // The log keeps one of them, since they have one key.
    const keys = rejections(appended).map((rejection) => rejection.key);
    expect(keys).toHaveLength(4);
    expect(new Set(keys).size).toBe(1);
    expect(keys[0]).toMatch(/^rejected:test:/);
  });

  it("after a time or its meter changed still finds what was accepted", async () => {
    const meter = await createdMeter();
    const old = new Date(Date.now() - 35 * 24 * 60 * MINUTE_MS + MINUTE_MS).toISOString();
    const key = unique("key");
    const token = await aToken();
    const events = [anEvent(meter, { timestamp: old }), anEvent(meter, { timestamp: old, identifier: undefined })];
    await stream(events, { key, token });
    const appended = watchAppends();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 2 * MINUTE_MS });
    expect(await stream(events, { key, token })).toMatchObject(ACCEPTED);
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
    expect(await stream(events, { key, token })).toMatchObject(ACCEPTED);
    expect(appended.filter((entry) => !entry.claims)).toEqual([]);
    await stream([{ ...events[0], payload: { stripe_customer_id: "cus_1", value: "1" } }], {
      key: unique("key"),
      token,
    });
    expect(rejections(appended).map(({ rejection }) => rejection.code)).toEqual(["archived_meter"]);
  });

  it("leaves the identifier of a rejected event free", async () => {
    const meter = await createdMeter();
    const event = anEvent(meter);
    await stream([{ ...event, payload: { stripe_customer_id: "cus_1", value: "0" } }]);
    expect(await stream([event])).toMatchObject(ACCEPTED);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(1));
  });
});

describe("a stream that asks for outcomes", () => {
  const accepted = ({ identifier }: { identifier: unknown }) => ({ outcome: "accepted", identifier });
  const acceptedBefore = ({ identifier }: { identifier: unknown }) => ({ outcome: "accepted_before", identifier });

  /** The outcomes of events, under an Idempotency-Key when there is one. */
  const outcomesOf = async (events: unknown[], key?: string): Promise<unknown> => {
    const { status, body } = await stream(events, { outcomes: "true", ...(key === undefined ? {} : { key }) });
    expect(status).toBe(200);
    return body.outcomes;
  };

  it("is told one an event, in their order, refused in the words of a single event and in no error report", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() });
    const appended = watchAppends();
    const meter = await createdMeter();
    const archived = await createdMeter();
    await call(`/v1/billing/meters/${archived.id}/deactivate`, { method: "POST" });
    const at = (ms: number): string => new Date(Date.now() + ms).toISOString();
    const first = anEvent(meter);
    const refused = [
      { ...first, payload: { stripe_customer_id: "cus_1", value: "1000" } },
      anEvent({ event_name: unique("unknown") }),
      anEvent(archived),
      anEvent(meter, { payload: { value: "1" } }),
      anEvent(meter, { payload: { stripe_customer_id: "cus_1" } }),
      anEvent(meter, { payload: { stripe_customer_id: "cus_1", value: "1.5" } }),
      anEvent(meter, { payload: { stripe_customer_id: "cus_1", value: "1234567890123456" } }),
      anEvent(meter, { payload: { stripe_customer_id: " cus_1", value: "1" } }),
      anEvent(meter, { timestamp: at(10 * MINUTE_MS) }),
      anEvent(meter, { timestamp: at(-36 * 24 * 60 * MINUTE_MS) }),
    ];
    const unnamed = anEvent(meter, { identifier: undefined });
    const outcomes = await outcomesOf([first, ...refused, first, unnamed]);
    const single = await Promise.all(
      refused.map(async (event) => (await answerOf("/v2/billing/meter_events", { body: event })).body.error),
    );
    expect(outcomes).toEqual([
      accepted(first),
      ...single.map((error) => {
        const { code, message } = error as { code: string; message: string };
        return { outcome: "refused", code, message };
      }),
      acceptedBefore(first),
      accepted({ identifier: expect.stringMatching(/^em_/) }),
    ]);
    expect(rejections(appended)).toEqual([]);
    vi.useRealTimers();
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(2));
  });

  it("is told of a retry what its first attempt was, and of the same reports in another request that they came before", async () => {
    const meter = await createdMeter();
    const [named, unnamed] = [anEvent(meter), anEvent(meter, { identifier: undefined })];
    const key = unique("key");
    const first = await outcomesOf([named, named, unnamed], key);
    expect(first).toEqual([accepted(named), acceptedBefore(named), accepted({ identifier: expect.any(String) })]);
    expect(await outcomesOf([named, named, unnamed], key)).toEqual(first);
    for (const again of [undefined, unique("key")])
      expect(await outcomesOf([named], again)).toEqual([acceptedBefore(named)]);
    const single = anEvent(meter);
    await call("/v2/billing/meter_events", { body: single });
    expect(await outcomesOf([single])).toEqual([acceptedBefore(single)]);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(3));
  });

  it("is told of a retry that came when its meter was archived that it was accepted", async () => {
    const meter = await createdMeter();
    const event = anEvent(meter);
    const key = unique("key");
    await outcomesOf([event], key);
    await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
    expect(await outcomesOf([event], key)).toEqual([accepted(event)]);
    expect(await outcomesOf([event])).toEqual([acceptedBefore(event)]);
    expect(await outcomesOf([anEvent(meter)])).toMatchObject([{ outcome: "refused", code: "archived_meter" }]);
  });

  it("has no limit of refused events, since nothing is stored of them", async () => {
    const meter = await createdMeter();
    const event = anEvent(meter);
    await stream([event]);
    const limit = vi
      .spyOn(env.REFUSED_EVENTS_LIMIT as RateLimit, "limit")
      .mockImplementation(async () => ({ success: false }));
    const duplicate = { ...event, payload: { stripe_customer_id: "cus_1", value: "7" } };
    const bad = anEvent(meter, { payload: { stripe_customer_id: "cus_1", value: "0" } });
    expect(await outcomesOf([duplicate, bad])).toMatchObject([
      { outcome: "refused", code: "duplicate_meter_event" },
      { outcome: "refused", code: "payload_invalid_value" },
    ]);
    expect(limit).not.toHaveBeenCalled();
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(1));
  });

  it("asks with `true`; `false` is as without the header, and anything else is refused before any is stored", async () => {
    const meter = await createdMeter();
    expect(await stream([anEvent(meter)], { outcomes: "false" })).toMatchObject(ACCEPTED);
    expect((await stream([anEvent(meter)], { outcomes: "false" })).body).toEqual({});
    for (const outcomes of ["yes", "TRUE", "1"]) {
      const { status, body } = await stream([anEvent(meter)], { outcomes });
      expect({ status, body }).toMatchObject({
        status: 400,
        body: { error: { code: "invalid_fields", message: expect.stringContaining("edgemeter-outcomes") } },
      });
    }
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(2));
  });
});

describe("a stream and single events", () => {
  it("share their identifiers", async () => {
    const meter = await createdMeter();
    const event = anEvent(meter);
    expect((await call("/v2/billing/meter_events", { body: event })).status).toBe(200);
    const other = anEvent(meter);
    expect(await stream([event, other])).toMatchObject(ACCEPTED);
    expect((await answerOf("/v2/billing/meter_events", { body: other })).body).toMatchObject({
      error: { code: "duplicate_meter_event" },
    });
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(2));
  });

  it("carry the number of the API key that reported them, or cancelled them", async () => {
    const meter = await createdMeter();
    const [streamed, single] = [anEvent(meter), anEvent(meter)];
    const other = await aKey();
    await stream([streamed], { token: await aToken(other.key) });
    await answerOf("/v2/billing/meter_events", { body: single });
    const cancel = { event_name: meter.event_name, type: "cancel", cancel: { identifier: single.identifier } };
    await answerOf("/v2/billing/meter_event_adjustments", { key: other.key, body: cancel });
    const { results } = await env.DB.prepare("SELECT number FROM api_keys WHERE id IN ('key_test_local', ?) ORDER BY 1")
      .bind(other.id)
      .all<{ number: number }>();
    const [local, own] = results.map(({ number }) => number);
    await eventually(async () => {
      const rows = await storedIn(env.TEST_EVENTS, meter.id);
      const numbers = rows.map(({ identifier, api_key, cancelled_by }) => [identifier, api_key, cancelled_by]);
      expect(new Set(numbers)).toEqual(
        new Set([
          [streamed.identifier, own, null],
          [single.identifier, local, own],
        ]),
      );
    });
  });

  it("are described in the OpenAPI document, each with what authenticates it", async () => {
    const document = await (await exports.default.fetch("http://edgemeter.test/openapi.json")).json<{
      paths: Record<string, { post?: { security?: unknown } }>;
    }>();
    expect(document.paths[STREAM]?.post?.security).toEqual([{ session: [] }]);
    expect(document.paths[SESSION]?.post?.security).toBeUndefined();
  });
});
