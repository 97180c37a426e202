import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { LIMITS } from "../../src/domain/limits.ts";
import { parseForm, readBody } from "../../src/http/body.ts";
import type { ApiVersion } from "../../src/http/errors.ts";
import { errorOf, resultOf } from "../support/builders.ts";

const TYPES: Record<ApiVersion, string> = { v1: "application/x-www-form-urlencoded", v2: "application/json" };

type Body = string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;

/** A request as it comes in: without a content-length when its body is a stream. */
const aRequest = (body: Body | null, headers: Record<string, string>): Request =>
  new Request("https://edgemeter.test/v2/billing/meter_events", {
    method: "POST",
    headers,
    body,
    duplex: "half",
  } as RequestInit);

const bytesOf = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(text));

/** Reads a body that came with its length. */
function read(
  apiVersion: ApiVersion,
  body: string | Uint8Array<ArrayBuffer>,
  type: string | undefined = TYPES[apiVersion],
) {
  const bytes = typeof body === "string" ? bytesOf(body) : body;
  return readBody(aRequest(bytes, { "content-type": type, "content-length": String(bytes.length) }), apiVersion);
}

/** A stream of chunks that notes how many were taken, and whether the reader said that it wants no more. */
function aStream(chunks: Iterable<Uint8Array>) {
  const seen = { taken: 0, cancelled: false };
  const iterator = chunks[Symbol.iterator]();
  const source = {
    pull(controller: ReadableStreamDefaultController<Uint8Array>) {
      const next = iterator.next();
      if (next.done) return controller.close();
      seen.taken++;
      controller.enqueue(next.value);
    },
    cancel() {
      seen.cancelled = true;
    },
  };
  return { stream: new ReadableStream(source, { highWaterMark: 0 }), seen };
}

/** So many chunks of 64,000 bytes. */
function* chunksFor(chunks: number): Generator<Uint8Array> {
  for (let i = 0; i < chunks; i++) yield new Uint8Array(64_000).fill(97);
}

const form = (text: string) => read("v1", text);
const json = (text: string) => read("v2", text);

const malformed = (message: string) => ({ reason: "malformed_body", message });

/** A body of valid JSON, or form, of exactly so many bytes. */
const ofLength = (apiVersion: ApiVersion, bytes: number): string =>
  apiVersion === "v1" ? `a=${"x".repeat(bytes - 2)}` : `{"a":"${"x".repeat(bytes - 8)}"}`;

