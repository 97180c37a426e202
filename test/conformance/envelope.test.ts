import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { gzipSync } from "node:zlib";
import Stripe from "stripe";
import { describe, expect, it } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { createMeter, raw, refusal, stripe, stripeClient, unique, url } from "./client.ts";

const V1 = "/v1/billing/meters";
const V2 = "/v2/billing/meter_events";

const PAYLOAD = { stripe_customer_id: "cus_1", value: "1" };

const formOf = (name: string): string =>
  String(new URLSearchParams({ event_name: name, "payload[stripe_customer_id]": "cus_1", "payload[value]": "1" }));

describe("C4 every answer", () => {
  it.each([
    ["GET", "/v1/nothing", 404],
    ["GET", "/", 404],
    ["GET", "/v2/nothing", 404],
    ["DELETE", V1, 405],
    ["PUT", V2, 405],
    ["GET", V2, 405],
    ["PATCH", `${V1}/mtr_test_1`, 405],
    ["OPTIONS", V1, 405],
  ])("C4.1 to %s %s is an error of its API version", async (method, path, expected) => {
    const { status, error, headers } = await raw(path, { method });
    expect(status).toBe(expected);
    expect(headers.get("content-type")).toBe("application/json");
    expect(headers.get("request-id")).toMatch(/^req_/);
    if (path.startsWith("/v2")) expect(error).toMatchObject({ code: expect.any(String), message: expect.any(String) });
    else expect(error).toMatchObject({ type: "invalid_request_error", message: expect.any(String) });
    if (expected === 405) expect(headers.get("allow")).toBeTruthy();
  });

  it.each([
    ["not JSON", { body: "{", headers: { "content-type": "application/json" } }, 400],
    ["an array", { json: [] }, 400],
    ["null", { json: null }, 400],
    ["a number", { json: 5 }, 400],
    ["empty", { method: "POST" }, 400],
    ["a form", { form: "event_name=a" }, 415],
    ["text", { body: "{}", headers: { "content-type": "text/plain" } }, 415],
    [
      "broken UTF-8",
      { body: new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), headers: { "content-type": "application/json" } },
      400,
    ],
    [
      "deeply nested",
      { body: `${"[".repeat(100_000)}${"]".repeat(100_000)}`, headers: { "content-type": "application/json" } },
      400,
    ],
    [
      "too large",
      { body: `{"event_name":"${"x".repeat(256_000)}"}`, headers: { "content-type": "application/json" } },
      413,
    ],
  ])("C4.2 to a v2 body that is %s is a clear error", async (_, call, expected) => {
    const { status, error } = await raw(V2, call);
    expect(status).toBe(expected);
    expect(error).toMatchObject({ code: "invalid_fields", message: expect.any(String) });
  });

  it("C4.3 to a body without a length is counted as it comes", async () => {
    const chunk = new TextEncoder().encode(" ".repeat(65_536));
    let chunks = 0;
    const body = new ReadableStream({
      pull: (controller) => (chunks++ < 50 ? controller.enqueue(chunk) : controller.close()),
    });
    const { status } = await raw(V2, { method: "POST", body, headers: { "content-type": "application/json" } });
    expect(status).toBe(413);
  });

  it.each([
    ["JSON", { json: { display_name: "x" } }, 415],
    ["too large", { form: `display_name=${"x".repeat(256_000)}` }, 413],
    ["too deep", { form: "a[b][c][d][e][f]=1" }, 400],
    ["too many", { form: Array.from({ length: 300 }, (_, i) => `p${i}=1`).join("&") }, 400],
    ["empty", { method: "POST" }, 400],
  ])("C4.4 to a v1 body that is %s is a clear error", async (_, call, expected) => {
    const { status, error } = await raw(V1, call);
    expect(status).toBe(expected);
    expect(error).toMatchObject({ type: "invalid_request_error", message: expect.any(String) });
  });

  it.each([
    ["v2", V2, "application/json", (name: string) => JSON.stringify({ event_name: name, payload: PAYLOAD })],
    ["v1", "/v1/billing/meter_events", "application/x-www-form-urlencoded", formOf],
  ])("C4.6 to a %s body in gzip is that to what it holds", async (_, path, type, write) => {
    const meter = await createMeter();
    const send = (body: string, encoding = "gzip") =>
      raw(path, {
        body: new Uint8Array(gzipSync(body)),
        headers: { "content-type": type, "content-encoding": encoding },
      });
    expect((await send(write(meter.event_name))).status).toBe(200);
    expect(await send("x".repeat(50_000_000))).toMatchObject({
      status: 413,
      error: { message: expect.stringContaining("256000") },
    });
    const other = await send(write(meter.event_name), "br");
    expect(other.status).toBe(415);
    expect(other.headers.get("accept-encoding")).toBe("gzip");
  });

  it.each(["Stripe-Account", "Stripe-Context"])(
    "C4.7 to a request with %s is a refusal, on every route",
    async (name) => {
      for (const path of [V1, V2, "/v1/nothing", "/v1/edgemeter/pipeline", "/health", "/openapi.json"]) {
        const { status, error } = await raw(path, {
          headers: { [name]: "acct_1" },
          ...(path === V2 ? { json: {} } : {}),
        });
        expect({ status, error }).toMatchObject({ status: 400, error: { message: expect.stringContaining(name) } });
      }
    },
  );

  it("C4.8 has the version that the service is written against, whatever was asked for", async () => {
    for (const version of [undefined, "2024-06-20", "2025-03-31.basil", "2026-08-26.preview; some_beta=v2"]) {
      const { status, headers } = await raw(
        V1,
        version === undefined ? {} : { headers: { "stripe-version": version } },
      );
      expect([status, headers.get("stripe-version")], version).toEqual([200, "2026-10-28.endive"]);
    }
    for (const version of ["banana", "2024-6-20", "2024-13-01", "2024-06-20.", "1"]) {
      const { status, headers, error } = await raw(V1, { headers: { "stripe-version": version } });
      expect([status, headers.get("stripe-version")], version).toEqual([400, "2026-10-28.endive"]);
      expect(error.message).toContain("Stripe-Version");
    }
  });

  it("C4.9 is kept by no cache and guessed by no browser, but for the pages of the description", async () => {
    for (const path of [V1, "/v1/nothing", "/v2/nothing", "/health"]) {
      const { headers } = await raw(path);
      expect([headers.get("cache-control"), headers.get("x-content-type-options")]).toEqual(["no-store", "nosniff"]);
    }
    for (const path of ["/docs", "/openapi.json"]) {
      const { headers } = await fetch(url + path);
      expect(headers.get("cache-control")).toBe("public, max-age=300");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
    }
  });

  it("C4.10 to a v2 400 or 404 has the type that SDKs of every age need", async () => {
    const refused = [
      await raw(V2, { json: { event_name: unique("nobody"), payload: PAYLOAD } }),
      await raw(V2, { json: {} }),
      await raw(V2, { body: "{", headers: { "content-type": "application/json" } }),
      await raw("/v2/core/events/evt_test_nobody"),
      await raw("/v2/nothing"),
    ];
    for (const { error } of refused) expect(error.type).toBe("invalid_request_error");
  });

  it("C4.5 echoes the headers that the SDKs read", async () => {
    const { lastResponse } = await stripe.billing.meters.list({ limit: 1 });
    expect(lastResponse.requestId).toMatch(/^req_/);
    expect(lastResponse.apiVersion).toMatch(/^\d{4}-/);
    const { headers } = await raw("/v1/nothing", {
      headers: { "idempotency-key": "abc", "stripe-version": "2026-10-28.endive" },
    });
    expect(headers.get("idempotency-key")).toBe("abc");
    expect(headers.get("stripe-version")).toBe("2026-10-28.endive");
    const long = await raw(V2, { json: {}, headers: { "idempotency-key": "x".repeat(256) } });
    expect(long).toMatchObject({ status: 400, error: { code: "invalid_fields" } });
  });
});

