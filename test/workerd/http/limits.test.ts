// How often whom may ask what, and how little the database is asked for it.
import { env } from "cloudflare:workers";
import { sign } from "hono/jwt";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { DELETE_REPORTS } from "../../../src/aggregate/sql/error-reports.ts";
import { hashOf } from "../../../src/catalog/key-hash.ts";
import { refusedEventsAllowed } from "../../../src/catalog/rate-limits.ts";
import type { RateLimitName } from "../../../src/env.ts";
import { allEndpoints } from "../../../src/http/endpoints.ts";
import { descriptionOf } from "../../../src/http/openapi.ts";
import { addressBlock } from "../../../src/http/unknown-keys.ts";
import { unique } from "../../support/builders.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { answerOf, call, createdMeter, eventually, storedEvents } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A binding of wrangler.toml. */
function limiter(name: RateLimitName): RateLimit {
  const limit = env[name];
  if (limit === undefined) throw new Error(`wrangler.toml has no ${name}`);
  return limit;
}

/** A key that was never seen, of the right form. */
const aKey = (): string => `sk_test_${unique("unknown").replaceAll("-", "_")}`;

/** Stores a key that works. */
async function store(secret: string, id = unique("key")): Promise<string> {
  await env.DB.prepare(
    "INSERT INTO api_keys (hash, id, number, name, livemode, created) SELECT ?, ?, MAX(number) + 1, 'test', 0, 0 FROM api_keys",
  )
    .bind(hashOf(secret), id)
    .run();
  return id;
}

const METERS = "/v1/billing/meters?limit=1";

describe("unknown keys", () => {
  /** Counts of the limit of each address, as a limiter that forgets nothing has them. */
  let counted: Map<string, number>;

  beforeEach(() => {
    counted = new Map();
    vi.spyOn(limiter("UNKNOWN_KEYS_LIMIT"), "limit").mockImplementation(async ({ key }) => {
      const count = (counted.get(key) ?? 0) + 1;
      counted.set(key, count);
      return { success: count <= 100 };
    });
  });

  const from = (address: string, key: string): Promise<{ status: number; headers: Headers }> =>
    answerOf(METERS, { key, headers: { "cf-connecting-ip": address } });

  it("are refused with 429 past a hundred of an address, and cost the database nothing from then on", async () => {
    const address = "203.0.113.1";
    for (let i = 0; i < 100; i++) expect((await from(address, aKey())).status).toBe(401);
    expect((await from(address, aKey())).status).toBe(429);
    const d1 = new HostileD1();
    for (let i = 0; i < 20; i++) expect((await from(address, aKey())).status).toBe(429);
    expect(d1.calls).toBe(0);
    expect((await from("203.0.113.2", aKey())).status).toBe(401);
  });

  it("cost the database a bounded number of queries also when they come all at once", async () => {
    const d1 = new HostileD1();
    const answers = await Promise.all(Array.from({ length: 300 }, () => from("203.0.113.3", aKey())));
    expect(answers.filter(({ status }) => status === 429).length).toBeGreaterThanOrEqual(190);
    // At the replica and at the primary.
    expect(d1.calls).toBeLessThanOrEqual(2 * 110);
  });

  it("are counted by the /64 of an IPv6 address", async () => {
    for (let i = 0; i < 101; i++) await from(`2001:db8:1:2::${i.toString(16)}`, aKey());
    expect((await from("2001:db8:1:2:ffff::1", aKey())).status).toBe(429);
    expect((await from("2001:db8:1:3::1", aKey())).status).toBe(401);
  });

  it.each([
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["2001:0DB8:0000:0001::", "2001:db8:0:1::/64"],
    ["::1", "0:0:0:0::/64"],
    ["2001:db8:a:b:c:d:e:f", "2001:db8:a:b::/64"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["192.0.2.1", "192.0.2.1"],
  ])("of %s count as %s", (address, block) => expect(addressBlock(address)).toBe(block));

  it("leave the keys alone that the isolate knows, from the same address", async () => {
    const address = "203.0.113.4";
    const secret = aKey();
    await store(secret);
    expect((await from(address, secret)).status).toBe(200);
    for (let i = 0; i < 102; i++) await from(address, aKey());
    const limit = vi.mocked(limiter("UNKNOWN_KEYS_LIMIT").limit);
    limit.mockClear();
    for (let i = 0; i < 3; i++) expect((await from(address, secret)).status).toBe(200);
    expect(limit).not.toHaveBeenCalled();
  });

  it("are all that counts: new keys that work do not, from however many isolates they come", async () => {
    const secret = aKey();
    await store(secret);
    expect((await from("203.0.113.5", secret)).status).toBe(200);
    expect(counted.get("203.0.113.5")).toBeUndefined();
  });

  it("are remembered for five seconds, so that one that comes again and again is asked about once", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const secret = aKey();
    expect((await from("203.0.113.6", secret)).status).toBe(401);
    const d1 = new HostileD1();
    for (let i = 0; i < 20; i++) expect((await from("203.0.113.6", secret)).status).toBe(401);
    expect(d1.calls).toBe(0);
    expect(counted.get("203.0.113.6")).toBe(1);
    await store(secret);
    vi.setSystemTime(Date.now() + 5_001);
    expect((await from("203.0.113.6", secret)).status).toBe(200);
  });

  it("work in the instant they are made, when nobody used them before", async () => {
    const secret = aKey();
    for (let i = 0; i < 20; i++) await from("203.0.113.7", aKey());
    await store(secret);
    expect((await from("203.0.113.7", secret)).status).toBe(200);
  });

  it("are refused as ever while the limiter fails", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    vi.mocked(limiter("UNKNOWN_KEYS_LIMIT").limit).mockRejectedValue(new Error("no limiter"));
    for (let i = 0; i < 12; i++) expect((await from("203.0.113.8", aKey())).status).toBe(401);
  });
});