describe.each(["v1", "v2"] satisfies ApiVersion[])("a body of %s", (apiVersion) => {
  const headers = { "content-type": TYPES[apiVersion] };

  test("may have 256,000 bytes and not one more, with its length told or not", async () => {
    const most = ofLength(apiVersion, LIMITS.bodyBytes);
    expect(Buffer.byteLength(most)).toBe(256_000);
    const streamed = (text: string) => readBody(aRequest(aStream([bytesOf(text)]).stream, headers), apiVersion);
    expect((await read(apiVersion, most)).ok).toBe(true);
    expect((await streamed(most)).ok).toBe(true);
    // Bytes are counted, not characters.
    const wide = apiVersion === "v1" ? `a=${"€".repeat(100_000)}` : `{"a":"${"€".repeat(100_000)}"}`;
    for (const over of [ofLength(apiVersion, LIMITS.bodyBytes + 1), wide]) {
      const error = { reason: "body_too_large", limit: LIMITS.bodyBytes };
      expect(errorOf(await read(apiVersion, over))).toEqual(error);
      expect(errorOf(await streamed(over))).toEqual(error);
    }
  });

  test("past the limit is left unread when content-length says so; without it, reading stops at the limit", async () => {
    for (const [length, chunks, most] of [
      [{ "content-length": "256001" }, 1, 0],
      [{}, 15_625, 200],
    ] as const) {
      const { stream, seen } = aStream(chunksFor(chunks));
      const request = aRequest(stream, { ...headers, ...length });
      expect(errorOf(await readBody(request, apiVersion)).reason).toBe("body_too_large");
      expect(seen.taken).toBeLessThanOrEqual(most);
      expect(seen.cancelled).toBe(most > 0);
    }
  });

  test("may come in any pieces, cut within a character too", async () => {
    const text = apiVersion === "v1" ? "a=客户🙂" : '{"a":"客户🙂"}';
    const bytes = bytesOf(text);
    for (const size of [1, 2, 3, 5, 1_000]) {
      const pieces = [...bytes.keys()].filter((i) => i % size === 0).map((i) => bytes.slice(i, i + size));
      const request = aRequest(aStream(pieces).stream, headers);
      expect(resultOf(await readBody(request, apiVersion))).toEqual({ a: "客户🙂" });
    }
  });

  test("that is absent or empty has no fields, whatever its type", async () => {
    const headers = { "content-type": "text/plain" };
    expect(resultOf(await readBody(aRequest(null, {}), apiVersion))).toEqual({});
    expect(resultOf(await readBody(aRequest("", headers), apiVersion))).toEqual({});
    expect(resultOf(await readBody(aRequest(aStream([]).stream, headers), apiVersion))).toEqual({});
    expect(resultOf(await readBody(aRequest(new Uint8Array(), { "content-length": "0" }), apiVersion))).toEqual({});
  });

  test("with broken UTF-8 is refused", async () => {
    const broken = {
      "a byte that never occurs": [0xff],
      "a character cut short": [0xe2, 0x82],
      "a continuation alone": [0x80],
      "a surrogate": [0xed, 0xa0, 0x80],
      "an overlong NUL": [0xc0, 0x80],
    };
    const [before, after] = apiVersion === "v1" ? ["a=", ""] : ['{"a":"', '"}'];
    for (const [fault, bytes] of Object.entries(broken)) {
      const body = new Uint8Array([...bytesOf(before), ...bytes, ...bytesOf(after)]);
      const error = malformed("The request body is not valid UTF-8.");
      expect(errorOf(await read(apiVersion, body)), fault).toEqual(error);
    }
  });

  test("must have the content type of its API version, with or without parameters and in any case", async () => {
    const body = ofLength(apiVersion, 20);
    const [type, other] = apiVersion === "v1" ? [TYPES.v1, TYPES.v2] : [TYPES.v2, TYPES.v1];
    for (const good of [type, `${type}; charset=utf-8`, `${type};charset=UTF-8`, type.toUpperCase(), ` ${type} `]) {
      expect((await read(apiVersion, body, good)).ok, good).toBe(true);
    }
    for (const bad of [other, "text/plain", "multipart/form-data; boundary=x", `${type}x`, ""]) {
      expect(errorOf(await read(apiVersion, body, bad)), bad).toEqual({
        reason: "unsupported_content_type",
        expected: type,
      });
    }
    const untyped = aRequest(bytesOf(body), {});
    expect(errorOf(await readBody(untyped, apiVersion)).reason).toBe("unsupported_content_type");
  });
});

