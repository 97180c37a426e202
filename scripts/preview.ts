// `npm run preview`: deploys a branch beside everything else, under names of its own. See --help.
import { Option } from "commander";
import { UNRESTRICTED } from "../src/domain/permissions.ts";
import { addressOption, commandLine, run, waitOption } from "./command.ts";
import { connect } from "./deploy/cloudflare.ts";
import { runOn } from "./deploy/database.ts";
import { deploy } from "./deploy/deploy.ts";
import { configuredNames } from "./deploy/target.ts";
import { createKey, hasWorkingKey } from "./keys/keys.ts";
import { withPreview } from "./preview/config.ts";
import { currentBranch, previewNames } from "./preview/names.ts";
import { allowPreviews, claim } from "./preview/resources.ts";
import type { RunSql } from "./sql.ts";

/** When a run makes a key: if there is none that works, each time, or not at all. */
const KEY_CHOICES = ["first", "always", "never"] as const;
type KeyChoice = (typeof KEY_CHOICES)[number];

const HELP = `
What is deployed is the code of this folder, with wrangler.toml's top level: a Worker of its own, with databases,
queues, logs and keys of its own, and without a bucket. On the account of production only with PREVIEWS=this-account.
Run again, it brings the preview up to date. npm run preview:delete deletes it.

Exit code: 0 deployed and well, 1 not, 2 the command line is wrong.
`;

type Options = { readonly branch?: string; readonly key: KeyChoice; readonly url?: string; readonly wait: number };

const program = commandLine("preview", "Deploys a branch as a preview.", HELP)
  .option("--branch <name>", "which branch's preview it is (default: the one that is checked out)")
  .addOption(
    new Option("--key <when>", "make and print a test key: when there is none yet, or always, or never")
      .choices(KEY_CHOICES)
      .default("first"),
  )
  .addOption(addressOption())
  .addOption(waitOption())
  .action(async ({ branch, key, url, wait }: Options) => {
    const { worker, environments } = await configuredNames();
    const names = previewNames(branch ?? (await currentBranch()), worker, environments);
    await withPreview(names, async (target) => {
      const cloudflare = await connect(target.account);
      await allowPreviews(cloudflare, worker, process.env.PREVIEWS);
      console.log(`${target.worker}, a preview of ${names.branch}, on account ${cloudflare.account}`);
      const database = await claim(cloudflare, target, names.branch);
      const options = { log: console.log, url, patienceMs: wait, dryRun: false };
      const address = await deploy(cloudflare, target, options);
      console.log(`address   ${address}`);
      const secret = await makeKey(runOn(cloudflare, database), key);
      if (secret !== undefined) console.log(`key       ${secret}\n\nThe key is not shown again.`);
      else if (key === "first") console.log("\nIt has a key already; --key always makes another one.");
    });
  });

await run("preview", 1, () => program.parseAsync());

/** A new test key, or `undefined` when none is to be made. Only the caller gets it. */
async function makeKey(database: RunSql, choice: KeyChoice): Promise<string | undefined> {
  if (choice === "never" || (choice === "first" && (await hasWorkingKey(database)))) return undefined;
  const key = { name: "preview", livemode: false, permissions: UNRESTRICTED };
  return (await createKey(database, key, Date.now())).secret;
}
