import { Hono } from "hono";
import { listen } from "../listen.ts";
import { type Account, emptyAccount } from "./account.ts";
import { ApiFailure, type Routes, routesOf } from "./api.ts";
import { answerAsWorker } from "./stand-in.ts";

export const ACCOUNT_ID = "00000000000000000000000000000001";
const BASE = "/client/v4";

/** A call of the API as it came, its path below the account. */
export type Call = { readonly method: string; readonly path: string; readonly body: string };

/** From which call on (counted from 0) everything fails: refused undone, or done but never answered. */
export type Outage = { readonly from: number; readonly kind: "refused" | "unanswered" };

/** As much of Cloudflare's API as wrangler and the deployment use, on this computer. */
export type FakeCloudflare = {
  readonly account: Account;
  readonly calls: Call[];
  /** What was asked for that it does not know: a test that sees any is wrong about Cloudflare. */
  readonly unknown: string[];
  /** What makes wrangler and the scripts ask this one. */
  readonly env: NodeJS.ProcessEnv;
  /** Where a Worker of the account answers. */
  readonly addressOf: (worker: string) => string;
  /** Whether Workers count what they are sent: `false` for queues that deliver nothing. */
  countsEvents: boolean;
  /** Whether its credentials are good. */
  isAllowed: boolean;
  /** Begins an outage, counting from now; `undefined` ends it. Forgets the calls so far. */
  readonly begin: (outage: Outage | undefined) => void;
  /** Empties the account, and ends every outage. */
  readonly reset: () => void;
  readonly stop: () => Promise<void>;
};

const failure = (status: number, code: number, message: string): Response =>
  Response.json({ success: false, errors: [{ code, message }], messages: [], result: null }, { status });

export async function startCloudflare(): Promise<FakeCloudflare> {
  const account = emptyAccount();
  const unknown: string[] = [];
  const api = apiOf(routesOf(account), unknown);
  let outage: Outage | undefined;

  const answer = async (request: Request): Promise<Response | undefined> => {
    const url = new URL(request.url);
    const body = await request.clone().text();
    if (!url.pathname.startsWith(BASE)) return answerAsWorker(account, cloudflare.countsEvents, request, body);
    const path = url.pathname.slice(BASE.length).replace(`/accounts/${ACCOUNT_ID}`, "") || "/";
    const fails = outage !== undefined && cloudflare.calls.length >= outage.from;
    cloudflare.calls.push({ method: request.method, path: path + url.search, body });
    if (!cloudflare.isAllowed) return failure(403, 10_000, "Authentication error");
    if (fails && outage?.kind === "refused") return failure(500, 10_000, "an outage of the test");
    const response = await api.fetch(request);
    return fails ? undefined : response;
  };

  const { url: origin, close } = await listen(answer, (error) => unknown.push(String(error)));

  const cloudflare: FakeCloudflare = {
    ...{ account, unknown, calls: [], countsEvents: true, isAllowed: true },
    env: {
      CLOUDFLARE_API_BASE_URL: origin + BASE,
      CLOUDFLARE_ACCOUNT_ID: ACCOUNT_ID,
      CLOUDFLARE_API_TOKEN: "no-token-of-anybody",
    },
    addressOf: (worker) => `${origin}/${worker}`,
    begin: (next) => {
      outage = next;
      cloudflare.calls.length = 0;
    },
    reset: () => {
      for (const things of Object.values(account)) things.clear();
      cloudflare.begin(undefined);
    },
    stop: close,
  };
  return cloudflare;
}

function apiOf(routes: Routes, unknown: string[]): Hono {
  const api = new Hono();
  api.get(`${BASE}/accounts`, (c) => c.json({ success: true, result: [{ id: ACCOUNT_ID, name: "the only one" }] }));
  for (const [route, handle] of Object.entries(routes)) {
    const [method = "", path = ""] = route.split(" ");
    api.on(method, `${BASE}/accounts/${ACCOUNT_ID}${path}`, async (c) => {
      const text = await c.req.raw.clone().text();
      const call = {
        params: c.req.param(),
        query: new URL(c.req.url).searchParams,
        json: () => JSON.parse(text),
        form: () => c.req.raw.formData(),
      };
      return c.json({ success: true, errors: [], messages: [], result: (await handle(call)) ?? null });
    });
  }
  api.notFound((c) => {
    unknown.push(`${c.req.method} ${c.req.path}`);
    return failure(404, 7_003, `Could not route to ${c.req.path}`);
  });
  api.onError((error) => {
    if (error instanceof ApiFailure) return failure(error.status, error.code, error.message);
    throw error;
  });
  return api;
}
