// `npm run preview:delete`: deletes the preview of a branch, and nothing else. See --help.
import { commandLine, run } from "./command.ts";
import { connect } from "./deploy/cloudflare.ts";
import { configuredNames, targetOf } from "./deploy/target.ts";
import { currentBranch, previewNames } from "./preview/names.ts";
import { removePreview } from "./preview/resources.ts";

const HELP = `
What is deleted is what npm run preview made for the branch: its Worker with its logs, its queues, and its databases.
What it did not make is left alone, whatever it is called. It can be run again at any time.

Exit code: 0 there is no such preview any more, 1 it could not be deleted, 2 the command line is wrong.
`;

const program = commandLine("preview:delete", "Deletes the preview of a branch.", HELP)
  .option("--branch <name>", "which branch's preview (default: the one that is checked out)")
  .action(async ({ branch }: { readonly branch?: string }) => {
    const { worker, environments } = await configuredNames();
    const names = previewNames(branch ?? (await currentBranch()), worker, environments);
    const cloudflare = await connect((await targetOf()).account);
    console.log(`${names.worker}, the preview of ${names.branch}, on account ${cloudflare.account}`);
    await removePreview(cloudflare, names, console.log);
  });

await run("preview:delete", 1, () => program.parseAsync());
