import fc from "fast-check";
import type { Documented } from "../../../src/http/openapi.ts";
import { some, word } from "../draw.ts";
import * as hostile from "./hostile.ts";
import { type Mutation, mutate, mutation } from "./mutations.ts";
import type { Fields, FormStyle, Node } from "./nodes.ts";
import { foreignParameter, pathParameter, validFields } from "./valid-requests.ts";

/** A route to fuzz, as the API defines it. */
export type Route = {
  readonly method: string;
  /** With `{id}` for parameters. */
  readonly path: string;
  readonly apiVersion: "v1" | "v2";
  /** With the schemas of what it takes; a page has none. */
  readonly documented?: Pick<Documented, "fields">;
};

export type Mode = "test" | "live";

/** Credentials that look good and are not. */
export const BAD_CREDENTIALS = [
  "revoked",
  "unknown key",
  "truncated key",
  "expired token",
  "forged token",
  "unsigned token",
  "truncated token",
  "token for another audience",
] as const;

export type BadCredential = (typeof BAD_CREDENTIALS)[number];

/** Who calls. `may` is what a restricted key may do. */
export type Caller =
  | { readonly mode: Mode; readonly as: "bearer" | "basic"; readonly may?: "ingest" | "read" }
  /** A session's token where a key is due, or a key where a token is. */
  | { readonly mode: Mode; readonly as: "the other kind" }
  | { readonly bad: BadCredential }
  | { readonly header: string | null };

export type Content =
  | { readonly style: FormStyle | "json" }
  /** The first part of it, as if the rest had been lost. */
  | { readonly style: FormStyle | "json"; readonly cut: number }
  | { readonly text: string }
  | { readonly bytes: readonly number[] }
  /** Valid at first, then so long. */
  | { readonly padTo: number };

/** A body in pieces of so many bytes, each a moment after the one before; it may break off at the end. */
export type Pieces = { readonly bytes: number; readonly breaks: boolean };

export type FuzzedRequest = {
  readonly method: string;
  /** The endpoint's, or any other. */
  readonly path: string;
  /** What stands for the parameters of the path; encoded, or as it is. */
  readonly params: readonly Node[];
  readonly encoded: boolean;
  /** Behind the path. */
  readonly suffix: string;
  readonly caller: Caller;
  readonly fields: Fields;
  readonly content: Content;
  /** How a body comes in pieces; absent: in one. */
  readonly pieces: Pieces | undefined;
  readonly headers: Readonly<Record<string, string>>;
};

/** Values that a header may have: printable, and not so unlike what others send. */
const headerValue = fc.oneof(
  fc.constantFrom("0", "-1", "1", "x", "null", "application/json", "bytes=0-1", "' OR 1=1 --", "__proto__", "*/*"),
  fc.string({ unit: "grapheme-ascii", maxLength: 300 }).map((text) => text.trim()),
);

const fewKeys = fc.nat({ max: 200 }).map((n) => `key_${n}`);
const manyKeys = fc.bigInt({ min: 0n, max: 2n ** 60n }).map((n) => `key_${n.toString(36)}`);
const longKeys = fc.constantFrom(255, 256, 10_000).map((n) => "k".repeat(n));
const idempotencyKey = fc.oneof(some(3, fewKeys), some(2, manyKeys), some(1, longKeys), some(1, headerValue));

const CONTENT_TYPES = `
application/json|application/json; charset=utf-16|APPLICATION/JSON|application/x-www-form-urlencoded
application/x-www-form-urlencoded;a=b;;|multipart/form-data; boundary=x|text/plain|*/*|;
`
  .trim()
  .split(/[|\n]/);

const headers = fc
  .record(
    {
      "stripe-version": fc.oneof(fc.constant("2026-10-28.endive"), headerValue),
      "content-type": word(...CONTENT_TYPES),
      "content-length": fc.constantFrom("0", "1", "5", "99999999", "-1", "1e3", "x"),
      "content-encoding": fc.constantFrom("gzip", "br", "identity", "x"),
      "transfer-encoding": fc.constant("chunked"),
      accept: headerValue,
      range: headerValue,
      "if-none-match": headerValue,
      "x-http-method-override": fc.constantFrom("DELETE", "GET"),
      "x-forwarded-host": headerValue,
      "stripe-account": headerValue,
      expect: fc.constant("100-continue"),
    },
    { requiredKeys: [] },
  )
  // Most requests have few of them, and the right content type.
  .chain((all) => fc.subarray(Object.entries(all), { maxLength: Math.min(2, Object.keys(all).length) }))
  .map((entries) => Object.fromEntries(entries) as Record<string, string>);

const mode = fc.constantFrom<Mode>("test", "live");

const authorization = fc.oneof(
  fc.constantFrom(null, ...",Bearer,Bearer ,Basic,Basic Og==,Basic !!!!,Digest a=b,bearer token_".split(",")),
  headerValue.map((text) => `Bearer ${text}`),
  fc.base64String({ maxLength: 400 }).map((text) => `Basic ${text}`),
  fc.constantFrom(300, 10_000).map((n) => `Bearer sk_test_${"x".repeat(n)}`),
);