describe("a body with a Content-Encoding", () => {
  const encoded = (body: Uint8Array<ArrayBuffer>, encoding: string, length = true) => {
    const headers = { "content-type": TYPES.v2, "content-encoding": encoding };
    return length
      ? aRequest(body, { ...headers, "content-length": String(body.length) })
      : aRequest(aStream([body]).stream, headers);
  };
  const gzipped = (text: string) => new Uint8Array(gzipSync(text));

  test.each(["gzip", "GZIP", " gzip "])("of %j is inflated, with its length told or not", async (encoding) => {
    for (const length of [true, false]) {
      const request = encoded(gzipped('{"a":"客户🙂"}'), encoding, length);
      expect(resultOf(await readBody(request, "v2"))).toEqual({ a: "客户🙂" });
    }
    expect(resultOf(await readBody(encoded(bytesOf('{"a":"b"}'), "identity"), "v2"))).toEqual({ a: "b" });
  });

  test("may inflate to 256,000 bytes and not one more", async () => {
    const most = encoded(gzipped(ofLength("v2", LIMITS.bodyBytes)), "gzip");
    expect((await readBody(most, "v2")).ok).toBe(true);
    const over = encoded(gzipped(ofLength("v2", LIMITS.bodyBytes + 1)), "gzip");
    expect(errorOf(await readBody(over, "v2"))).toEqual({ reason: "body_too_large", limit: LIMITS.bodyBytes });
  });

  test("that would inflate to far more is inflated no further than the limit", async () => {
    // Its end is broken, which is noticed only by inflating all of it.
    const bomb = new Uint8Array(gzipSync(Buffer.alloc(100_000_000, " "))).fill(0, -8);
    expect(bomb.length).toBeLessThan(LIMITS.bodyBytes);
    expect(errorOf(await readBody(encoded(bomb, "gzip"), "v2")).reason).toBe("body_too_large");
    const whole = new Uint8Array(gzipSync(ofLength("v2", 1_000))).fill(0, -8);
    expect(errorOf(await readBody(encoded(whole, "gzip"), "v2")).reason).toBe("malformed_body");
  });

  test("that is not gzip, or breaks off, is malformed", async () => {
    for (const body of [bytesOf('{"a":"b"}'), gzipped(ofLength("v2", 1_000)).slice(0, -9)]) {
      expect(errorOf(await readBody(encoded(body, "gzip"), "v2"))).toEqual(
        malformed("The request body is not valid gzip."),
      );
    }
  });

  test.each(["br", "deflate", "zstd", "gzip, gzip", "x-gzip", "nonsense"])("of %j is refused", async (encoding) => {
    const error = { reason: "unsupported_content_encoding", encoding };
    expect(errorOf(await readBody(encoded(gzipped("{}"), encoding), "v2"))).toEqual(error);
  });
});

describe("a JSON body", () => {
  test("is an object, as it is written", async () => {
    const text = '{"event_name":"tokens","payload":{"value":25,"x":null},"events":[1,[2]]}';
    expect(resultOf(await json(text))).toEqual(JSON.parse(text));
    expect(resultOf(await json("{}"))).toEqual({});
  });

  test.each([
    ["must be a JSON object", ["[]", '[{"event_name":"tokens"}]', "null", "5", '"text"', "true"]],
    ["is not valid JSON", ["{", "{'a':1}", "a=1", '{"a":1}}', '{"a":NaN}', " ", "undefined", '{"a":1,}', "\0"]],
  ])("%s, or it is refused", async (fault, texts) => {
    for (const text of texts) expect(errorOf(await json(text)), text).toEqual(malformed(`The request body ${fault}.`));
  });

  test("may be nested as deep as its bytes allow without harm", async () => {
    const depth = 100_000;
    const result = await json(`{"a":${"[".repeat(depth)}${"]".repeat(depth)}}`);
    expect(result.ok ? "read" : result.error.reason).toMatch(/read|malformed_body/);
  });

  test("with the key __proto__ changes no object's prototype", async () => {
    const fields = resultOf(await json('{"__proto__":{"admin":"yes"},"payload":{"__proto__":{"admin":"yes"}}}'));
    expect(Object.getPrototypeOf(fields)).toBe(Object.prototype);
    expect(Object.keys(fields)).toContain("__proto__");
    expect(({} as Record<string, unknown>).admin).toBeUndefined();
  });
});

