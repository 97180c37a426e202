import pRetry from "p-retry";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { reasonOf } from "../http.ts";
import { runWrangler } from "../wrangler.ts";

const ANSWER_TIMEOUT_MS = 60_000;

type Headers = Readonly<Record<string, string>>;

/** The headers that say who asks. Never printed. */
type Credentials = Headers;

/** What `wrangler auth token --json` prints. */
const Token = z.union([
  z.object({ type: z.enum(["oauth", "api_token"]), token: z.string() }),
  z.object({ type: z.literal("api_key"), key: z.string(), email: z.string() }),
]);

/** CLOUDFLARE_API_TOKEN, or the account that wrangler is logged in to. Throws a CommandError without either. */
async function credentials(): Promise<Credentials> {
  const token = process.env.CLOUDFLARE_API_TOKEN;
  if (token !== undefined && token !== "") return { authorization: `Bearer ${token}` };
  const { ok, stdout } = await runWrangler(["auth", "token", "--json"]);
  const who = Token.safeParse(ok ? JSON.parse(stdout) : undefined);
  if (!who.success) {
    throw new CommandError("Cloudflare does not know you: set CLOUDFLARE_API_TOKEN, or run npx wrangler login.");
  }
  return who.data.type === "api_key"
    ? { "x-auth-key": who.data.key, "x-auth-email": who.data.email }
    : { authorization: `Bearer ${who.data.token}` };
}

/** The one account that there is. Throws a CommandError that names them when there are several. */
function accountOf(accounts: readonly { readonly id: string; readonly name: string }[]): string {
  const [account, ...others] = accounts;
  if (account === undefined) throw new CommandError("these credentials have no account; set CLOUDFLARE_ACCOUNT_ID.");
  if (others.length === 0) return account.id;
  const names = accounts.map(({ id, name }) => `${id} (${name})`).join(", ");
  throw new CommandError(`these credentials have several accounts; set CLOUDFLARE_ACCOUNT_ID to one of ${names}.`);
}

/**
 * Cloudflare's API, below one account. It throws a CommandError with Cloudflare's own words when it
 * refuses or does not answer. Reads are tried again, everything else is the next run's.
 */
export type Cloudflare = {
  readonly account: string;
  /** Reads what may not be there: `undefined` when Cloudflare says that it is not. */
  readonly find: <T>(path: string, result: z.ZodType<T>, headers?: Headers) => Promise<T | undefined>;
  readonly post: <T>(path: string, body: object, result: z.ZodType<T>, headers?: Headers) => Promise<T>;
  readonly put: <T>(path: string, body: object, result: z.ZodType<T>) => Promise<T>;
  /** Deletes what may not be there any more. */
  readonly remove: (path: string) => Promise<void>;
};

const Answer = z.object({
  success: z.boolean(),
  errors: z.array(z.object({ code: z.number(), message: z.string() })).default([]),
  result: z.unknown(),
});

type Answer = { readonly status: number } & z.output<typeof Answer>;

/** Read where wrangler reads it, so that both ask the same. */
const apiAddress = (): string => process.env.CLOUDFLARE_API_BASE_URL ?? "https://api.cloudflare.com/client/v4";

/** As whom wrangler is, on the account that it would take. `configured` is wrangler.toml's account, if it has one. */
export async function connect(configured: string | undefined): Promise<Cloudflare> {
  const who = await credentials();
  const account = process.env.CLOUDFLARE_ACCOUNT_ID || configured || accountOf(await read(who, "/accounts", Accounts));
  const below = (path: string): string => `/accounts/${account}${path}`;
  const write = async <T>(
    method: "POST" | "PUT",
    path: string,
    body: object,
    result: z.ZodType<T>,
    headers: Headers = {},
  ): Promise<T> => {
    const answer = await ask({ ...who, ...headers }, method, below(path), body);
    if (!answer.success) throw refused(method, path, answer);
    return understood(method, path, answer, result);
  };
  return {
    account,
    find: (path, result, headers = {}) => read({ ...who, ...headers }, below(path), result.optional()),
    post: (path, body, result, headers) => write("POST", path, body, result, headers),
    put: (path, body, result) => write("PUT", path, body, result),
    remove: async (path) => {
      const answer = await ask(who, "DELETE", below(path));
      if (!answer.success && answer.status !== 404) throw refused("DELETE", path, answer);
    },
  };
}

const Accounts = z.array(z.object({ id: z.string(), name: z.string() }));

async function read<T>(who: Credentials, path: string, result: z.ZodType<T>): Promise<T> {
  const answer = await pRetry(
    async () => {
      const tried = await ask(who, "GET", path);
      if (tried.status >= 500 || tried.status === 429) throw refused("GET", path, tried);
      return tried;
    },
    { retries: 2, minTimeout: 100, shouldRetry: ({ error }) => error instanceof CommandError },
  );
  if (answer.status === 404) return understood("GET", path, { ...answer, result: undefined }, result);
  if (!answer.success) throw refused("GET", path, answer);
  return understood("GET", path, answer, result);
}

async function ask(who: Credentials, method: string, path: string, body?: object): Promise<Answer> {
  try {
    const response = await fetch(apiAddress() + path, {
      method,
      headers: { ...who, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
    const answered = Answer.safeParse(await response.json().catch(() => undefined));
    const { status } = response;
    return answered.success ? { status, ...answered.data } : { status, success: false, errors: [], result: undefined };
  } catch (error) {
    throw new CommandError(`Cloudflare did not answer ${method} ${path}: ${reasonOf(error)}`);
  }
}

function refused(method: string, path: string, { status, errors }: Answer): CommandError {
  const reasons = errors.map(({ code, message }) => `${message} [${code}]`).join("; ");
  return new CommandError(`Cloudflare refused ${method} ${path}: ${reasons || `status ${status}`}`);
}

function understood<T>(method: string, path: string, { result }: Answer, expected: z.ZodType<T>): T {
  const parsed = expected.safeParse(result);
  if (parsed.success) return parsed.data;
  throw new CommandError(
    `Cloudflare's answer to ${method} ${path} is not understood: ${z.prettifyError(parsed.error)}`,
  );
}
