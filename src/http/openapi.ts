import { OpenAPIRegistry, OpenApiGeneratorV31, type RouteConfig as Route } from "@asteasolutions/zod-to-openapi";
import type { LimitClass } from "../catalog/rate-limits.ts";
import type { Permission } from "../domain/permissions.ts";
import type { ApiVersion } from "./errors.ts";
import * as z from "./zod.ts";

/** The head of the OpenAPI document, but for its version. */
const API_INFO = {
  openapi: "3.1.0",
  info: {
    title: "edgemeter",
    description:
      "Usage metering that speaks Stripe's Billing Meter APIs. v1 takes forms and unix seconds, v2 takes JSON and RFC 3339. Every error is an `error` object.",
    license: { name: "Apache-2.0", identifier: "Apache-2.0" },
  },
  security: [{ key: [] }],
};

/** How callers authenticate, with an API key. */
export const KEY_SECURITY = {
  type: "http" as const,
  scheme: "bearer",
  description:
    "An API key, `sk_test_…` or `sk_live_…`; its prefix is the mode. A restricted key, `rk_test_…` or `rk_live_…`, is made for one purpose, `ingest`, `read` or `operate`; other calls get a 403. Requests past a key's limits get a 429. Basic auth with the key as user name works too.",
};

const SESSION_SECURITY = {
  type: "http" as const,
  scheme: "bearer",
  description: "The `authentication_token` of a meter event session. It lasts 15 minutes.",
};

/** The OpenAPI document of some routes, as a version of edgemeter has them. */
export function describeApi(routes: readonly Route[], version: string) {
  const registry = new OpenAPIRegistry();
  for (const route of routes) registry.registerPath(route);
  registry.registerComponent("securitySchemes", "key", KEY_SECURITY);
  registry.registerComponent("securitySchemes", "session", SESSION_SECURITY);
  return new OpenApiGeneratorV31(registry.definitions).generateDocument({
    ...API_INFO,
    info: { ...API_INFO.info, version },
  });
}

/** What an endpoint's definition says of it to readers. */
export type Described = {
  readonly apiVersion: ApiVersion;
  readonly method: "get" | "post";
  /** With `{id}` for parameters. */
  readonly path: string;
  readonly summary: string;
  readonly description?: string;
  readonly tag: string;
  /** Codes of its own. */
  readonly errors?: readonly string[];
  /** Who may call: holders of an API key, unless given, or of a session's token. */
  readonly auth?: "key" | "session";
  /** What the caller's key must be allowed to. */
  readonly needs: Permission;
  /** Which limit per key its calls count against. */
  readonly limit: LimitClass;
};

/** The schemas of an endpoint. */
type Schemas = {
  /** Parts of the path. */
  readonly params: z.ZodObject;
  /** Parameters of the query (GET) or of the body (POST). */
  readonly fields: z.ZodObject;
  readonly headers: z.ZodObject | undefined;
  readonly response: z.ZodType;
  readonly responseHeaders: z.ZodObject | undefined;
};

/** The part of the OpenAPI document that an endpoint's definition makes. */
export function describeRoute(
  endpoint: Described,
  { params, fields, headers, response, responseHeaders }: Schemas,
): Route {
  const { apiVersion, method, path, summary, tag, auth } = endpoint;
  const contentType = apiVersion === "v1" ? "application/x-www-form-urlencoded" : "application/json";
  const error = {
    description: "An error",
    content: { "application/json": { schema: apiVersion === "v1" ? V1_ERROR : V2_ERROR } },
  };
  return {
    method,
    path,
    summary,
    tags: [tag],
    ...(auth === "session" ? { security: [{ session: [] }] } : {}),
    description: descriptionOf(endpoint),
    request: {
      ...(Object.keys(params.shape).length > 0 ? { params } : {}),
      ...(headers === undefined ? {} : { headers }),
      ...(method === "get" ? { query: fields } : { body: { content: { [contentType]: { schema: fields } } } }),
    },
    responses: {
      200: {
        description: "Success",
        content: { "application/json": { schema: response } },
        ...(responseHeaders === undefined ? {} : { headers: responseHeaders }),
      },
      "4XX": error,
      503: { ...error, description: "Not finished; `stripe-should-retry: true`" },
    },
  };
}

/** An endpoint's description, and after it who may call it, how often, and its error codes. */
const descriptionOf = ({ description, auth, needs, limit, errors = [] }: Described): string =>
  [
    description,
    auth === "session" ? undefined : NEEDED[needs],
    LIMIT[limit],
    errors.length > 0 ? `Error codes: ${errors.map((code) => `\`${code}\``).join(", ")}.` : undefined,
  ]
    .filter((part) => part !== undefined)
    .join("\n\n");

/** Which keys may make a call, by what it needs. */
const NEEDED: Readonly<Record<Permission, string>> = {
  ingest: "Needs a key with the permission `ingest`, or an unrestricted one.",
  read: "Needs a key with the permission `read` or `operate`, or an unrestricted one.",
  manage: "Needs an unrestricted key.",
  operate: "Needs a key with the permission `operate`, which unrestricted keys do not have.",
};

/** How often a key may make calls of a class, as wrangler.toml has it. */
const LIMIT: Readonly<Record<LimitClass, string>> = {
  sync_events: "At most 10,000 events and cancellations in 10 seconds per key.",
  streams: "At most 100,000 requests in 10 seconds per key.",
  reads: "At most 10,000 reads in 10 seconds per key.",
  administration: "At most 1,000 changes in 10 seconds per key.",
};

const V1_ERROR = z
  .object({
    error: z.object({
      type: z.string(),
      message: z.string(),
      code: z.string().optional(),
      param: z.string().optional(),
      doc_url: z.string().optional(),
    }),
  })
  .openapi("V1Error");

const V2_ERROR = z
  .object({
    error: z.object({
      code: z.string(),
      message: z.string(),
      type: z.string().optional(),
      param: z.string().optional(),
      doc_url: z.string().optional(),
    }),
  })
  .openapi("V2Error");
