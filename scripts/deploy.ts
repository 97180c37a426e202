// `npm run deploy`: brings a Cloudflare account to what wrangler.toml says. See --help.
import { addressOption, commandLine, run, waitOption } from "./command.ts";
import { connect } from "./deploy/cloudflare.ts";
import { deploy } from "./deploy/deploy.ts";
import { targetOf } from "./deploy/target.ts";

const HELP = `
Makes what the account lacks (databases, their tables, the bucket, queues, the SESSION_SECRET), deploys the Worker
and waits until it answers. It can be run again at any time: it finishes what was begun, and changes nothing that is
as it should be. Who asks is CLOUDFLARE_API_TOKEN (and CLOUDFLARE_ACCOUNT_ID), or whom wrangler is logged in as.

Exit code: 0 deployed and well, 1 not, 2 the command line is wrong.
`;

type Options = { readonly env?: string; readonly dryRun?: boolean; readonly url?: string; readonly wait: number };

const program = commandLine("deploy", "Deploys edgemeter: production, or an environment of wrangler.toml.", HELP)
  .option("--env <name>", "an environment of wrangler.toml instead of its top level")
  .option("--dry-run", "only say what would be done")
  .addOption(addressOption())
  .addOption(waitOption())
  .action(async ({ env = process.env.CLOUDFLARE_ENV, dryRun = false, url, wait }: Options) => {
    const target = await targetOf(env);
    const cloudflare = await connect(target.account);
    console.log(`${target.worker}, on account ${cloudflare.account}`);
    const address = await deploy(cloudflare, target, { log: console.log, url, patienceMs: wait, dryRun });
    console.log(`address   ${address}`);
    if (dryRun) return console.log("\nNothing was changed.");
    const environment = env ? ` --env ${env}` : "";
    console.log(`\nA live key:  npm run keys -- create --live --name "My backend" --remote${environment}`);
  });

await run("deploy", 1, () => program.parseAsync());