describe("a key's limits", () => {
  const LIMITS = ["SYNC_EVENTS_LIMIT", "STREAMS_LIMIT", "READS_LIMIT", "ADMINISTRATION_LIMIT"] as const;

  const EVENTS = "/v2/billing/meter_events";

  it.each([
    ["SYNC_EVENTS_LIMIT", "POST", EVENTS],
    ["SYNC_EVENTS_LIMIT", "POST", "/v1/billing/meter_events"],
    ["SYNC_EVENTS_LIMIT", "POST", "/v2/billing/meter_event_adjustments"],
    ["STREAMS_LIMIT", "POST", "/v2/billing/meter_event_session"],
    ["READS_LIMIT", "GET", "/v1/billing/meters"],
    ["READS_LIMIT", "GET", "/v2/core/events"],
    ["READS_LIMIT", "GET", "/v1/edgemeter/pipeline"],
    ["ADMINISTRATION_LIMIT", "POST", "/v1/billing/meters"],
    ["ADMINISTRATION_LIMIT", "POST", "/v1/edgemeter/audit"],
  ] as const)("%s is that of %s %s, in both modes, and no other is asked", async (name, method, path) => {
    for (const mode of ["test", "live"] as const) {
      const limits = LIMITS.map((limit) =>
        vi.spyOn(limiter(limit), "limit").mockResolvedValue({ success: limit !== name }),
      );
      const { status, body } = await answerOf(path, { method, key: LOCAL_KEYS[mode] });
      expect(status).toBe(429);
      const rateLimit = path.startsWith("/v2/") ? { type: "rate_limit" } : { code: "rate_limit" };
      expect(body.error).toMatchObject(rateLimit);
      const asked = limits.filter((limit) => limit.mock.calls.length > 0);
      expect(asked.map((limit) => limit.mock.calls)).toEqual([[[{ key: `key_${mode}_local` }]]]);
      vi.restoreAllMocks();
    }
  });

  it("are those of its streams by the key of the session", async () => {
    const session = await answerOf("/v2/billing/meter_event_session", { body: {} });
    const limit = vi.spyOn(limiter("STREAMS_LIMIT"), "limit").mockResolvedValue({ success: false });
    const token = String(session.body.authentication_token);
    expect((await call("/v2/billing/meter_event_stream", { key: token, body: { events: [] } })).status).toBe(429);
    expect(limit).toHaveBeenCalledWith({ key: "key_test_local" });
  });

  it("are told in the API's description of every call", async () => {
    for (const { documented } of await allEndpoints())
      expect(descriptionOf(documented)).toMatch(/At most 1[0,]+ .* in 10 seconds per key\./);
  });

  it("do not exist without their block in wrangler.toml", async () => {
    expect(await refusedEventsAllowed({ ...env, REFUSED_EVENTS_LIMIT: undefined } as never, "key_1", 5_000)).toBe(true);
  });

  it("let everything pass while the limiter fails", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    vi.spyOn(limiter("READS_LIMIT"), "limit").mockRejectedValue(new Error("no limiter"));
    expect((await call(METERS)).status).toBe(200);
  });

  it("refuse a stream with more refused events before any of it is stored", async () => {
    const meter = await createdMeter();
    const token = String((await answerOf("/v2/billing/meter_event_session", { body: {} })).body.authentication_token);
    const payload = { stripe_customer_id: "cus_1", value: "1" };
    const events = [
      { event_name: meter.event_name, payload },
      { event_name: unique("unknown"), payload },
    ];
    const limit = vi.spyOn(limiter("REFUSED_EVENTS_LIMIT"), "limit").mockResolvedValue({ success: false });
    const path = "/v2/billing/meter_event_stream";
    expect(await answerOf(path, { key: token, body: { events } })).toMatchObject({ status: 429 });
    limit.mockRestore();
    expect(await answerOf(path, { key: token, body: { events } })).toMatchObject({ status: 200 });
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(1));
  });

  it("count each refused event of a stream, up to a thousand in ten seconds", async () => {
    let counted = 0;
    const limit = vi.spyOn(limiter("REFUSED_EVENTS_LIMIT"), "limit").mockImplementation(async () => ({
      success: ++counted <= 1_000,
    }));
    for (let request = 0; request < 10; request++) expect(await refusedEventsAllowed(env, "key_1", 100)).toBe(true);
    expect(limit).toHaveBeenCalledTimes(1_000);
    expect(await refusedEventsAllowed(env, "key_1", 0)).toBe(true);
    expect(await refusedEventsAllowed(env, "key_1", 1)).toBe(false);
  });
});

