// Where the next step of an operator's long work begins, as text for the caller of that step.
import type * as z from "zod";

export const writeCursor = (cursor: object): string => Buffer.from(JSON.stringify(cursor)).toString("base64url");

/** The cursor that a text is; nothing when it is not as `schema` says. */
export const readCursor = <T>(schema: z.ZodType<T>, text: string): T | undefined =>
  schema.safeParse(parse(Buffer.from(text, "base64url").toString())).data;

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
