// Every endpoint against every kind of key. What is added to src/http/endpoints.ts is tested with it.
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { hashOf } from "../../../src/catalog/key-hash.ts";
import { GRANTS, type Permissions, UNRESTRICTED, writePermissions } from "../../../src/domain/permissions.ts";
import type { Endpoint } from "../../../src/http/endpoint.ts";
import { allEndpoints } from "../../../src/http/endpoints.ts";
import { descriptionOf } from "../../../src/http/openapi.ts";
import { issueSession } from "../../../src/http/session-token.ts";
import { unique } from "../../support/builders.ts";
import { answerOf, call } from "../support.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

type Row = { permissions?: string; livemode?: 0 | 1; revoked?: boolean };

/** A key as it would be stored, with the secret as given. */
async function store(
  secret: string,
  { permissions = "ingest read manage", livemode = 0, revoked = false }: Row = {},
): Promise<{ secret: string; id: string }> {
  const id = unique("key");
  await env.DB.prepare(
    `INSERT INTO api_keys (hash, id, number, name, livemode, created, revoked_at, permissions)
     SELECT ?, ?, MAX(number) + 1, 'test', ?, 0, ?, ? FROM api_keys`,
  )
    .bind(hashOf(secret), id, livemode, revoked ? 1 : null, permissions)
    .run();
  return { secret, id };
}

const newSecret = (prefix: string): string => `${prefix}_${unique("permissions")}_0123456789`;

const fullKey = (): Promise<{ secret: string; id: string }> => store(newSecret("sk_test"));

const restrictedKey = (grant: keyof typeof GRANTS): Promise<{ secret: string; id: string }> =>
  store(newSecret("rk_test"), { permissions: writePermissions(GRANTS[grant]) });

/** What an endpoint says to a key, called with nothing that it could do. */
async function tried(
  { method, path }: Pick<Endpoint, "method" | "path">,
  key: string,
): Promise<{ status: number; error: Record<string, unknown> }> {
  const { status, body } = await answerOf(path.replaceAll(/\{\w+\}/g, "unknown"), {
    method: method.toUpperCase(),
    key,
  });
  return { status, error: (body.error ?? {}) as Record<string, unknown> };
}

const named = (endpoints: readonly Endpoint[]): [string, Endpoint][] =>
  endpoints.map((endpoint) => [`${endpoint.method.toUpperCase()} ${endpoint.path}`, endpoint]);

const ENDPOINTS = await allEndpoints();
const KEYED = named(ENDPOINTS.filter(({ auth }) => auth !== "session"));
const STREAMING = named(ENDPOINTS.filter(({ auth }) => auth === "session"));

const TYPE = { v1: { type: "invalid_request_error" }, v2: { code: "unauthorized" } };
const FORBIDDEN = { v1: { type: "invalid_request_error" }, v2: { code: "forbidden" } };

describe.each(KEYED)("%s", (_, endpoint) => {
  const { apiVersion, needs } = endpoint;

  it("is closed to whoever has no key that works", async () => {
    const { secret: revoked } = await store(newSecret("sk_test"), { revoked: true });
    for (const key of ["", "nonsense", newSecret("sk_test"), newSecret("rk_live"), revoked]) {
      expect(await tried(endpoint, key)).toMatchObject({ status: 401, error: TYPE[apiVersion] });
    }
  });

  it.each<[string, string, Permissions]>([
    ["an unrestricted key", "sk_test", UNRESTRICTED],
    ["an unrestricted key that may operate", "sk_test", new Set([...UNRESTRICTED, "operate"])],
    ["a key to ingest", "rk_test", GRANTS.ingest],
    ["a key to read", "rk_test", GRANTS.read],
    ["a key to operate", "rk_test", GRANTS.operate],
  ])("is open to %s if that may what it needs", async (_, prefix, permissions) => {
    const { secret } = await store(newSecret(prefix), { permissions: writePermissions(permissions) });
    const { status, error } = await tried(endpoint, secret);
    if (permissions.has(needs)) {
      expect(status).not.toBe(401);
      expect(error.message ?? "").not.toContain("may not make this call");
    } else {
      expect({ status, error }).toMatchObject({ status: 403, error: FORBIDDEN[apiVersion] });
      expect(error.message).toContain(needs === "manage" ? "unrestricted key" : `'${needs}'`);
      expect(JSON.stringify(error)).not.toContain(secret);
    }
  });

  it("says in the API's description which keys it needs", () => {
    expect(descriptionOf(endpoint.documented)).toMatch(
      needs === "manage" ? /Needs an unrestricted key/ : new RegExp(`Needs a key with the permission \`${needs}\``),
    );
  });
});

