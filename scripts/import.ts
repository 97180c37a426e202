// `npm run import`: replays a file of usage into a meter. See --help.
import { CommandError } from "./command-error.ts";
import { parseOptions } from "./import/options.ts";
import { newTally, summaryLine } from "./import/report.ts";
import { runImport } from "./import/run.ts";

/** After an interruption, how long what is under way may take to end (ms). */
const GRACE_MS = 5_000;

const options = parseOptions(process.argv);
const tally = newTally();
const stop = new AbortController();
const started = performance.now();
const printSummary = (): void => console.log(summaryLine(tally, performance.now() - started));

let interrupted = false;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  // A terminal's Ctrl-C arrives twice, the second time from bootstrap.mjs.
  process.on(signal, () => {
    if (interrupted) return;
    interrupted = true;
    stop.abort();
    setTimeout(() => {
      printSummary();
      process.exit(130);
    }, GRACE_MS).unref();
  });
}

try {
  await runImport(options, tally, stop);
  printSummary();
  process.exitCode = tally.rejected > 0 ? 1 : 0;
} catch (error) {
  if (!(error instanceof CommandError)) throw error;
  if (!interrupted) console.error(`import: ${error.message}`);
  if (interrupted || tally.accepted + tally.duplicate + tally.rejected + tally.cancelled > 0) printSummary();
  process.exitCode = 2;
}
if (interrupted) process.exitCode = 130;
