import { type Context, Hono, type Next } from "hono";
import { version } from "../../package.json";
import { noteUse } from "../catalog/api-keys.ts";
import { isWithinLimit } from "../catalog/rate-limits.ts";
import { newToken } from "../domain/identifiers.ts";
import { LIMITS } from "../domain/limits.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { Env } from "../env.ts";
import { logError } from "../logger.ts";
import { HEALTH_PATH, healthOperations } from "./admin/health.ts";
import { authenticate, authenticateSession } from "./auth.ts";
import { docsHeaders, docsPage, PUBLIC_PAGE } from "./docs.ts";
import type { Endpoint } from "./endpoint.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { type ApiError, type ApiVersion, errorResponse } from "./errors.ts";
import { commonHeaders, headerFault, setCommonHeaders } from "./headers.ts";
import { describeApi } from "./openapi.ts";
import { requestId, successResponse } from "./response.ts";

type App = { Bindings: Env; Variables: { token: string; common: Record<string, string> } };

/** The HTTP side: every endpoint, the description of the API, and Stripe's `error` object for everything else. */
export function createApp(): Hono<App> {
  const app = new Hono<App>();
  app.use(handleHeaders);
  for (const endpoint of ENDPOINTS) {
    app.on(endpoint.method.toUpperCase(), endpoint.path.replaceAll(/\{(\w+)\}/g, ":$1"), (c) => serve(endpoint, c));
  }
  // Built when first asked for, not at the start of every isolate.
  const description = once(() =>
    describeApi(
      ENDPOINTS.map(({ documented }) => documented),
      { [HEALTH_PATH]: healthOperations },
      version,
    ),
  );
  const page = once(() => docsPage(description()));
  app.get("/openapi.json", (c) => c.json(description(), 200, PUBLIC_PAGE));
  app.get("/docs", (c) => c.html(page(), 200, docsHeaders()));
  app.get(HEALTH_PATH, (c) => c.json({ status: "ok", version: c.env.DEPLOYED_VERSION }));
  app.notFound((c) => errorResponse(versionOf(c.req.path), noSuchRoute(c.req.method, c.req.path)));
  app.onError((error, c) => {
    logError("a request could not be finished", error, { path: c.req.path, request: requestId(c.get("token")) });
    return errorResponse(versionOf(c.req.path), { reason: "unavailable" });
  });
  return app;
}

/** One call, from the key to the response. */
async function serve({ apiVersion, limit, auth, needs, call }: Endpoint, c: Context<App>): Promise<Response> {
  const { env, executionCtx: execution } = c;
  const now = Date.now();
  const authorization = c.req.header("authorization");
  const credentials = { authorization, address: c.req.header("cf-connecting-ip"), env, execution, now };
  const key = await (auth === "session" ? authenticateSession(credentials) : authenticate(credentials));
  if (!key.ok) return errorResponse(apiVersion, key.error);
  if (!key.value.permissions.has(needs)) return errorResponse(apiVersion, { reason: "permission_denied", needs });
  if (!(await isWithinLimit(env, limit, key.value.id))) return errorResponse(apiVersion, { reason: "rate_limited" });
  noteUse(env.DB, key.value, now, execution);
  const idempotencyKey = readIdempotencyKey(c.req.header("idempotency-key"));
  if (!idempotencyKey.ok) return errorResponse(apiVersion, idempotencyKey.error);
  const token = c.get("token");
  const context = { key: key.value, env, execution, now, token, idempotencyKey: idempotencyKey.value };
  const handled = await call(c.req.raw, c.req.param(), context);
  return handled.ok ? successResponse(handled, token, c.get("common")) : errorResponse(apiVersion, handled.error);
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

/** What concerns the headers of every request and its response, whatever the route. */
async function handleHeaders(c: Context<App>, next: Next): Promise<void> {
  const token = newToken();
  c.set("token", token);
  const common = commonHeaders(requestId(token), c.req.header("idempotency-key"));
  c.set("common", common);
  const fault = headerFault(c.req.raw.headers);
  if (fault === undefined) await next();
  else c.res = errorResponse(versionOf(c.req.path), fault);
  // A success is made with them, since each header that is set later costs a call into the runtime.
  if (!c.res.headers.has("request-id")) setCommonHeaders(c.res.headers, common);
}

/** The API version whose errors a path responds with. */
const versionOf = (path: string): ApiVersion => (path.startsWith("/v2/") ? "v2" : "v1");

/** Whether there is no such path, or only no such method of it. */
function noSuchRoute(method: string, path: string): ApiError {
  const allowed = ENDPOINTS.filter((endpoint) => pattern(endpoint.path).test(path)).map((endpoint) =>
    endpoint.method.toUpperCase(),
  );
  return allowed.length === 0
    ? { reason: "unknown_url", method, path }
    : { reason: "method_not_allowed", method, path, allowed: allowed.join(", ") };
}

const pattern = (path: string): RegExp => new RegExp(`^${path.replaceAll(/\{\w+\}/g, "[^/]+")}$`);

/** A value that is made when it is first needed. */
function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
