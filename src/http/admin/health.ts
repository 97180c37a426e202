import type { RouteConfig } from "@asteasolutions/zod-to-openapi";
import * as z from "../zod.ts";
import { OPERATIONS } from "./operations.ts";

const Health = z.object({
  status: z.literal("ok"),
  version: z.string().optional().openapi({
    description: "The version of code and settings that responds. Absent where `npm run deploy` did not deploy it.",
  }),
});

/** Whether this Worker responds at all, without a key; /v1/edgemeter/pipeline says how the rest is doing. */
export const healthRoute: RouteConfig = {
  method: "get",
  path: "/health",
  summary: "Whether the Worker responds",
  description: "Asks no database and takes no key.",
  tags: [OPERATIONS],
  security: [],
  responses: {
    200: {
      description: "Success",
      content: { "application/json": { schema: Health } },
    },
  },
};
