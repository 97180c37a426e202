import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { runWrangler } from "../wrangler.ts";

/** The headers that say who asks. Never printed. */
export type Credentials = Readonly<Record<string, string>>;

/** What `wrangler auth token --json` prints. */
const Token = z.union([
  z.object({ type: z.enum(["oauth", "api_token"]), token: z.string() }),
  z.object({ type: z.literal("api_key"), key: z.string(), email: z.string() }),
]);

/** CLOUDFLARE_API_TOKEN, or whom wrangler is logged in as. Throws a CommandError when that is nobody. */
export async function credentials(): Promise<Credentials> {
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
export function accountOf(accounts: readonly { readonly id: string; readonly name: string }[]): string {
  const [account, ...others] = accounts;
  if (account === undefined) throw new CommandError("these credentials have no account; set CLOUDFLARE_ACCOUNT_ID.");
  if (others.length === 0) return account.id;
  const names = accounts.map(({ id, name }) => `${id} (${name})`).join(", ");
  throw new CommandError(`these credentials have several accounts; set CLOUDFLARE_ACCOUNT_ID to one of ${names}.`);
}
