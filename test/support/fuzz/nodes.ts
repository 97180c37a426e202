// What a fuzzed request's fields are made of. JavaScript's own values cannot hold a field that comes
// twice, a number of 400 digits or 10,000 levels, and a report of a failure should stay short: so they
// are described here, and written as JSON or as a form when the request is sent.

export type Node =
  | string
  | number
  | boolean
  | null
  | readonly Node[]
  | Fields
  /** Literal JSON that no value of JavaScript writes. */
  | { readonly json: string }
  /** What the service knows under this name, of the caller's mode or of the other one. */
  | { readonly ref: Ref }
  /** A time so many seconds ago, on a multiple of `align` seconds. */
  | { readonly ago: number; readonly align: number }
  | { readonly repeat: string; readonly times: number }
  /** Lists in lists, or maps in maps. */
  | { readonly deep: number; readonly of: "lists" | "maps" };

/** Fields in their order; a name may come twice. */
export type Fields = { readonly fields: readonly (readonly [name: string, value: Node])[] };

export type Ref =
  `${"own" | "other"}.${"meter" | "victim" | "event" | "customer" | "identifier" | "report" | "place" | `letter${number}`}`;

/** Gives a ref its text, at the time of sending. */
export type Resolve = (ref: Ref) => string;

export const map = (fields: Readonly<Record<string, Node | undefined>>): Fields => ({
  fields: Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const])),
});

const isMap = (node: Node): node is Fields => typeof node === "object" && node !== null && "fields" in node;
const isList = (node: Node): node is readonly Node[] => Array.isArray(node);

type Entry = readonly [name: string, value: Node];

/** The fields of a map or list; nothing when the node has none. */
export const entriesOf = (node: Node): readonly Entry[] =>
  isMap(node) ? node.fields : isList(node) ? node.map((value, i) => [String(i), value] as const) : [];

/** The same map or list with other fields. */
export const withEntries = (node: Node, entries: readonly Entry[]): Node =>
  isList(node) ? entries.map(([, value]) => value) : { fields: entries };

const unixTime = (ago: number, align: number): number => Math.floor((Date.now() / 1_000 - ago) / align) * align;

/** A node as JSON. */
export function toJson(node: Node, resolve: Resolve): string {
  if (typeof node !== "object" || node === null) return JSON.stringify(node);
  if (isList(node)) return `[${node.map((item) => toJson(item, resolve)).join(",")}]`;
  if (isMap(node)) {
    return `{${node.fields.map(([name, value]) => `${JSON.stringify(name)}:${toJson(value, resolve)}`).join(",")}}`;
  }
  if ("json" in node) return node.json;
  if ("ref" in node) return JSON.stringify(resolve(node.ref));
  if ("ago" in node) return JSON.stringify(new Date(unixTime(node.ago, node.align) * 1_000).toISOString());
  if ("repeat" in node) return JSON.stringify(node.repeat.repeat(node.times));
  const [open, close] = node.of === "lists" ? ["[", "]"] : ['{"a":', "}"];
  return `${open.repeat(node.deep)}1${close.repeat(node.deep)}`;
}

/** How a client writes names and values of a form: as the SDKs of Node or of Python do, or as they stand. */
export type FormStyle = "node" | "python" | "raw";

/** A map's fields as a form, or as the query of a URL. */
export const toForm = (node: Node, style: FormStyle, resolve: Resolve): string =>
  entriesOf(node)
    .flatMap(([name, value]) => pairs(encode(name, style), value, style, resolve))
    .join("&");

function pairs(name: string, node: Node, style: FormStyle, resolve: Resolve): string[] {
  const [open, close] = style === "python" ? ["%5B", "%5D"] : ["[", "]"];
  const inner = (key: string): string => `${name}${open}${encode(key, style)}${close}`;
  if (isList(node) || (typeof node === "object" && node !== null && isMap(node))) {
    return entriesOf(node).flatMap(([key, value]) => pairs(inner(key), value, style, resolve));
  }
  if (typeof node === "object" && node !== null && "deep" in node) {
    return [`${name}${inner("a").slice(name.length).repeat(node.deep)}=1`];
  }
  return [`${name}=${encode(textOf(node, resolve), style)}`];
}

/** A node that is no map and no list, as the text that a form has for it. */
function textOf(node: Node, resolve: Resolve): string {
  if (node === null) return "";
  if (typeof node !== "object") return String(node);
  if ("ref" in node) return resolve(node.ref);
  if ("ago" in node) return String(unixTime(node.ago, node.align));
  if ("repeat" in node) return node.repeat.repeat(node.times);
  return "json" in node ? node.json : "";
}

/** Percent encoding that also writes lone surrogates, as the bytes that are no UTF-8. */
function encode(text: string, style: FormStyle): string {
  if (style === "raw") return text;
  const encoded = [...text].map((char) => (char.isWellFormed() ? encodeURIComponent(char) : "%ED%A0%80")).join("");
  return style === "python" ? encoded.replaceAll("%20", "+") : encoded;
}
