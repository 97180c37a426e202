import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { type Account, emptyAccount } from "./account.ts";
import { DATABASE_ROUTES } from "./databases.ts";
import { QUEUE_ROUTES } from "./queues.ts";
import { ApiFailure, type Route } from "./route.ts";
import { answerAsWorker } from "./stand-in.ts";
import { DOMAIN_ROUTES, WORKER_ROUTES } from "./workers.ts";

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
  /** Begins an outage, counting from now; `undefined` ends it. Forgets the calls so far. */
  readonly begin: (outage: Outage | undefined) => void;
  readonly stop: () => Promise<void>;
};

/** The one account that its credentials have. */
const ACCOUNTS: Route = ["GET", "/accounts", () => [{ id: ACCOUNT_ID, name: "the only one" }]];

const ROUTES: readonly Route[] = [ACCOUNTS, ...WORKER_ROUTES, ...DOMAIN_ROUTES, ...DATABASE_ROUTES, ...QUEUE_ROUTES];

export async function startCloudflare(): Promise<FakeCloudflare> {
  const account = emptyAccount();
  const calls: Call[] = [];
  const unknown: string[] = [];
  let outage: Outage | undefined;

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? "", "http://cloudflare");
    const { method = "" } = request;
    const body = await buffer(request);
    if (!url.pathname.startsWith(BASE)) {
      const headers = new Headers({ authorization: request.headers.authorization ?? "" });
      const answered = answerAsWorker(account, cloudflare.countsEvents, method, url, headers, body.toString("utf8"));
      return send(response, answered.status, answered.body);
    }
    const path = url.pathname.slice(BASE.length).replace(`/accounts/${ACCOUNT_ID}`, "") || "/";
    const fails = outage !== undefined && calls.length >= outage.from;
    calls.push({ method, path: path + url.search, body: body.toString("utf8") });
    if (fails && outage?.kind === "refused") {
      return send(response, 500, failure(10_000, "an outage of the test"));
    }
    const answered = await result(method, path, url.searchParams, body, request.headers["content-type"] ?? "");
    if (fails) return void response.destroy();
    send(response, answered.status, answered.body);
  };

  const result = async (
    method: string,
    path: string,
    query: URLSearchParams,
    body: Buffer,
    type: string,
  ): Promise<{ status: number; body: object }> => {
    const found = match(method, path);
    if (found === undefined) {
      unknown.push(`${method} ${path}`);
      return { status: 404, body: failure(7_003, `Could not route to ${path}`) };
    }
    try {
      const answered = await found.handle({
        account,
        params: found.params,
        query,
        json: () => JSON.parse(body.toString("utf8")),
        form: () => new Response(new Uint8Array(body), { headers: { "content-type": type } }).formData(),
      });
      return { status: 200, body: success(answered) };
    } catch (error) {
      if (error instanceof ApiFailure) return { status: error.status, body: failure(error.code, error.message) };
      throw error;
    }
  };

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      unknown.push(`${request.method} ${request.url}: ${String(error)}`);
      response.destroy();
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const cloudflare: FakeCloudflare = {
    account,
    calls,
    countsEvents: true,
    unknown,
    env: {
      CLOUDFLARE_API_BASE_URL: origin + BASE,
      CLOUDFLARE_ACCOUNT_ID: ACCOUNT_ID,
      CLOUDFLARE_API_TOKEN: "no-token-of-anybody",
    },
    addressOf: (worker) => `${origin}/${worker}`,
    begin: (next) => {
      outage = next;
      calls.length = 0;
    },
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return cloudflare;
}

function match(method: string, path: string): { params: string[]; handle: Route[2] } | undefined {
  const segments = path.split("/").map(decodeURIComponent);
  for (const [routeMethod, pattern, handle] of ROUTES) {
    const expected = pattern.split("/");
    const fits = expected.every((part, index) => part === "*" || part === segments[index]);
    if (routeMethod === method && fits && expected.length === segments.length) {
      return { handle, params: segments.filter((_, index) => expected[index] === "*") };
    }
  }
  return undefined;
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

const success = (result: unknown): object => ({ success: true, errors: [], messages: [], result });

const failure = (code: number, message: string): object => ({
  success: false,
  errors: [{ code, message }],
  messages: [],
  result: null,
});
