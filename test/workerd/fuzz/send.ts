import { createExecutionContext, waitOnExecutionContext } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import worker from "../../../src/index.ts";
import { type Resolve, toForm, toJson } from "../../support/fuzz/nodes.ts";
import type { FuzzedRequest, Mode, Pieces } from "../../support/fuzz/requests.ts";
import { authorizationOf, resolveIn, type Worlds } from "./world.ts";

/** A request as it was sent. */
export type Sent = {
  readonly method: string;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** The body, where it is text. */
  readonly text: string | undefined;
};

/** What came back. `mode` is the caller's, or nothing when its credentials are no good. */
export type Exchange = {
  readonly request: FuzzedRequest;
  readonly sent: Sent;
  readonly mode: Mode | undefined;
  readonly status: number;
  readonly headers: Headers;
  readonly answer: string;
};

const TYPES = { v1: "application/x-www-form-urlencoded", v2: "application/json" };

/** The mode of a caller whose credentials are good somewhere. */
const modeOf = ({ caller }: FuzzedRequest): Mode | undefined =>
  "mode" in caller && caller.as !== "the other kind" ? caller.mode : undefined;

/** Sends a request as its description says. Throws when there is no answer. */
export async function send(request: FuzzedRequest, worlds: Worlds, auth: "key" | "session"): Promise<Exchange> {
  const { caller, method } = request;
  const resolve = resolveIn(worlds, "mode" in caller ? caller.mode : "test");
  const door = request.path.startsWith("/v2/") ? "v2" : "v1";
  const reads = method === "GET" || method === "HEAD" || method === "get";
  const url = urlOf(request, reads, resolve);
  const authorization = authorizationOf(worlds, caller, auth);
  const body = reads ? undefined : bodyOf(request, resolve);
  const headers = {
    ...(authorization === undefined ? {} : { authorization }),
    ...(body === undefined ? {} : { "content-type": TYPES[door] }),
    ...request.headers,
  };
  const init = { method, headers, redirect: "manual" } as const;
  const response =
    body === undefined || request.pieces === undefined
      ? await exports.default.fetch(url, body === undefined ? init : { ...init, body })
      : await handle(new Request(url, { ...init, body: inPieces(body, request.pieces) }));
  return {
    request,
    sent: { method, url, authorization, headers, text: typeof body === "string" ? body : undefined },
    mode: modeOf(request),
    status: response.status,
    headers: response.headers,
    answer: await response.text(),
  };
}

function urlOf({ path, params, encoded, suffix, content, fields }: FuzzedRequest, reads: boolean, resolve: Resolve) {
  let next = 0;
  const filled = path.replaceAll(/\{\w+\}/g, () => {
    const text = params[next] === undefined ? "" : textOf(params[next] ?? null, resolve);
    next++;
    return encoded ? encodeURIComponent(text.toWellFormed()) : text;
  });
  const query = !reads
    ? ""
    : "style" in content && content.style !== "json"
      ? toForm(fields, content.style, resolve)
      : toForm(fields, "node", resolve);
  return `http://edgemeter.test${filled}${suffix}${query === "" ? "" : `?${query}`}`;
}

/** A node as text: of a JSON string its content, else the JSON. */
function textOf(node: Parameters<typeof toJson>[0], resolve: Resolve): string {
  const value: unknown = JSON.parse(toJson(node, resolve));
  return typeof value === "string" ? value : JSON.stringify(value);
}

function bodyOf({ content, fields }: FuzzedRequest, resolve: Resolve): string | Uint8Array<ArrayBuffer> {
  if ("text" in content) return content.text.toWellFormed();
  if ("bytes" in content) return new Uint8Array(content.bytes);
  if ("padTo" in content) return toJson(fields, resolve).padEnd(content.padTo, " ");
  const whole =
    content.style === "json" ? toJson(fields, resolve) : toForm(fields, content.style, resolve).toWellFormed();
  return "cut" in content ? whole.slice(0, Math.floor(whole.length * content.cut)) : whole;
}

/** At most so many pieces, so that a long body does not take for ever. */
const PIECES = 50;

/** A body of unknown length that comes in pieces. */
function inPieces(body: string | Uint8Array<ArrayBuffer>, { bytes: size, breaks }: Pieces): ReadableStream<Uint8Array> {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const step = Math.max(size, Math.ceil(bytes.length / PIECES));
  let from = 0;
  return new ReadableStream({
    async pull(controller) {
      await scheduler.wait(0);
      if (from < bytes.length) controller.enqueue(bytes.subarray(from, from + step));
      else if (breaks) controller.error(new Error("the connection was lost"));
      else controller.close();
      from += step;
    },
  });
}

/**
 * Hands a request straight to the Worker. Between two Workers of one process, a body that breaks off
 * would come in as one that just ends, and one that nobody reads be a complaint of the runtime.
 */
async function handle(request: Request): Promise<Response> {
  const execution = createExecutionContext();
  const response = await worker.fetch(request as Parameters<typeof worker.fetch>[0], env, execution);
  await waitOnExecutionContext(execution);
  return response;
}
