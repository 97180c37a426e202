/** Where a page of a list begins or ends, newest first: next to an object that is not on it. */
export type Cursor = { readonly id: string; readonly param: "starting_after" | "ending_before" };

/** A part of a list, newest first, and whether more follow in the direction of paging. */
export type Page<T> = { readonly items: T[]; readonly hasMore: boolean };

/** Whether a page is read towards the newer objects, so oldest first. */
export const isBackwards = (cursor: Cursor | undefined): boolean => cursor?.param === "ending_before";

/** The page of what was read for it: in the direction of paging, and up to one more than `limit`. */
export function pageOf<T>(rows: readonly T[], cursor: Cursor | undefined, limit: number): Page<T> {
  const items = rows.slice(0, limit);
  return { items: isBackwards(cursor) ? items.reverse() : items, hasMore: rows.length > limit };
}
