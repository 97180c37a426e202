import * as z from "zod";
import type { LimitClass } from "../catalog/rate-limits.ts";
import type { Permission } from "../domain/permissions.ts";
import type { ApiVersion } from "./errors.ts";

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

/** A JSON Schema, or another part of the document. */
type Part = Readonly<Record<string, unknown>>;

/** A path's methods, each as the document has it. */
export type Operations = Readonly<Record<string, Part>>;

/** The OpenAPI document of the endpoints, and of other paths, as a version of edgemeter has them. */
export function describeApi(
  endpoints: readonly Documented[],
  others: Readonly<Record<string, Operations>>,
  version: string,
): Part {
  const schemas = new Schemas();
  const paths: Record<string, Operations> = {};
  for (const endpoint of endpoints) {
    const { path, method } = endpoint;
    paths[path] = { ...paths[path], [method]: operationOf(endpoint, schemas) };
  }
  const securitySchemes = { key: KEY_SECURITY, session: SESSION_SECURITY };
  return {
    ...API_INFO,
    info: { ...API_INFO.info, version },
    paths: { ...paths, ...others },
    components: { securitySchemes, schemas: schemas.named },
  };
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

/** An endpoint with its schemas. */
export type Documented = Described & {
  /** Parts of the path. */
  readonly params: z.ZodObject;
  /** Parameters of the query (GET) or of the body (POST). */
  readonly fields: z.ZodObject;
  readonly headers: z.ZodObject | undefined;
  readonly response: z.ZodType;
  readonly responseHeaders: z.ZodObject | undefined;
};

/** An object's schema, as zod writes it. */
type ObjectSchema = { readonly properties?: Readonly<Record<string, Part>>; readonly required?: readonly string[] };

/** Schemas of the document. Those that have an `id` stand under their names and are referred to. */
class Schemas {
  readonly named: Record<string, unknown> = {};

  of(schema: z.ZodType): ObjectSchema & Part {
    // What a caller sends; responses have the same schema both ways, and may get more fields.
    const written = schema.toJSONSchema({ io: "input", unrepresentable: "any", override: adjust });
    const {
      $schema: _,
      $defs = {},
      ...own
    } = JSON.parse(JSON.stringify(written).replaceAll('"#/$defs/', '"#/components/schemas/'));
    Object.assign(this.named, $defs);
    return own;
  }
}

type Written = { readonly zodSchema: z.core.$ZodType; readonly jsonSchema: z.core.JSONSchema.BaseSchema };

/** Leaves out what zod writes too much of, the pattern of a format and the bounds of an integer, and adds the default that it leaves out. */
function adjust({ zodSchema, jsonSchema }: Written): void {
  if (jsonSchema.format !== undefined || jsonSchema.type === "integer") delete jsonSchema.pattern;
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  const { default: usual } = z.globalRegistry.get(zodSchema) ?? {};
  if (usual !== undefined) jsonSchema.default = usual;
}

/** The part of the OpenAPI document that an endpoint's definition makes. */
function operationOf(endpoint: Documented, schemas: Schemas): Part {
  const { apiVersion, method, summary, tag, auth, params, fields, headers, response, responseHeaders } = endpoint;
  const contentType = apiVersion === "v1" ? "application/x-www-form-urlencoded" : "application/json";
  const error = { description: "An error", ...jsonOf(schemas.of(apiVersion === "v1" ? V1_ERROR : V2_ERROR)) };
  const input = schemas.of(fields);
  return {
    summary,
    tags: [tag],
    ...(auth === "session" ? { security: [{ session: [] }] } : {}),
    description: descriptionOf(endpoint),
    parameters: [
      ...parametersOf(schemas.of(params), "path"),
      ...(headers === undefined ? [] : parametersOf(schemas.of(headers), "header")),
      ...(method === "get" ? parametersOf(input, "query") : []),
    ],
    ...(method === "get" ? {} : { requestBody: { content: { [contentType]: { schema: input } } } }),
    responses: {
      200: {
        description: "Success",
        ...jsonOf(schemas.of(response)),
        ...(responseHeaders === undefined ? {} : { headers: headersOf(schemas.of(responseHeaders)) }),
      },
      "4XX": error,
      503: { ...error, description: "Not finished; `stripe-should-retry: true`" },
    },
  };
}

const jsonOf = (schema: Part) => ({ content: { "application/json": { schema } } });

const parametersOf = ({ properties = {}, required = [] }: ObjectSchema, place: "path" | "header" | "query"): Part[] =>
  Object.entries(properties).map(([name, schema]) => {
    const { description } = schema;
    return { name, in: place, required: required.includes(name), description, schema };
  });

const headersOf = ({ properties = {}, required = [] }: ObjectSchema): Part =>
  Object.fromEntries(
    Object.entries(properties).map(([name, schema]) => [name, { required: required.includes(name), schema }]),
  );

/** An endpoint's description, and after it who may call it, how often, and its error codes. */
export const descriptionOf = ({ description, auth, needs, limit, errors = [] }: Described): string =>
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
  .meta({ id: "V1Error" });

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
  .meta({ id: "V2Error" });
