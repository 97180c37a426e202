// `npm run keys`: makes, lists and revokes API keys. See --help.
import { type Command, InvalidArgumentError, Option } from "commander";
import { FRESH_MS } from "../src/catalog/positive-cache.ts";
import { GRANTS, UNRESTRICTED, writePermissions } from "../src/domain/permissions.ts";
import { isStorable } from "../src/domain/text.ts";
import { commandLine, run } from "./command.ts";
import { type Where, withKeys } from "./keys/database.ts";
import { createKey, keyTable, listKeys, revokeKey } from "./keys/keys.ts";
import { table } from "./table.ts";

const NAME_LENGTH = 100;

const HELP = `
The keys are those of the local server (STATE_DIR, default .edgemeter), whether it runs or not. With
--remote they are those of the deployment on Cloudflare: of CLOUDFLARE_API_TOKEN, or whom wrangler is logged in as.

A key reports, reads and manages everything in its mode. With --permission it is restricted: 'ingest' may
report and cancel events and open stream sessions, 'read' may make every GET, and 'operate' may make every
GET and run audit, redrive, resend and erase, which no other key may.

Exit code: 0 done (also when the key was revoked before), 1 not done, 2 the command line is wrong.

Examples:
  npm run keys -- create --name "Search backend" --live --permission ingest
  npm run keys -- revoke key_…
`;

type Options = { readonly remote?: boolean; readonly env?: string };
type Create = Options & { readonly name: string; readonly live?: boolean; readonly permission?: keyof typeof GRANTS };

const program = commandLine("keys", "Makes, lists and revokes API keys.", HELP);

command("create", "makes a key, and prints it this once")
  .requiredOption("--name <name>", "what it is for", keyName)
  .option("--live", "for live mode instead of test mode")
  .addOption(new Option("--permission <permission>", "restrict it to this").choices(Object.keys(GRANTS)))
  .action(async ({ name, live = false, permission, ...where }: Create) => {
    const permissions = permission === undefined ? UNRESTRICTED : GRANTS[permission];
    const key = { name, livemode: live, permissions };
    const { id, secret } = await withKeys(whereOf(where), (database) => createKey(database, key, Date.now()));
    const made = { id, name, mode: live ? "live" : "test", may: writePermissions(permissions), key: secret };
    console.log(table(Object.entries(made)));
    console.error("\nThe key is not shown again: only its SHA-256 is stored.");
  });

command("list", "lists all keys").action(async (where: Options) => {
  console.log(keyTable(await withKeys(whereOf(where), listKeys)));
});

command("revoke", "revokes a key for good")
  .argument("<id>", "its id, as list shows it")
  .action(async (id: string, where: Options) => {
    const { revoked, before } = await withKeys(whereOf(where), (database) => revokeKey(database, id, Date.now()));
    const since = new Date(revoked).toISOString();
    console.log(
      before
        ? `${id} was revoked before, at ${since}.`
        : `${id} is revoked. Servers that know it stop taking it within ${FRESH_MS / 1_000} seconds.`,
    );
  });

await run("keys", 1, () => program.parseAsync());

function command(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option("--remote", "of the deployment instead of the local server")
    .option("--env <name>", "of this environment of the deployment");
}

/** Where the keys are. Ends the program when the command line does not say it well. */
function whereOf({ remote = false, env }: Options): Where {
  if (remote) return { env: env ?? process.env.CLOUDFLARE_ENV ?? "" };
  return env === undefined ? "local" : program.error("error: --env is of a deployment, so it needs --remote");
}

function keyName(text: string): string {
  if (text.trim() === "" || text.length > NAME_LENGTH || !isStorable(text) || /[\p{Cc}\p{Zl}\p{Zp}]/u.test(text)) {
    throw new InvalidArgumentError(`It must be 1 to ${NAME_LENGTH} characters on one line.`);
  }
  return text;
}
