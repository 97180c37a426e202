import fc from "fast-check";
import * as hostile from "./hostile.ts";
import { entriesOf, type Fields, map, type Node, withEntries } from "./nodes.ts";

/** One change of a request's fields; `at` counts fields through all levels, and starts again at the end. */
export type Mutation = { readonly at: number } & (
  | { readonly do: "drop" }
  | { readonly do: "replace"; readonly value: Node }
  | { readonly do: "rename"; readonly name: string }
  | { readonly do: "add"; readonly name: string; readonly value: Node }
  | { readonly do: "repeat" }
  | { readonly do: "append"; readonly text: string }
  | { readonly do: "wrap"; readonly in: "list" | "map" }
  | { readonly do: "swap"; readonly with: number }
);

const at = fc.nat({ max: 30 });

export const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant("drop" as const), at }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("replace" as const), at, value: hostile.node }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("rename" as const), at, name: hostile.name }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("add" as const), at, name: hostile.name, value: hostile.node }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("add" as const),
      at,
      name: fc.constantFrom("__proto__", "constructor", "prototype"),
      value: fc.constantFrom(map({ polluted: "yes" }), map({ prototype: map({ polluted: "yes" }) })),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("repeat" as const), at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("append" as const), at, text: hostile.text }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("append" as const), at, text: hostile.unstorable }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("wrap" as const), at, in: fc.constantFrom("list", "map") }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("swap" as const), at, with: fc.nat({ max: 5 }) }) },
);

type Entries = ReturnType<typeof entriesOf>;

/** Fields after a change. */
export function mutate(fields: Fields, mutation: Mutation): Fields {
  const count = countFields(fields);
  if (count > 0) return changeAt(fields, mutation.at % count, (entries, i) => change(entries, i, mutation)) as Fields;
  return mutation.do === "add" ? map({ [mutation.name]: mutation.value }) : fields;
}

const countFields = (node: Node): number => entriesOf(node).reduce((sum, [, value]) => sum + 1 + countFields(value), 0);

/** Changes the entries around a field: the parent's, with the field's index among them. */
function changeAt(node: Node, at: number, change: (entries: Entries, i: number) => Entries): Node {
  const entries = entriesOf(node);
  let left = at;
  for (const [i, [name, value]] of entries.entries()) {
    if (left === 0) return withEntries(node, change(entries, i));
    left--;
    const inside = countFields(value);
    if (left < inside) return withEntries(node, entries.with(i, [name, changeAt(value, left, change)]));
    left -= inside;
  }
  return node;
}

function change(entries: Entries, i: number, mutation: Mutation): Entries {
  const entry = entries[i];
  if (entry === undefined) return entries;
  const [name, value] = entry;
  switch (mutation.do) {
    case "drop":
      return entries.toSpliced(i, 1);
    case "replace":
      return entries.with(i, [name, mutation.value]);
    case "rename":
      return entries.with(i, [mutation.name, value]);
    case "add":
      return entries.toSpliced(i, 0, [mutation.name, mutation.value]);
    case "repeat":
      return entries.toSpliced(i, 0, entry);
    case "append":
      return entries.with(i, [name, typeof value === "string" ? value + mutation.text : mutation.text]);
    case "wrap":
      return entries.with(i, [name, mutation.in === "list" ? [value] : map({ [name]: value })]);
    case "swap": {
      const j = mutation.with % entries.length;
      const other = entries[j];
      return other === undefined ? entries : entries.with(i, [name, other[1]]).with(j, [other[0], value]);
    }
  }
}
