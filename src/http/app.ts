import { version } from "../../package.json";
import { noteUse } from "../catalog/api-keys.ts";
import { isWithinLimit } from "../catalog/rate-limits.ts";
import { newToken } from "../domain/identifiers.ts";
import { LIMITS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Env, Execution } from "../env.ts";
import { logError } from "../logger.ts";
import { HEALTH_PATH, healthOperations } from "./admin/health.ts";
import { authenticate, authenticateSession } from "./auth.ts";
import { allEndpoints } from "./endpoints.ts";
import { type ApiError, type ApiVersion, type CommonHeaders, errorResponse } from "./errors.ts";
import { commonHeaders, headerFault } from "./headers.ts";
import { requestId, successResponse } from "./response.ts";
import { type Match, matchesOf, pathOf } from "./routes.ts";

/** A request, and what its response needs whatever becomes of it. */
type Incoming = {
  readonly request: Request;
  readonly path: string;
  readonly env: Env;
  readonly execution: Execution;
  readonly token: string;
  readonly common: CommonHeaders;
};

/**
 * The HTTP side: every endpoint, the description of the API, and Stripe's `error` object for everything else. A response is
 * made once, with all its headers: each object of the runtime costs an event more than a check of it does.
 */
export async function respond(request: Request, env: Env, execution: Execution): Promise<Response> {
  const token = newToken();
  const path = pathOf(request.url);
  const common = commonHeaders(requestId(token), request.headers.get("idempotency-key"));
  const response = await route({ request, path, env, execution, token, common }).catch((error) => {
    logError("a request could not be finished", error, { path, request: requestId(token) });
    return errorResponse(versionOf(path), { reason: "unavailable" }, common);
  });
  return request.method === "HEAD" ? new Response(null, response) : response;
}

async function route(incoming: Incoming): Promise<Response> {
  const { request, path, env, common } = incoming;
  const fault = headerFault(request.headers);
  if (fault !== undefined) return errorResponse(versionOf(path), fault, common);
  const method = request.method === "HEAD" ? "GET" : request.method;
  const known = matchesOf(path);
  const matches = known instanceof Promise ? await known : known;
  const match = matches.find(({ endpoint }) => endpoint.method.toUpperCase() === method);
  if (match !== undefined) return serve(match, incoming);
  const page = method === "GET" ? PAGES[path] : undefined;
  if (page !== undefined) return page(env, common);
  return errorResponse(versionOf(path), noSuchRoute(request.method, path, matches), common);
}

/** What responds without a key. */
const PAGES: Readonly<Record<string, (env: Env, common: CommonHeaders) => Promise<Response> | Response>> = {
  "/openapi.json": async (_, common) => {
    const { PUBLIC_PAGE } = await import("./docs.ts");
    return Response.json(await description(), { headers: { ...common, ...PUBLIC_PAGE } });
  },
  "/docs": async (_, common) => {
    const { docsHeaders, docsPage } = await import("./docs.ts");
    const headers = { ...common, ...docsHeaders(), "content-type": "text/html; charset=UTF-8" };
    return new Response(String(await docsPage(await description())), { headers });
  },
  [HEALTH_PATH]: ({ DEPLOYED_VERSION }, common) =>
    Response.json({ status: "ok", version: DEPLOYED_VERSION }, { headers: common }),
};

async function description(): Promise<object> {
  const { describeApi } = await import("./openapi.ts");
  const documented = (await allEndpoints()).map((endpoint) => endpoint.documented);
  return describeApi(documented, { [HEALTH_PATH]: healthOperations }, version);
}

/** One call, from the key to the response. */
async function serve({ endpoint, params }: Match, incoming: Incoming): Promise<Response> {
  const { apiVersion, limit, auth, needs, call } = endpoint;
  const { request, env, execution, token, common } = incoming;
  const { headers } = request;
  const refusal = (error: ApiError): Response => errorResponse(apiVersion, error, common);
  const now = Date.now();
  const authorization = headers.get("authorization") ?? undefined;
  const address = headers.get("cf-connecting-ip") ?? undefined;
  const credentials = { authorization, address, env, execution, now };
  const key = await (auth === "session" ? authenticateSession(credentials) : authenticate(credentials));
  if (!key.ok) return refusal(key.error);
  if (!key.value.permissions.has(needs)) return refusal({ reason: "permission_denied", needs });
  if (!(await isWithinLimit(env, limit, key.value.id))) return refusal({ reason: "rate_limited" });
  noteUse(env.DB, key.value, now, execution);
  const idempotencyKey = readIdempotencyKey(common["idempotency-key"]);
  if (!idempotencyKey.ok) return refusal(idempotencyKey.error);
  const context = { key: key.value, env, execution, now, token, idempotencyKey: idempotencyKey.value };
  const handled = await call(request, params, context);
  return handled.ok ? successResponse(handled, token, common) : refusal(handled.error);
}

const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;

/** An Idempotency-Key. Other bytes than printable ASCII would not all survive the way here, so two keys could become one. */
function readIdempotencyKey(header: string | undefined): Result<string | undefined, ApiError> {
  if (!header) return ok(undefined);
  const tooLong = header.length > LIMITS.idempotencyKeyLength;
  if (!tooLong && PRINTABLE_ASCII.test(header)) return ok(header);
  const rule = tooLong
    ? `have at most ${LIMITS.idempotencyKeyLength} characters`
    : "consist of printable ASCII characters";
  return err({ reason: "invalid_field", message: `An Idempotency-Key can only ${rule}.` });
}

/** The API version whose errors a path responds with. */
const versionOf = (path: string): ApiVersion => (path.startsWith("/v2/") ? "v2" : "v1");

/** Whether there is no such path, or only no such method of it. */
function noSuchRoute(method: string, path: string, matches: readonly Match[]): ApiError {
  const allowed = matches.map(({ endpoint }) => endpoint.method.toUpperCase()).join(", ");
  return allowed === ""
    ? { reason: "unknown_url", method, path }
    : { reason: "method_not_allowed", method, path, allowed };
}
