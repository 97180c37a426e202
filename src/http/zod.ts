// zod, whose schemas can also say what the OpenAPI document says of them. Import it as `* as z`: then a
// bundler leaves out what is not used, two fifths of it translations of messages.
import { extendZodWithOpenApi } from "@asteasolutions/zod-to-openapi";
import { ZodType } from "zod";

// All that it touches is this class.
extendZodWithOpenApi({ ZodType } as unknown as typeof import("zod"));

export * from "zod";