describe("a form", () => {
  test.each<[string, string, object]>([
    [
      "as Stripe's SDKs write it",
      "event_name=tokens&payload[stripe_customer_id]=cus_1&payload[value]=25&expand[0]=x&expand[1]=y",
      { event_name: "tokens", payload: { stripe_customer_id: "cus_1", value: "25" }, expand: ["x", "y"] },
    ],
    [
      "with its brackets encoded, blanks as + or %20, and any script",
      "payload%5Bname%5D=a+b%20c%2Bd&x=%E5%AE%A2&y=客",
      { payload: { name: "a b c+d" }, x: "客", y: "客" },
    ],
    [
      "with text that looks like a number, a list or nothing",
      "a=007&b=&c=1,2&d=true&e=null&f=a%3Db",
      { a: "007", b: "", c: "1,2", d: "true", e: "null", f: "a=b" },
    ],
    ["with __proto__ as a value", "identifier=__proto__", { identifier: "__proto__" }],
    ["with three levels", "a[b][c]=1", { a: { b: { c: "1" } } }],
    // No field takes an array for its text.
    ["with a key that comes twice", "identifier=a&identifier=b", { identifier: ["a", "b"] }],
    ["with an inner key that comes twice", "payload[value]=1&payload%5Bvalue%5D=1", { payload: { value: ["1", "1"] } }],
  ])("%s is read", async (_, text, fields) => {
    expect(resultOf(await form(text))).toEqual(fields);
  });

  test("with many values for one key is no reason to build a long array", async () => {
    const result = await form(Array.from({ length: 150 }, () => "a=1").join("&"));
    expect(result.ok ? "read" : result.error.reason).toMatch(/read|malformed_body/);
    const sparse = await form("a[999999999]=1");
    if (sparse.ok) expect(Array.isArray(sparse.value.a)).toBe(false);
  });

  test.each([
    [
      "a broken percent encoding",
      "percent encoding",
      "payload[%FF]=1 a=%FF a=%E2%82 %C0%80=1 a=% a=%zz a=%ED%A0%80 a=1&b=%",
    ],
    [
      "the key __proto__, which would vanish silently",
      "__proto__",
      "__proto__=1 __proto__[a]=1 payload[__proto__]=1 payload[__proto__][a]=1 payload[%5F_proto__]=1",
    ],
  ])("with %s is refused", async (_, named, texts) => {
    for (const text of texts.split(" ")) {
      expect(errorOf(await form(text)), text).toEqual(malformed(expect.stringContaining(named)));
    }
    expect(({} as Record<string, unknown>).a).toBeUndefined();
  });

  test.each(["constructor", "toString", "hasOwnProperty", "prototype"])("may have the key %s", async (key) => {
    const fields = resultOf(await form(`${key}=1&payload[${key}]=2`));
    expect(Object.entries(fields)).toHaveLength(2);
    expect(Object.hasOwn(fields, key) && fields[key]).toBe("1");
    expect(Object.entries(fields.payload ?? {})).toEqual([[key, "2"]]);
  });

  test("has at most 200 parameters, and is nested no deeper than any needs; none is dropped in silence", async () => {
    const many = (count: number) => Array.from({ length: count }, (_, i) => `p${i}=1`).join("&");
    expect(Object.keys(resultOf(await form(many(200))))).toHaveLength(200);
    for (const text of [many(201), "a[b][c][d][e][f]=1", `a${"[b]".repeat(10_000)}=1`]) {
      expect(errorOf(await form(text)).reason).toBe("malformed_body");
    }
  });

  test("with a parameter that is both text and map is not taken for either", async () => {
    for (const text of ["payload[value]=1&payload=x", "payload=x&payload[value]=1"]) {
      const result = await form(text);
      const payload = result.ok ? result.value.payload : undefined;
      expect(payload).not.toEqual({ value: "1" });
      expect(typeof payload).not.toBe("string");
    }
  });

  test("may be a query's as well", () => {
    const fields = { limit: "3", value_grouping_window: "day" };
    expect(resultOf(parseForm("limit=3&value_grouping_window=day"))).toEqual(fields);
    expect(resultOf(parseForm(""))).toEqual({});
    expect(errorOf(parseForm("limit=%FF")).reason).toBe("malformed_body");
  });
});