const caller: fc.Arbitrary<Caller> = fc.oneof(
  some(14, fc.record({ mode, as: word("bearer") })),
  some(2, fc.record({ mode, as: word("basic") })),
  some(2, fc.record({ mode, as: word("bearer"), may: word("ingest", "read") })),
  some(1, fc.record({ mode, as: word("the other kind") })),
  some(1, fc.record({ bad: word(...BAD_CREDENTIALS) })),
  some(1, fc.record({ header: authorization })),
);

const formStyle = fc.constantFrom<FormStyle>("node", "python", "raw");

/** A body in the encoding of its API version, mostly. */
const contentOf = (apiVersion: "v1" | "v2"): fc.Arbitrary<Content> => {
  const style = apiVersion === "v2" ? word("json") : formStyle;
  const padTo = fc.constantFrom(255_999, 256_000, 256_001, 999_999, 1_000_001, 1_200_000);
  return fc.oneof(
    some(20, fc.record({ style })),
    some(2, fc.record({ style, cut: fc.double({ min: 0, max: 1, noNaN: true }) })),
    some(1, fc.record({ style: apiVersion === "v2" ? formStyle : word("json") })),
    some(1, fc.record({ text: fc.oneof(hostile.text, fc.json()) })),
    some(1, fc.record({ bytes: fc.array(fc.nat({ max: 255 }), { maxLength: 40 }) })),
    some(1, fc.record({ padTo })),
  );
};

const METHODS = "GET POST PUT PATCH DELETE HEAD OPTIONS TRACE PURGE QUERY get PROPFIND".split(" ");

const longSuffix = fc.constantFrom(300, 9_000).map((n) => "/a".repeat(n));
const suffix = fc.oneof(
  some(25, word("")),
  some(1, word(..."/ // /.. /%2e%2e /%2F %00 % %ff ;a=b /../../v2/core/events #x ? ?a ?a=1&a=2".split(" "))),
  some(1, longSuffix),
);

/** A request to a route: valid but for a few changes, and sometimes for none. */
function requestTo(route: Route): fc.Arbitrary<FuzzedRequest> {
  const { method, path, apiVersion } = route;
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name);
  const param = (name: string): fc.Arbitrary<Node> =>
    fc.oneof(some(8, pathParameter(method, path, name)), some(2, foreignParameter), some(1, hostile.text));
  const mutations: fc.Arbitrary<readonly Mutation[]> = fc.oneof(
    some(3, fc.constant([])),
    some(5, fc.array(mutation, { minLength: 1, maxLength: 3 })),
  );
  return fc
    .record({
      method: fc.oneof(some(30, fc.constant(method.toUpperCase())), some(1, fc.constantFrom(...METHODS))),
      params: fc.tuple(...names.map(param)),
      encoded: fc.boolean(),
      suffix,
      caller,
      valid: validFields(route),
      mutations,
      content: contentOf(apiVersion),
      pieces: fc.oneof(
        some(8, fc.constant(undefined)),
        some(1, fc.record({ bytes: fc.constantFrom(1, 7, 1_000), breaks: fc.boolean() })),
      ),
      key: fc.option(idempotencyKey, { nil: undefined, freq: 3 }),
      headers: fc.oneof(some(2, fc.constant({})), some(1, headers)),
    })
    .map(({ valid, mutations, key, headers, ...request }) => ({
      ...request,
      path,
      fields: mutations.reduce(mutate, valid),
      headers: key === undefined ? headers : { ...headers, "idempotency-key": key },
    }));
}

/** Paths that lead nowhere, or nearly somewhere. */
const strayPath = fc.oneof(
  fc.constantFrom(
    ...`
/ /v1 /v2/ //v1/billing/meters /V1/billing/meters /v1/billing/meters%2F /v1%2Fbilling%2Fmeters
/%76%32/billing/meter_events /v1/./billing/../billing/meters /v1/billing/meters/{id}/deactivate
/v1/billing/alerts /v2/core/event_destinations /favicon.ico /__proto__ /cdn-cgi/handler/scheduled /v2/%E0%A4%A
`
      .trim()
      .split(/\s+/),
    "/v1/billing/meters/\ud800",
  ),
  hostile.text.map((text) => `/${text}`),
  hostile.text.map((text) => `/v1/billing/meters/${text}`),
  hostile.text.map((text) => `/v2/${text}`),
);

const strayRequest = fc
  .tuple(strayPath, fc.constantFrom(...METHODS), fc.constantFrom<"v1" | "v2">("v1", "v2"))
  .chain(([path, method, apiVersion]) => requestTo({ method: method.toLowerCase(), path, apiVersion }));

/** Any request, to each route as often as to any other; seldom to the pages beside them. */
export const requestToAnyOf = (routes: readonly Route[], pages: readonly Route[]): fc.Arbitrary<FuzzedRequest> =>
  fc.oneof(
    some(4 * routes.length, fc.constantFrom(...routes).chain(requestTo)),
    some(4, strayRequest),
    some(1, fc.constantFrom(...pages).chain(requestTo)),
  );
