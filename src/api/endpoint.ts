import { createRoute, type RouteConfig, z } from "@hono/zod-openapi";
import type { Env, Execution } from "../env.ts";
import type { MeteringError } from "../metering/errors.ts";
import { LIMITS } from "../metering/limits.ts";
import { err, ok, type Result } from "../metering/result.ts";
import type { ApiKey } from "../storage/keys.ts";
import { parseForm, readBody } from "./body.ts";
import type { ApiError, Door } from "./errors.ts";

/** One call of an endpoint, authenticated and with its input checked. */
export type Call<Input> = {
  readonly input: Input;
  /** Method and path, as defined: what an Idempotency-Key belongs to. */
  readonly endpoint: string;
  readonly key: ApiKey;
  readonly env: Env;
  readonly execution: Execution;
  /** When the request came in (ms). */
  readonly now: number;
  readonly idempotencyKey: string | undefined;
};

/** The JSON text of a 200, or what went wrong. */
export type Answer = Result<string, ApiError>;

type Shape = z.ZodRawShape;

type InputOf<Params extends Shape, Fields extends Shape> = z.output<z.ZodObject<Params>> &
  z.output<z.ZodObject<Fields>>;

type Definition<Params extends Shape, Fields extends Shape> = {
  readonly door: Door;
  readonly method: "get" | "post";
  /** With `{id}` for parameters. */
  readonly path: string;
  readonly summary: string;
  readonly description?: string;
  readonly tag: string;
  /** Parts of the path. */
  readonly params?: Params;
  /** Parameters of the query (GET) or of the body (POST). */
  readonly fields: Fields;
  readonly response: z.ZodType;
  /** Codes of its own, for the description. */
  readonly errors?: readonly string[];
  /** Whether calls count against the limit of events per live key. */
  readonly limited?: boolean;
  readonly handle: (call: Call<InputOf<Params, Fields>>) => Promise<Answer>;
};

/** An endpoint as the app mounts it: its description, and what it does with a request. */
export type Endpoint = Pick<Definition<Shape, Shape>, "door" | "method" | "path" | "limited"> & {
  readonly route: RouteConfig;
  readonly call: (
    request: Request,
    params: Record<string, string>,
    context: Omit<Call<never>, "input" | "endpoint">,
  ) => Promise<Answer>;
};

/**
 * Defines an endpoint once, for both the router and the OpenAPI document.
 *
 * @example
 * defineEndpoint({ door: "v1", method: "get", path: "/v1/billing/meters/{id}", params: { id: z.string() }, fields: {}, … })
 */
export function defineEndpoint<Fields extends Shape, Params extends Shape = Record<never, never>>(
  definition: Definition<Params, Fields>,
): Endpoint {
  const { door, method, path, handle } = definition;
  const fields = z.strictObject({ ...definition.fields, ...(door === "v1" ? { expand: EXPAND } : {}) });
  const params = z.strictObject(definition.params ?? ({} as Params));
  return {
    door,
    method,
    path,
    limited: definition.limited ?? false,
    route: describeRoute(definition, fields, params),
    call: async (request, rawParams, context) => {
      const raw = method === "get" ? parseForm(new URL(request.url).search.slice(1)) : await readBody(request, door);
      if (!raw.ok) return raw;
      const inPath = check(params, rawParams);
      if (!inPath.ok) return inPath;
      const inFields = check(fields, raw.value);
      if (!inFields.ok) return inFields;
      const input = { ...inPath.value, ...inFields.value } as InputOf<Params, Fields>;
      return handle({ ...context, endpoint: `${method} ${path}`, input });
    },
  };
}

/** Stripe's SDKs may ask to expand objects anywhere in v1; nothing here can be expanded. */
const EXPAND = z
  .array(z.string())
  .optional()
  .openapi({ description: "Accepted and ignored: nothing here can be expanded." });

function check<T>(schema: z.ZodType<T>, raw: unknown): Result<T, MeteringError> {
  const checked = schema.safeParse(raw);
  if (checked.success) return ok(checked.data);
  const [issue] = checked.error.issues;
  return err(issue === undefined ? { reason: "invalid_field", message: "Invalid request." } : toError(issue));
}

function toError(issue: z.core.$ZodIssue): MeteringError {
  // A rule of the domain that ran inside a schema has named its error itself.
  if (issue.code === "custom" && issue.params?.error) return issue.params.error as MeteringError;
  if (issue.code === "unrecognized_keys")
    return { reason: "unknown_parameter", param: paramOf([...issue.path, issue.keys[0] ?? ""]) };
  const param = paramOf(issue.path);
  if (issue.message === MISSING) return { reason: "missing_parameter", param };
  const message = issue.code === "custom" ? issue.message : `Invalid ${param}: ${issue.message}`;
  return { reason: "invalid_field", message, param };
}

/** The message of an issue about a parameter that is not there. */
export const MISSING = "missing";

/** A field that must be there; its absence is Stripe's "Missing required param". */
export const requiredError = {
  error: (issue: { input?: unknown }): string | undefined => (issue.input === undefined ? MISSING : undefined),
};

/** A name as forms write it, `payload[value]`, no longer than a message should quote. */
function paramOf(path: readonly PropertyKey[]): string {
  const [first = "", ...rest] = path.map((part) => String(part).slice(0, LIMITS.payloadKeyLength));
  return first + rest.map((part) => `[${part}]`).join("");
}

function describeRoute(
  { door, method, path, summary, description, tag, response, errors = [] }: Omit<Definition<Shape, Shape>, "handle">,
  fields: z.ZodObject,
  params: z.ZodObject,
): RouteConfig {
  const contentType = door === "v1" ? "application/x-www-form-urlencoded" : "application/json";
  const error = {
    description: "An error",
    content: { "application/json": { schema: door === "v1" ? V1_ERROR : V2_ERROR } },
  };
  return createRoute({
    method,
    path,
    summary,
    tags: [tag],
    ...(description === undefined && errors.length === 0
      ? {}
      : {
          description: [
            description,
            errors.length > 0 ? `Error codes: ${errors.map((code) => `\`${code}\``).join(", ")}.` : "",
          ]
            .filter(Boolean)
            .join("\n\n"),
        }),
    request: {
      ...(Object.keys(params.shape).length > 0 ? { params } : {}),
      ...(method === "get" ? { query: fields } : { body: { content: { [contentType]: { schema: fields } } } }),
    },
    responses: {
      200: { description: "Success", content: { "application/json": { schema: response } } },
      "4XX": error,
      503: { ...error, description: "Not finished; `stripe-should-retry: true`" },
    },
  } as Parameters<typeof createRoute>[0]);
}

const V1_ERROR = z
  .object({
    error: z.object({
      type: z.string(),
      message: z.string(),
      code: z.string().optional(),
      param: z.string().optional(),
    }),
  })
  .openapi("V1Error");

const V2_ERROR = z
  .object({ error: z.object({ code: z.string(), message: z.string(), type: z.string().optional() }) })
  .openapi("V2Error");
