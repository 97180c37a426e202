import type { Operations } from "../openapi.ts";
import { OPERATIONS } from "./operations.ts";

export const HEALTH_PATH = "/health";

const SCHEMA = {
  type: "object",
  properties: {
    status: { type: "string", const: "ok" },
    version: {
      type: "string",
      description: "The version of code and settings that responds. Absent where `npm run deploy` did not deploy it.",
    },
  },
  required: ["status"],
};

/** Whether this Worker responds at all, without a key; /v1/edgemeter/pipeline says how the rest is doing. */
export const healthOperations: Operations = {
  get: {
    summary: "Whether the Worker responds",
    description: "Asks no database and takes no key.",
    tags: [OPERATIONS],
    security: [],
    responses: { 200: { description: "Success", content: { "application/json": { schema: SCHEMA } } } },
  },
};
