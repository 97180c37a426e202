import * as z from "zod";
import type { MeteringError } from "../domain/errors.ts";
import { LIMITS } from "../domain/limits.ts";
import type { Cursor, Page } from "../domain/page.ts";
import { err, ok, type Result } from "../domain/result.ts";
import { text } from "./fields.ts";

/** How many objects a page holds: `usual` of them, unless its request says. */
export const pageLimit = (usual: number) =>
  z
    .string()
    .regex(/^[0-9]{1,3}$/, "it must be an integer.")
    .transform(Number)
    .refine((limit) => limit >= 1 && limit <= LIMITS.pageSize, `it must be between 1 and ${LIMITS.pageSize}.`)
    .default(usual)
    .meta({ type: "integer", minimum: 1, maximum: LIMITS.pageSize, default: usual });

/** The paging parameters of a v1 list whose ids have at most so many characters. */
export const pagingOf = (idLength: number) => ({
  limit: pageLimit(10),
  starting_after: text(idLength).optional().meta({ description: "The id after which the page begins." }),
  ending_before: text(idLength).optional().meta({ description: "The id before which the page ends." }),
});

/** Those of most lists. */
export const paging = pagingOf(200);

type Bounds = Pick<z.output<z.ZodObject<typeof paging>>, "starting_after" | "ending_before">;

/** The cursor of a v1 list call; nothing for the first page. */
export function cursorOf({ starting_after, ending_before }: Bounds): Result<Cursor | undefined, MeteringError> {
  if (starting_after !== undefined && ending_before !== undefined) {
    return err({
      reason: "invalid_field",
      message: "Only one of starting_after and ending_before can be given.",
      param: "ending_before",
    });
  }
  if (starting_after !== undefined) return ok({ id: starting_after, param: "starting_after" });
  return ok(ending_before === undefined ? undefined : { id: ending_before, param: "ending_before" });
}

/** The schema of a v1 list of objects. */
export const listOf = <T extends z.ZodType>(item: T) =>
  z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean(), url: z.string() });

type List<T> = { object: "list"; data: T[]; has_more: boolean; url: string };

/** A page as a v1 list object; `url` is the list's path. */
export const toList = <T, Wire>({ items, hasMore }: Page<T>, url: string, toWire: (item: T) => Wire): List<Wire> => ({
  object: "list",
  data: items.map(toWire),
  has_more: hasMore,
  url,
});

/** The schema of a v2 page of objects; no page leads back. */
export const v2PageOf = <T extends z.ZodType>(item: T) =>
  z.object({ data: z.array(item), next_page_url: z.string().nullable(), previous_page_url: z.null() });
