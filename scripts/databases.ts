// `npm run databases`: writes more events databases into wrangler.toml. See --help.
import { commandLine, matching, run } from "./command.ts";
import { growTo } from "./deploy/grow.ts";
import { CONFIG } from "./deploy/target.ts";

const HELP = `
Live mode's events are in EVENTS_0, EVENTS_1, and so on. The blocks that are missing are written into
wrangler.toml, and nothing else of it changes. The next npm run deploy makes the databases, and new events go to
all of them; locally, the next npm start. There is no way back to fewer.

Exit code: 0 wrangler.toml has them, 1 it cannot, 2 the command line is wrong.

Example: npm run databases -- 4
`;

const program = commandLine("databases", "Says how many databases live mode's events are in.", HELP)
  .argument("<count>", "how many", matching(/^([1-9]\d{0,2}|1000)$/, "It must be a number from 1 to 1000.", Number))
  .option("--env <name>", "an environment of wrangler.toml instead of its top level")
  .action(async (count: number, { env = "" }: { readonly env?: string }) => {
    const added = await growTo(count, env, CONFIG);
    if (added === 0) return console.log(`wrangler.toml has ${count} already.`);
    console.log(`wrangler.toml has ${count} now, ${added} of them new. This makes them, and has events go to all:`);
    console.log(`\n  npm run deploy${env === "" ? "" : ` -- --env ${env}`}`);
  });

await run("databases", 1, () => program.parseAsync());
