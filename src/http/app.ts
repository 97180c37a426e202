import { type Context, Hono } from "hono";
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
import type { Endpoint } from "./endpoint.ts";
import { allEndpoints, ROUTES } from "./endpoints.ts";
import { type ApiError, type ApiVersion, type CommonHeaders, errorResponse } from "./errors.ts";
import { commonHeaders, headerFault } from "./headers.ts";
import { requestId, successResponse } from "./response.ts";

type App = { Bindings: Env };

/** What a response needs, whatever becomes of its request. */
type Incoming = { readonly token: string; readonly common: CommonHeaders };

/**
 * The HTTP side: every endpoint, the description of the API, and Stripe's `error` object for everything else. A response is
 * made once, with all its headers: each object of the runtime costs an event more than a check of it does.
 */
export function createApp(): Hono<App> {
  const app = new Hono<App>();
  for (const { route, load } of ROUTES) {
    const [method = "", path = ""] = route.split(" ");
    let endpoint: Endpoint | undefined;
    app.on(
      method.toUpperCase(),
      path.replaceAll(/\{(\w+)\}/g, ":$1"),
      answered(async (c, incoming) => {
        endpoint ??= await load();
        return serve(endpoint, c, incoming);
      }),
    );
  }
  app.get(
    "/openapi.json",
    answered(async (c, { common }) => {
      const { PUBLIC_PAGE } = await import("./docs.ts");
      return c.json(await description(), 200, { ...common, ...PUBLIC_PAGE });
    }),
  );
  app.get(
    "/docs",
    answered(async (c, { common }) => {
      const { docsHeaders, docsPage } = await import("./docs.ts");
      return c.html(docsPage(await description()), 200, { ...common, ...docsHeaders() });
    }),
  );
  app.get(
    HEALTH_PATH,
    answered(async (c, { common }) => c.json({ status: "ok", version: c.env.DEPLOYED_VERSION }, 200, common)),
  );
  app.notFound(
    answered(async (c, { common }) =>
      errorResponse(versionOf(c.req.path), noSuchRoute(c.req.method, c.req.path), common),
    ),
  );
  return app;
}

/** A handler that responds to every request with the common headers, also to one that fails. */
function answered(handle: (c: Context<App>, incoming: Incoming) => Promise<Response>) {
  return async (c: Context<App>): Promise<Response> => {
    const token = newToken();
    const { path } = c.req;
    const common = commonHeaders(requestId(token), c.req.header("idempotency-key"));
    try {
      const fault = headerFault(c.req.raw.headers);
      if (fault !== undefined) return errorResponse(versionOf(path), fault, common);
      return await handle(c, { token, common });
    } catch (error) {
      logError("a request could not be finished", error, { path, request: requestId(token) });
      return errorResponse(versionOf(path), { reason: "unavailable" }, common);
    }
  };
}

async function description(): Promise<object> {
  const { describeApi } = await import("./openapi.ts");
  const documented = (await allEndpoints()).map((endpoint) => endpoint.documented);
  return describeApi(documented, { [HEALTH_PATH]: healthOperations }, version);
}

/** One call, from the key to the response. */
async function serve(
  { apiVersion, limit, auth, needs, call }: Endpoint,
  c: Context<App>,
  { token, common }: Incoming,
): Promise<Response> {
  const { env, executionCtx: execution } = c;
  const refusal = (error: ApiError): Response => errorResponse(apiVersion, error, common);
  const now = Date.now();
  const authorization = c.req.header("authorization");
  const credentials = { authorization, address: c.req.header("cf-connecting-ip"), env, execution, now };
  const key = await (auth === "session" ? authenticateSession(credentials) : authenticate(credentials));
  if (!key.ok) return refusal(key.error);
  if (!key.value.permissions.has(needs)) return refusal({ reason: "permission_denied", needs });
  if (!(await isWithinLimit(env, limit, key.value.id))) return refusal({ reason: "rate_limited" });
  noteUse(env.DB, key.value, now, execution);
  const idempotencyKey = readIdempotencyKey(common["idempotency-key"]);
  if (!idempotencyKey.ok) return refusal(idempotencyKey.error);
  const context = { key: key.value, env, execution, now, token, idempotencyKey: idempotencyKey.value };
  const handled = await call(c.req.raw, c.req.param(), context);
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
function noSuchRoute(method: string, path: string): ApiError {
  const allowed = ROUTES.map(({ route }) => route.split(" ")).flatMap(([other = "", pattern = ""]) =>
    toPattern(pattern).test(path) ? other.toUpperCase() : [],
  );
  return allowed.length === 0
    ? { reason: "unknown_url", method, path }
    : { reason: "method_not_allowed", method, path, allowed: allowed.join(", ") };
}

const toPattern = (path: string): RegExp => new RegExp(`^${path.replaceAll(/\{\w+\}/g, "[^/]+")}$`);
