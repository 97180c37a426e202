/** Cuts a list into parts of at most `most`, in which an element counts `sizeOf`; one that is larger stands alone. */
export function inParts<T>(all: readonly T[], most: number, sizeOf: (one: T) => number = () => 1): T[][] {
  const parts: T[][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const one of all) {
    size += sizeOf(one);
    if (size > most) {
      parts.push([]);
      size = sizeOf(one);
    }
    parts.at(-1)?.push(one);
  }
  return parts;
}