describe.each(STREAMING)("%s", (_, endpoint) => {
  it("is closed to every API key, and open to a session of one that may ingest", async () => {
    const { secret, id } = await restrictedKey("ingest");
    for (const key of ["", (await fullKey()).secret, secret, (await restrictedKey("read")).secret]) {
      expect(await tried(endpoint, key)).toMatchObject({ status: 401, error: { code: "unauthorized" } });
    }
    const session = await issueSession({ id, livemode: false }, env.SESSION_SECRET, Date.now());
    expect((await tried(endpoint, session.ok ? session.value.token : "")).status).toBe(400);
  });

  it("is closed to a session whose key may not ingest", async () => {
    const { id } = await restrictedKey("read");
    const session = await issueSession({ id, livemode: false }, env.SESSION_SECRET, Date.now());
    expect((await tried(endpoint, session.ok ? session.value.token : "")).status).toBe(401);
  });
});

describe("restricted keys", () => {
  it("may read with every GET, ingest with no other POST than those of events, and operate with edgemeter's own", () => {
    const open = (needs: string) =>
      named(ENDPOINTS.filter((endpoint) => endpoint.needs === needs))
        .map(([name]) => name)
        .sort();
    expect(open("read")).toEqual(
      named(ENDPOINTS.filter(({ method }) => method === "get"))
        .map(([name]) => name)
        .sort(),
    );
    expect(open("ingest")).toEqual([
      "POST /v1/billing/meter_event_adjustments",
      "POST /v1/billing/meter_events",
      "POST /v2/billing/meter_event_adjustments",
      "POST /v2/billing/meter_event_session",
      "POST /v2/billing/meter_event_stream",
      "POST /v2/billing/meter_events",
    ]);
    expect(open("operate")).toEqual([
      "POST /v1/edgemeter/archive_audit",
      "POST /v1/edgemeter/audit",
      "POST /v1/edgemeter/dead_letters/{id}/discard",
      "POST /v1/edgemeter/dead_letters/{id}/redrive",
      "POST /v1/edgemeter/erasures",
      "POST /v1/edgemeter/resend",
      "POST /v1/edgemeter/restore",
    ]);
  });

  it("that are revoked end their sessions too, at most the ten seconds of the cache later", async () => {
    const { secret: key, id } = await restrictedKey("ingest");
    const session = await answerOf("/v2/billing/meter_event_session", { key, body: {} });
    const stream = { key: String(session.body.authentication_token), body: { events: [] } };
    expect((await call("/v2/billing/meter_event_stream", stream)).status).toBe(400);
    await env.DB.prepare("UPDATE api_keys SET revoked_at = 1 WHERE id = ?").bind(id).run();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 10_001 });
    expect((await call("/v2/billing/meter_event_stream", stream)).status).toBe(401);
    expect((await tried({ method: "post", path: "/v2/billing/meter_events" }, key)).status).toBe(401);
  });

  it("are refused before they use up the limit of live events", async () => {
    const { secret } = await store(newSecret("rk_live"), { permissions: "read", livemode: 1 });
    const limit = vi.spyOn(env.SYNC_EVENTS_LIMIT as RateLimit, "limit");
    expect((await tried({ method: "post", path: "/v2/billing/meter_events" }, secret)).status).toBe(403);
    expect(limit).not.toHaveBeenCalled();
  });
});

describe("a key whose prefix and row disagree is no key:", () => {
  it.each<[string, Row]>([
    ["sk_live", {}],
    ["sk_test", { permissions: "ingest" }],
    ["sk_test", { permissions: "read" }],
    ["sk_test", { permissions: "read operate" }],
    ["sk_live", { permissions: "read", livemode: 1 }],
    ["rk_test", {}],
    ["rk_test", { permissions: "ingest read manage operate" }],
    ["rk_live", { livemode: 1 }],
    ["rk_test", { permissions: "read", livemode: 1 }],
    ["rk_live", { permissions: "ingest" }],
    ["rk_test", { permissions: "all" }],
    ["sk_test", { permissions: "all" }],
    ["sk_test", { permissions: "ingest read manage fly" }],
    ["rk_test", { permissions: "" }],
    ["rk_test", { permissions: "READ" }],
    ["pk_test", { permissions: "read" }],
  ])("%s_… with %j", async (prefix, row) => {
    const { secret } = await store(newSecret(prefix), row);
    for (const [, endpoint] of KEYED.slice(0, 3)) expect((await tried(endpoint, secret)).status).toBe(401);
  });
});
