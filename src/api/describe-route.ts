import type { RouteConfig } from "@asteasolutions/zod-to-openapi";
import type { Permission } from "../metering/permissions.ts";
import type { Definition, Shape } from "./endpoint.ts";
import * as z from "./zod.ts";

/** The part of the OpenAPI document that an endpoint's definition makes. */
export function describeRoute(
  {
    door,
    method,
    path,
    summary,
    description,
    tag,
    response,
    auth,
    needs,
    errors = [],
  }: Omit<Definition<Shape, Shape>, "handle" | "needs"> & { readonly needs: Permission },
  fields: z.ZodObject,
  params: z.ZodObject,
): RouteConfig {
  const contentType = door === "v1" ? "application/x-www-form-urlencoded" : "application/json";
  const error = {
    description: "An error",
    content: { "application/json": { schema: door === "v1" ? V1_ERROR : V2_ERROR } },
  };
  return {
    method,
    path,
    summary,
    tags: [tag],
    ...(auth === "session" ? { security: [{ session: [] }] } : {}),
    description: [
      description,
      auth === "session" ? "" : RESTRICTED[needs],
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

/** What restricted keys are told, by what a call needs. */
const RESTRICTED: Readonly<Record<Permission, string>> = {
  all: "Not for restricted keys.",
  ingest: "A restricted key needs the permission `ingest`.",
  read: "A restricted key needs the permission `read`.",
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
