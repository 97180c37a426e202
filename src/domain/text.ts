/** Whether text has more than `max` characters, counted as code points (as JSON Schema counts them). */
export const isLongerThan = (text: string, max: number): boolean =>
  text.length > max && (text.length > 2 * max || [...text].length > max);

/**
 * Whether text survives every store unchanged: NUL ends strings in some of SQLite's functions, and
 * a lone surrogate has no UTF-8, so two different texts would become one.
 */
export const isStorable = (text: string): boolean => !text.includes("\0") && text.isWellFormed();

/**
 * Why text cannot name a customer or an event, or nothing when it can. Names that
 * differ only in white space at their ends, or in control characters, would be two customers: the usage of one of
 * them would never be billed.
 */
export function nameFault(text: string): string | undefined {
  const trimmed = text.trim();
  if (trimmed === "") return "it cannot be blank.";
  if (/\p{Cc}/u.test(text)) return "it cannot contain control characters.";
  return trimmed === text ? undefined : "it cannot begin or end with white space.";
}

/** Places texts in the order of their UTF-8 bytes, which is SQLite's and not that of JavaScript's comparison. */
export const compareBytes = (one: string, other: string): number =>
  one === other ? 0 : Buffer.compare(Buffer.from(one), Buffer.from(other));
