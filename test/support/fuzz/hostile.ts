import fc from "fast-check";
import { some } from "../draw.ts";
import type { Node } from "./nodes.ts";

/** Words that mean something to JavaScript, SQL, forms, paths or templates. */
const WORDS = [
  ...`
__proto__ constructor prototype toString hasOwnProperty then toJSON length undefined null NaN ?1 * %00 % %zz
%C0%80 %ED%A0%80 a[b] ][ a[b][c][d][e] &a=1 ../../etc/passwd ..%2f..%2f <script>alert(1)</script> #{7*7}
{{7*7}} mtr_ mtr_test_ evt_test_zzzzzzzzzzzzzzzzzzzzzzzzz mtrev_test_zzzzzzzzz em_ test: live:
`
    .trim()
    .split(/\s+/),
  "' OR 1=1 --",
  "'; DROP TABLE meters; --",
  '" UNION SELECT hash FROM api_keys --',
  "%' OR '%'='",
  "\0",
  "nul\0in the middle",
  "\ud800",
  "\udc00lone",
  "e\u0301\u0301\u0301",
  "\u202Eright to left",
  "\u200b",
  "\ufeff",
  "👩‍👩‍👧‍👦",
  "\r\nset-cookie: a=b",
  " ",
  "",
];

const NUMBERS = [
  ..."0 -0 1 -1 007 +5 1.5 1e3 1e400 -1e400 9007199254740993 999999999999999 9999999999999999 0x10 Infinity 9223372036854775808".split(
    " ",
  ),
  "9".repeat(400),
];

const TIMES = `
2026-02-30T00:00:00Z 9999-12-31T23:59:59.999Z 0000-01-01T00:00:00Z +275760-09-13T00:00:00Z
-271821-04-20T00:00:00Z 2026-01-01T00:00:00+23:59 2026-01-01T24:00:00Z 2026-01-01T23:59:60Z
2026-01-01T00:00Z 2026-01-01T00:00:00.123456789012345678901Z 253402300800 999999999999
-999999999999
`
  .trim()
  .split(/\s+/);

/** Text as nobody should send it. */
export const text: fc.Arbitrary<string> = fc.oneof(
  some(4, fc.constantFrom(...WORDS)),
  some(2, fc.constantFrom(...NUMBERS)),
  some(1, fc.constantFrom(...TIMES)),
  some(3, fc.string({ unit: "binary", maxLength: 20 })),
  some(1, fc.string({ unit: "grapheme", maxLength: 120 })),
  some(1, fc.string({ maxLength: 20 })),
);

/** What not every store keeps as it is. */
export const unstorable: fc.Arbitrary<string> = fc.constantFrom("\0", "\0end", "\ud800", "\udfff\ud800");

/** A field's name as nobody should send it. */
export const name: fc.Arbitrary<string> = fc.oneof(
  some(3, text),
  some(1, fc.constantFrom("event_name", "payload", "identifier", "livemode", "id", "expand", "limit")),
);

/** Lengths just under and over each limit. */
const LENGTHS = [99, 100, 101, 200, 201, 250, 251, 255, 500, 501, 8_001];

/** Any value in the place of any other. */
export const node: fc.Arbitrary<Node> = fc.oneof(
  some(4, text),
  some(3, fc.constantFrom<Node>(null, true, false, 0, 1, -1, 1.5, 25, [], { fields: [] }, "")),
  some(
    2,
    fc.constantFrom(...NUMBERS.filter(isJson)).map((json) => ({ json })),
  ),
  some(
    1,
    fc.double().map((number) => ({ json: String(number) })),
  ),
  some(
    1,
    fc.constantFrom("\\ud800", "\\u0000", "\\u0041", "\\x").map((escaped) => ({ json: `"${escaped}"` })),
  ),
  some(2, fc.record({ repeat: fc.constantFrom("x", "é", "漢", "😀", "\0"), times: fc.constantFrom(...LENGTHS) })),
  some(1, fc.record({ deep: fc.constantFrom(2, 5, 100, 10_000), of: fc.constantFrom("lists", "maps") })),
  some(1, fc.constantFrom<Node>({ ago: 0, align: 1 }, { ago: 4_000_000, align: 1 }, { ago: -9_999, align: 60 })),
  some(
    2,
    fc
      .constantFrom("meter", "event", "customer", "identifier", "report", "place")
      .chain((what) => fc.constantFrom("own", "other").map((whose): Node => ({ ref: `${whose}.${what}` as const }))),
  ),
  some(1, fc.array(text, { maxLength: 3 })),
  some(
    1,
    fc.tuple(name, text).map((field): Node => ({ fields: [field] })),
  ),
);

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
