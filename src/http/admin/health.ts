import type { RouteConfig } from "@asteasolutions/zod-to-openapi";
import * as z from "../zod.ts";
import { OPERATIONS } from "./operations.ts";

/** Whether this Worker answers at all, without a key; how the rest is doing is /v1/edgemeter/pipeline's to say. */
export const healthRoute: RouteConfig = {
  method: "get",
  path: "/health",
  summary: "Whether the Worker answers",
  description: "Asks no database and takes no key.",
  tags: [OPERATIONS],
  security: [],
  responses: {
    200: {
      description: "Success",
      content: { "application/json": { schema: z.object({ status: z.literal("ok") }) } },
    },
  },
};
