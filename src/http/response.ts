import type { ApiError, CommonHeaders } from "./errors.ts";

/** A response as it was stored: its JSON text. */
type StoredJson = string;

/** What a handler makes of a call: the object of a 200, perhaps given to an earlier request first, or what went wrong. */
export type Handled<T extends object> =
  | {
      readonly ok: true;
      readonly value: T | StoredJson;
      /** The token of the request that got this response first; unless given, this one. */
      readonly firstGivenTo?: string;
      /** Headers of its own. */
      readonly headers?: Readonly<Record<string, string>>;
    }
  | { readonly ok: false; readonly error: ApiError };

/** The response to a call, which the request with `token` got first: an earlier one, or this one. */
export const firstGivenTo = <T extends object>(token: string, value: T | StoredJson): Handled<T> => ({
  ok: true,
  value,
  firstGivenTo: token,
});

/** The id of a request, by its token: what its caller and the logs know it by. */
export const requestId = (token: string): string => `req_${token}`;

/** The JSON of a response. A bigint becomes its digits, all of them. Throws when a field has no value. */
export const toJson = (response: object): string =>
  JSON.stringify(response, (field, value: unknown) => {
    if (value === undefined) throw new Error(`The field ${field} of a response has no value.`);
    return typeof value === "bigint" ? JSON.rawJSON(String(value)) : value;
  });

/** The 200 of a call whose request has `token`, with the headers of all responses and with what marks a replay. */
export function successResponse(
  handled: Extract<Handled<object>, { ok: true }>,
  token: string,
  common: CommonHeaders = {},
): Response {
  const { value, firstGivenTo = token, headers = {} } = handled;
  const replayed = { "idempotent-replayed": "true", "original-request": requestId(firstGivenTo) };
  return new Response(typeof value === "string" ? value : toJson(value), {
    headers: { ...common, ...headers, "content-type": "application/json", ...(firstGivenTo === token ? {} : replayed) },
  });
}