describe("C5 keys", () => {
  it.each([
    ["none", null],
    ["an unknown", "sk_test_nobody_has_this_one"],
    ["a malformed", "nonsense"],
    ["a publishable", "pk_test_edgemeter_local"],
    ["an empty", ""],
    ["a hostile", "sk_test_' OR 1=1 --"],
  ])("C5.1 with %s key, both doors answer 401", async (_, key) => {
    for (const path of [V1, V2]) {
      const { status, error } = await raw(path, { key, ...(path === V2 ? { json: {} } : {}) });
      expect(status).toBe(401);
      expect(error).toMatchObject({ message: expect.stringContaining("API") });
    }
  });

  it("C5.2 the SDK makes it an authentication error, in v1 and v2", async () => {
    const stranger = stripeClient("sk_test_nobody_has_this_one");
    expect(await refusal(stranger.billing.meters.list())).toBeInstanceOf(Stripe.errors.StripeAuthenticationError);
    const call = stranger.v2.billing.meterEvents.create({ event_name: "x", payload: {} });
    expect(await refusal(call)).toBeInstanceOf(Stripe.errors.StripeAuthenticationError);
  });

  it("C5.3 work as the user name of Basic auth", async () => {
    const basic = (user: string) => ({ authorization: `Basic ${Buffer.from(`${user}:`).toString("base64")}` });
    expect((await raw(V1, { key: null, headers: basic(LOCAL_KEYS.test) })).status).toBe(200);
    expect((await raw(V1, { key: null, headers: basic("nobody") })).status).toBe(401);
  });
});