describe("a session's token while D1 is away", () => {
  const STREAM = "/v2/billing/meter_event_stream";

  const tokenOf = async (id: string): Promise<string> => {
    const exp = Math.floor(Date.now() / 1_000) + 600;
    const claims = { sub: id, livemode: false, aud: "meter_event_stream", exp };
    return `token_${await sign(claims, env.SESSION_SECRET ?? "", "HS256")}`;
  };

  const stream = (token: string, event: unknown) => answerOf(STREAM, { key: token, body: { events: [event] } });

  async function anEvent(): Promise<unknown> {
    const meter = await createdMeter();
    const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
    // An isolate that knows the meter.
    expect((await call("/v2/billing/meter_events", { body: event })).status).toBe(200);
    return event;
  }

  it("is a 503 to be sent again when this isolate has never seen its key, never taken at its word", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const event = await anEvent();
    const token = await tokenOf(await store(aKey()));
    new HostileD1().fate = D1.isAway;
    const { status, body, headers } = await stream(token, event);
    expect({ status, body }).toMatchObject({ status: 503, body: { error: { code: "service_unavailable" } } });
    expect(headers.get("stripe-should-retry")).toBe("true");
  });

  it.each(["its session", "its secret"])("works on where its key is known by %s, up to an hour", async (known) => {
    const event = await anEvent();
    const secret = aKey();
    const token = await tokenOf(await store(secret));
    if (known === "its session") expect((await stream(token, event)).status).toBe(200);
    else expect((await call(METERS, { key: secret })).status).toBe(200);
    new HostileD1().fate = D1.isAway;
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 9 * 60_000 });
    expect((await stream(token, event)).status).toBe(200);
  });

  it("is refused when its key is known to be revoked", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const event = await anEvent();
    const id = await store(aKey());
    const token = await tokenOf(id);
    expect((await stream(token, event)).status).toBe(200);
    await env.DB.prepare("UPDATE api_keys SET revoked_at = 1 WHERE id = ?").bind(id).run();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 10_001 });
    expect((await stream(token, event)).status).toBe(401);
    new HostileD1().fate = D1.isAway;
    for (const later of [0, 60_000]) {
      vi.setSystemTime(Date.now() + later);
      expect((await stream(token, event)).status).not.toBe(200);
    }
  });
});

