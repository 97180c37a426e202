import { expect, test } from "vitest";
import { successResponse, toJson } from "../../src/http/response.ts";

const headersOf = ({ headers }: Response) => [headers.get("idempotent-replayed"), headers.get("original-request")];

test("a response writes every digit of a bigint", () => {
  expect(toJson({ sum: 9_007_199_254_740_993n, none: 0n, less: -(10n ** 30n) })).toBe(
    `{"sum":9007199254740993,"none":0,"less":-1${"0".repeat(30)}}`,
  );
});

test("a response with a field that has no value is not sent", () => {
  for (const response of [{ id: undefined }, { data: [{ id: "a", at: undefined }] }, { data: [undefined] }]) {
    expect(() => toJson(response)).toThrow("has no value");
  }
  expect(toJson({ id: null, data: [], payload: {} })).toBe('{"id":null,"data":[],"payload":{}}');
});

test("a response that an earlier request got first names that request, from its object and from its stored JSON", async () => {
  for (const value of [{ id: "a" }, '{"id":"a"}']) {
    const replay = successResponse({ ok: true, value, firstGivenTo: "first" }, "second");
    expect(headersOf(replay)).toEqual(["true", "req_first"]);
    expect(await replay.text()).toBe('{"id":"a"}');
    expect(headersOf(successResponse({ ok: true, value, firstGivenTo: "first" }, "first"))).toEqual([null, null]);
    expect(headersOf(successResponse({ ok: true, value }, "first"))).toEqual([null, null]);
  }
});