describe("C6 the description", () => {
  it("C6.1 is OpenAPI 3.1 and names every route that answers", async () => {
    const document = JSON.parse((await raw("/openapi.json", { key: null })).text);
    expect(document.openapi).toBe("3.1.0");
    const meter = await createMeter();
    for (const [path, methods] of Object.entries<Record<string, unknown>>(document.paths)) {
      for (const method of Object.keys(methods)) {
        const { error } = await raw(path.replace(/\{\w+\}/, meter.id), { method: method.toUpperCase() });
        expect(error.message ?? "", `${method} ${path}`).not.toContain("Unrecognized request");
      }
    }
    expect(Object.keys(document.paths)).toEqual(expect.arrayContaining([V2, "/health"]));
  });

  it("C6.2 has a page that needs nothing from elsewhere", async () => {
    const response = await fetch(`${url}/docs`);
    const page = await response.text();
    expect(response.headers.get("content-type")).toContain("text/html");
    expect(page).toContain(V2);
    expect(page).not.toMatch(/<script|<link|https?:\/\/|style=/);
    // Its policy allows its own style and nothing else.
    const style = /<style>([\s\S]*?)<\/style>/.exec(page)?.[1] ?? "";
    const hash = createHash("sha256").update(style).digest("base64");
    expect(response.headers.get("content-security-policy")).toBe(
      `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    );
  });
});

describe("C6 the description, as the server behaves", () => {
  type Schema = {
    type?: string | string[];
    required?: string[];
    maxLength?: number;
    maxProperties?: number;
    maxItems?: number;
    properties?: Record<string, Schema>;
    items?: Schema;
    propertyNames?: Schema;
    additionalProperties?: Schema;
  };
  const described = async () => JSON.parse((await raw("/openapi.json", { key: null })).text);
  const bodyOf = (document: { paths: Record<string, Record<string, unknown>> }, path: string): Schema => {
    const operation = document.paths[path]?.post as { requestBody: { content: Record<string, { schema: Schema }> } };
    return Object.values(operation.requestBody.content)[0]?.schema ?? {};
  };

  it("C6.3 names what an event needs and how long each part may be", async () => {
    const document = await described();
    const streamed = bodyOf(document, "/v2/billing/meter_event_stream").properties?.events;
    expect(streamed).toMatchObject({ minItems: 1, maxItems: 100 });
    for (const schema of [bodyOf(document, V2), bodyOf(document, "/v1/billing/meter_events"), streamed?.items]) {
      expect(schema).toMatchObject({
        required: ["event_name", "payload"],
        properties: {
          event_name: { minLength: 1, maxLength: 100 },
          identifier: { minLength: 1, maxLength: 100 },
          payload: {
            maxProperties: 50,
            propertyNames: { minLength: 1, maxLength: 100 },
            additionalProperties: { maxLength: 500 },
          },
        },
      });
    }
    expect(bodyOf(document, V1).properties?.display_name).toMatchObject({ maxLength: 250 });
  });

  it("C6.4 has the version of the package", async () => {
    const { version } = JSON.parse(await readFile(path.join(import.meta.dirname, "../../package.json"), "utf8"));
    expect((await described()).info.version).toBe(version);
  });
});

describe("C7 nothing secret", () => {
  it("C7.1 is told: errors name no key", async () => {
    const key = `sk_test_${unique("secret").replaceAll("-", "_")}`;
    expect((await raw(V1, { key })).text).not.toContain(key);
  });
});
