import type { RouteConfig } from "@asteasolutions/zod-to-openapi";
import type { LimitClass } from "../catalog/rate-limits.ts";
import type { Permission } from "../domain/permissions.ts";
import type { Definition, Endpoint, Shape } from "./endpoint.ts";
import * as z from "./zod.ts";

/** The part of the OpenAPI document that an endpoint's definition makes. */
export function describeRoute(
  {
    apiVersion,
    method,
    path,
    summary,
    description,
    tag,
    response,
    auth,
    needs,
    limit,
    errors = [],
  }: Omit<Definition<Shape, Shape>, "handle" | "needs" | "limit"> & Pick<Endpoint, "needs" | "limit">,
  fields: z.ZodObject,
  params: z.ZodObject,
): RouteConfig {
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
    description: [
      description,
      auth === "session" ? "" : NEEDED[needs],
      LIMIT[limit],
      errors.length > 0 ? `Error codes: ${errors.map((code) => `\`${code}\``).join(", ")}.` : "",
    ]
      .filter(Boolean)
      .join("\n\n"),
    request: {
      ...(Object.keys(params.shape).length > 0 ? { params } : {}),
      ...(method === "get" ? { query: fields } : { body: { content: { [contentType]: { schema: fields } } } }),
    },
    responses: {
      200: { description: "Success", content: { "application/json": { schema: response } } },
      "4XX": error,
      503: { ...error, description: "Not finished; `stripe-should-retry: true`" },
    },
  };
}

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
