import { type FastifyRequest, fastify } from "fastify";
import { emptyAccount } from "./account.ts";
import { ApiFailure, type Routes, routesOf } from "./api.ts";
import { serveWorkers } from "./stand-in.ts";

export const ACCOUNT_ID = "00000000000000000000000000000001";
const BASE = "/client/v4";
const ACCOUNT = `${BASE}/accounts/${ACCOUNT_ID}`;

const NO_R2 = "Please enable R2 through the Cloudflare Dashboard.";

/** A call of the API as it came, its path below the account. */
export type Call = { readonly method: string; readonly path: string; readonly body: string };

/** From which call on (counted from 0) everything fails: refused undone, or done but never answered. */
export type Outage = { readonly from: number; readonly kind: "refused" | "unanswered" };

/** What is called, by the parts of it that tests use. */
type Request = FastifyRequest<{
  Params: Record<string, string>;
  Querystring: Record<string, string | string[]>;
  Body: string | undefined;
}>;

export type FakeCloudflare = Awaited<ReturnType<typeof startCloudflare>>;

/** As much of Cloudflare's API as wrangler and the deployment use, on this computer; a Worker answers at `/NAME/…`. */
export async function startCloudflare() {
  const account = emptyAccount();
  const calls: Call[] = [];
  /** What was asked for that it does not know: a test that sees any is wrong about Cloudflare. */
  const unknown: string[] = [];
  let outage: Outage | undefined;
  /** How the next call fails. */
  const failing = () => (outage !== undefined && calls.length >= outage.from ? outage.kind : undefined);
  const refusal = () => new ApiFailure(500, 10_000, "an outage of the test");

  const server = fastify({ bodyLimit: 100_000_000, forceCloseConnections: true });
  server.removeAllContentTypeParsers();
  server.addContentTypeParser("*", { parseAs: "string" }, (_, body, done) => done(null, body));
  server.setNotFoundHandler(({ method, url }) => {
    // wrangler asks more of a Cloudflare that refuses it.
    if (failing() === "refused") throw refusal();
    unknown.push(`${method} ${url}`);
    throw new ApiFailure(404, 7_003, `Could not route to ${url}`);
  });
  server.setErrorHandler((error, { url }, reply) => {
    const isKnown = error instanceof ApiFailure;
    if (!isKnown) unknown.push(`${url}: ${error}`);
    const { status, code, message } = isKnown ? error : new ApiFailure(500, 0, String(error));
    return reply.code(status).send({ success: false, errors: [{ code, message }], error: { message }, result: null });
  });

  const routes: Routes = { ...routesOf(account), "GET ": () => [{ id: ACCOUNT_ID, name: "the only one" }] };
  for (const [route, handle] of Object.entries(routes)) {
    const [method = "", path = ""] = route.split(" ");
    server.route({
      method,
      url: path === "" ? `${BASE}/accounts` : ACCOUNT + path,
      handler: async ({ url, params, query, body = "", headers, socket }: Request) => {
        const failure = failing();
        calls.push({ method, path: url.replace(ACCOUNT, "").replace(BASE, ""), body });
        if (!cloudflare.isAllowed) throw new ApiFailure(403, 10_000, "Authentication error");
        if (failure === "refused") throw refusal();
        if (path.startsWith("/r2/") && !cloudflare.hasR2) throw new ApiFailure(403, 10_042, NO_R2);
        const form = () =>
          new Response(body, { headers: { "content-type": String(headers["content-type"]) } }).formData();
        try {
          const result = await handle({ params, query, headers, json: () => JSON.parse(body), form });
          return { success: true, errors: [], messages: [], result: result ?? null };
        } finally {
          if (failure === "unanswered") socket.destroy();
        }
      },
    });
  }

  const cloudflare = {
    account,
    calls,
    unknown,
    /** Whether Workers count what they are sent: `false` for queues that deliver nothing. */
    countsEvents: true,
    /** Whether the account has R2, which is enabled in the dashboard. */
    hasR2: true,
    /** Whether its credentials are good. */
    isAllowed: true,
    /** What makes wrangler and the scripts ask this one. */
    env: {
      CLOUDFLARE_API_BASE_URL: "",
      CLOUDFLARE_ACCOUNT_ID: ACCOUNT_ID,
      CLOUDFLARE_API_TOKEN: "no-token-of-anybody",
    },
    /** Where a Worker of the account answers. */
    addressOf: (worker: string): string => `${origin}/${worker}`,
    /** Begins an outage, counting from now; `undefined` ends it. Forgets the calls so far. */
    begin: (next: Outage | undefined): void => {
      outage = next;
      calls.length = 0;
    },
    /** Empties the account, and ends every outage. */
    reset: (): void => {
      for (const things of Object.values(account)) things.clear();
      cloudflare.begin(undefined);
    },
    stop: (): Promise<void> => server.close(),
  };
  serveWorkers(server, account, () => cloudflare.countsEvents);
  const origin = await server.listen();
  cloudflare.env.CLOUDFLARE_API_BASE_URL = origin + BASE;
  return cloudflare;
}
