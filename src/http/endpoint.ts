import * as z from "zod";
import { digest } from "../domain/identifiers.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Caller } from "../ingest/caller.ts";
import { claimKey } from "../ingest/identity.ts";
import { parseForm, type Fields as RawFields, readBody } from "./body.ts";
import type { ApiError } from "./errors.ts";
import { check, emptyParameter } from "./fields.ts";
import type { Described, Documented } from "./openapi.ts";
import type { Handled } from "./response.ts";

/** One call of an endpoint, authenticated and with its input checked. */
export type Call<Input> = Caller & { readonly input: Input };

type Shape = z.ZodRawShape;

type InputOf<Params extends Shape, Fields extends Shape, Headers extends Shape> = z.output<z.ZodObject<Params>> &
  z.output<z.ZodObject<Fields>> &
  z.output<z.ZodObject<Headers>>;

/** An endpoint as its resource's file defines it. */
type Definition<
  Params extends Shape,
  Fields extends Shape,
  Headers extends Shape,
  Reply extends z.ZodType<object>,
> = Omit<Described, "needs" | "limit"> & {
  /** Unless given: to read (GET), or to manage (POST). */
  readonly needs?: Described["needs"];
  /** Unless given: of reads (GET), or of administration (POST). */
  readonly limit?: Described["limit"];
  /** Parts of the path. */
  readonly params?: Params;
  /** Parameters of the query (GET) or of the body (POST). */
  readonly fields: Fields;
  /** Headers of its own, in lower case. */
  readonly headers?: Headers;
  readonly response: Reply;
  /** What a response has in its headers, for the OpenAPI document. */
  readonly responseHeaders?: z.ZodObject;
  /** The most that a body may have (bytes); LIMITS.bodyBytes unless given. */
  readonly bodyBytes?: number;
  /** Whether `handle` claims the Idempotency-Key itself; unless it does, it is claimed before. */
  readonly claimsKey?: boolean;
  readonly handle: (call: Call<InputOf<Params, Fields, Headers>>) => Promise<Handled<z.output<Reply>>>;
};

/** A call before its input is read. */
type CallContext = Omit<Call<never>, "input" | "endpoint">;

/** An endpoint as the app mounts it: what its documentation says, and what it does with a request. */
export type Endpoint = Pick<Described, "apiVersion" | "method" | "path" | "auth" | "needs" | "limit"> & {
  readonly documented: Documented;
  readonly call: (request: Request, params: Record<string, string>, context: CallContext) => Promise<Handled<object>>;
};

/**
 * Defines an endpoint once, for both the router and the OpenAPI document.
 *
 * @example
 * defineEndpoint({ apiVersion: "v1", method: "get", path: "/v1/billing/meters/{id}", params: { id: z.string() }, fields: {}, … })
 */
export function defineEndpoint<
  Fields extends Shape,
  Reply extends z.ZodType<object>,
  Params extends Shape = Record<never, never>,
  Headers extends Shape = Record<never, never>,
>(definition: Definition<Params, Fields, Headers, Reply>): Endpoint {
  const { apiVersion, method, path, auth = "key", bodyBytes, claimsKey = false, handle } = definition;
  const needs = definition.needs ?? (method === "get" ? "read" : "manage");
  const limit = definition.limit ?? (method === "get" ? "reads" : "administration");
  const fields = z.strictObject({ ...definition.fields, ...(apiVersion === "v1" ? { expand: EXPAND } : {}) });
  const params = z.strictObject(definition.params ?? ({} as Params));
  const headers = definition.headers && z.object(definition.headers);
  const { responseHeaders } = definition;
  return {
    apiVersion,
    method,
    path,
    auth,
    needs,
    limit,
    documented: { ...definition, needs, limit, params, fields, headers, responseHeaders },
    call: async (request, rawParams, context) => {
      const inHeaders = headers === undefined ? ok({}) : check(headers, readHeaders(request, headers));
      if (!inHeaders.ok) return inHeaders;
      const raw = method === "get" ? readQuery(request) : await readBody(request, apiVersion, bodyBytes);
      if (!raw.ok) return raw;
      const inPath = check(params, rawParams);
      if (!inPath.ok) return inPath;
      const empty = apiVersion === "v1" ? emptyParameter(raw.value) : undefined;
      if (empty !== undefined) return err({ reason: "empty_parameter", param: empty });
      const inFields = check(fields, raw.value);
      if (!inFields.ok) return inFields;
      const input = { ...inHeaders.value, ...inPath.value, ...inFields.value } as InputOf<Params, Fields, Headers>;
      const call = { ...context, endpoint: `${method} ${path}`, input };
      if (method !== "get" && !claimsKey) {
        const claimed = await claimKey(() => digest(call.endpoint, JSON.stringify(input)), call);
        if (!claimed.ok) return claimed;
      }
      return handle(call);
    },
  };
}

const readQuery = (request: Request): Result<RawFields, ApiError> => parseForm(new URL(request.url).search.slice(1));

/** Those headers of a request that a schema names. */
const readHeaders = ({ headers }: Request, { shape }: z.ZodObject): Record<string, string | undefined> =>
  Object.fromEntries(Object.keys(shape).map((name) => [name, headers.get(name) ?? undefined]));

/** Stripe's SDKs may ask to expand objects anywhere in v1; nothing here can be expanded. */
const EXPAND = z
  .array(z.string())
  .optional()
  .meta({ description: "Accepted and ignored: nothing here can be expanded." });
