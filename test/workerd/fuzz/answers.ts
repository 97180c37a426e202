import type { Endpoint } from "../../../src/http/endpoint.ts";
import { allEndpoints } from "../../../src/http/endpoints.ts";
import { PAYLOAD_CONTENT } from "../../support/fuzz/valid-requests.ts";
import type { Exchange } from "./send.ts";
import { CANARIES, MODES, type Worlds } from "./world.ts";

/** What is wrong with an answer, each in a sentence; nothing when it keeps every promise. */
export function faultsOf(exchange: Exchange): string[] {
  const { status, headers, answer, sent, mode } = exchange;
  const faults: string[] = [];
  if (!(status >= 200 && status < 300) && !(status >= 400 && status < 500)) faults.push(`it answered ${status}`);
  if (!/^req_./.test(headers.get("request-id") ?? "")) faults.push("it has no request-id");
  for (const name of ["stripe-version", "cache-control", "x-content-type-options"]) {
    if (!headers.has(name)) faults.push(`it has no ${name}`);
  }
  if (status >= 300) faults.push(...envelopeFaults(exchange));
  for (const other of MODES) {
    if (other !== mode && CANARIES[other].test(answer)) faults.push(`it shows data of ${other} mode`);
  }
  if (/\b[sr]k_(test|live)_[a-z]+_\w+/.test(answer)) faults.push("it shows an API key");
  if (
    answer.includes("token_") &&
    !new URL(sent.url).pathname.endsWith("/meter_event_session") &&
    !sent.url.includes("token_")
  ) {
    faults.push("it shows a token");
  }
  if (status < 300 && !mayCall(exchange)) faults.push("it succeeded without permission");
  if (mode !== undefined && status < 300 && answer.includes(`"livemode":${mode === "test"}`)) {
    faults.push("it shows an object of the other mode");
  }
  return faults.map((fault) => `${fault}: ${sent.method} ${sent.url.slice(0, 200)} → ${answer.slice(0, 300)}`);
}

const ENDPOINTS = await allEndpoints();

const pathsThat = (is: (endpoint: Endpoint) => boolean) => new Set(ENDPOINTS.filter(is).map(({ path }) => path));
const INGEST = pathsThat(({ needs }) => needs === "ingest");
const STREAMS = pathsThat(({ auth }) => auth === "session");

/** Whether a caller may do what was done; pages outside the API are for everybody. */
function mayCall({ request: { caller }, sent, mode }: Exchange): boolean {
  const { pathname } = new URL(sent.url);
  if (!/^\/v[12]\//.test(pathname)) return true;
  if (mode === undefined) return false;
  // A session's token is good for streams, whatever the key.
  if (!("may" in caller) || STREAMS.has(pathname)) return true;
  return caller.may === (sent.method !== "POST" ? "read" : INGEST.has(pathname) ? "ingest" : "manage");
}

/** Every error is Stripe's `error` object, in the form of the API's version (docs/wire-contract.md, section 2). */
export function envelopeFaults({ status, headers, answer, sent }: Exchange): string[] {
  if (!headers.get("content-type")?.startsWith("application/json"))
    return ["its error is not JSON by its content type"];
  if (sent.method === "HEAD") return [];
  let error: Record<string, unknown> | undefined;
  try {
    error = JSON.parse(answer).error;
  } catch {
    return ["its error is not JSON"];
  }
  if (typeof error !== "object" || error === null) return ["it has no error object"];
  const known = ["type", "message", "code", "param", "doc_url"];
  const typed = !isV2(sent.url) || status === 400 || status === 404;
  const needed = ["message", ...(typed ? ["type"] : []), ...(isV2(sent.url) ? ["code"] : [])];
  return [
    ...needed
      .filter((name) => typeof error[name] !== "string" || error[name] === "")
      .map((name) => `its error has no ${name}`),
    ...Object.keys(error)
      .filter((name) => !known.includes(name))
      .map((name) => `its error has a ${name}`),
  ];
}

/** The API of a URL's path, as the router reads it. */
function isV2(url: string): boolean {
  const { pathname } = new URL(url);
  try {
    return decodeURI(pathname).startsWith("/v2/");
  } catch {
    return pathname.startsWith("/v2/");
  }
}

/** What is wrong with a line of the log. `sent` are the requests that may have caused it. */
export function logFaults(line: readonly unknown[], worlds: Worlds, exchanges: readonly Exchange[]): string[] {
  const text = line.map(String).join(" ");
  const faults: string[] = [];
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) faults.push("no JSON object");
  } catch {
    faults.push("no JSON");
  }
  if (text.includes(PAYLOAD_CONTENT)) faults.push("shows the content of a payload");
  for (const { key, token, restricted, bad } of Object.values(worlds)) {
    const secrets = [key, token, ...Object.values(restricted), ...Object.values(bad)];
    if (secrets.some((secret) => text.includes(secret))) faults.push("shows a key or a token");
  }
  for (const { sent } of exchanges) {
    const secret = sent.authorization?.split(" ")[1] ?? "";
    if (secret.length > 20 && text.includes(secret)) faults.push("shows what a caller presented");
  }
  return faults.map((fault) => `a line of the log is wrong (${fault}): ${text.slice(0, 300)}`);
}