describe("a table that grows", () => {
  /** The tables that the database reads from end to end for a statement. */
  async function scanned(sql: string, db: D1Database = env.DB): Promise<string[]> {
    const parameters = Math.max(0, ...[...sql.matchAll(/\?(\d+)/g)].map(([, number]) => Number(number)));
    const { results } = await db
      .prepare(`EXPLAIN QUERY PLAN ${sql}`)
      .bind(...Array(parameters).fill("1"))
      .all<{ detail: string }>();
    const tables = await db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all<{ name: string }>();
    return results
      .map(({ detail }) => detail)
      .filter((detail) =>
        tables.results.some(({ name }) => new RegExp(`^SCAN ${name}\\b(?!.*INDEX live_slices)`).test(detail)),
      );
  }

  /** The statements that some requests run. */
  async function statementsOf(work: () => Promise<unknown>, db: D1Database = env.DB): Promise<string[]> {
    const prepare = vi.spyOn(db, "prepare");
    await work();
    const statements = prepare.mock.calls.map(([sql]) => sql);
    prepare.mockRestore();
    return [...new Set(statements)];
  }

  let meter: { id: string; event_name: string };

  beforeAll(async () => {
    meter = await createdMeter();
    const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
    expect((await call("/v2/billing/meter_events", { body: event })).status).toBe(200);
    await eventually(async () => expect(await storedEvents(meter.id)).toBe(1));
  });

  const get = (path: string) => async () => expect((await call(path)).status).toBe(200);

  it.each<[string, () => Promise<unknown>]>([
    ["a page of meters", get("/v1/billing/meters")],
    ["a page of inactive meters", get("/v1/billing/meters?status=inactive")],
    ["a page of error reports", get("/v2/core/events")],
    ["a page of a meter's error reports", get("/v2/core/events?object_id=mtr_test_1")],
    ["a page of dead letters", get("/v1/edgemeter/dead_letters")],
    [
      "a summary",
      () => get(`/v1/billing/meters/${meter.id}/event_summaries?customer=cus_1&start_time=60&end_time=120`)(),
    ],
    ["a page of stored events", () => get(`/v1/billing/meter_events?meter=${meter.id}&customer=cus_1`)()],
    [
      "an event of a name that only inactive meters have",
      async () => {
        const meter = await createdMeter();
        await call(`/v1/billing/meters/${meter.id}/deactivate`, { method: "POST" });
        const event = { event_name: meter.event_name, payload: { stripe_customer_id: "cus_1", value: "1" } };
        expect((await call("/v2/billing/meter_events", { body: event })).status).toBe(400);
      },
    ],
    ["a key that is met first", async () => expect((await call(METERS, { key: aKey() })).status).toBe(401)],
  ])("is not read whole for %s", async (_, work) => {
    let asked = 0;
    for (const db of [env.DB, env.TEST_EVENTS]) {
      for (const sql of await statementsOf(work, db)) {
        expect({ sql, scanned: await scanned(sql, db) }).toEqual({ sql, scanned: [] });
        asked++;
      }
    }
    expect(asked).toBeGreaterThan(0);
  });

  it("is not read whole to delete what has expired, nor in one go", async () => {
    const { deleteExpiredResponses } = await import("../../../src/http/idempotent-answer.ts");
    const rows = 5_001;
    await env.DB.prepare(
      `INSERT INTO idempotency_keys (livemode, key, request, response, token, created) SELECT 0, 'expired ' || value, '', '', '', 0 FROM json_each(?)`,
    )
      .bind(JSON.stringify(Array.from({ length: rows }, (_, i) => i)))
      .run();
    const statements = await statementsOf(() => deleteExpiredResponses(env.DB, Date.now()));
    expect(statements).toHaveLength(1);
    for (const [sql, db] of [[statements[0] ?? "", env.DB] as const, [DELETE_REPORTS, env.TEST_EVENTS] as const]) {
      expect(sql).toMatch(/LIMIT \?/);
      expect(await scanned(sql, db)).toEqual([]);
    }
    const left = env.DB.prepare("SELECT COUNT(*) AS n FROM idempotency_keys WHERE key LIKE 'expired %'");
    expect(await left.first("n")).toBe(0);
  });
});
