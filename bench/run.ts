// `npm run bench`: measures everything in one run, prints it, and writes RESULTS.md and results.json.
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { Command, InvalidArgumentError } from "commander";
import { describeMachine } from "./machine.ts";
import { measureBundle } from "./measures/bundle.ts";
import { measureCounted } from "./measures/counted.ts";
import { measureFreshness } from "./measures/freshness.ts";
import { measureHotCustomer } from "./measures/hot-customer.ts";
import { measurePeers } from "./measures/peer.ts";
import { measureReads } from "./measures/reads.ts";
import { measureStream } from "./measures/stream.ts";
import { measureSync } from "./measures/sync.ts";
import { type Progress, showProgress } from "./progress.ts";
import { judged, type Run, type Section, toMarkdown, toText } from "./report.ts";
import type { Measure } from "./results.ts";
import { readSettings } from "./settings.ts";

const MEASURES: readonly Measure[] = [
  { name: "bundle", title: "Bundle", run: measureBundle },
  { name: "sync", title: "Sync events", run: measureSync },
  { name: "hot", title: "One hot customer", run: measureHotCustomer },
  { name: "stream", title: "Streams", run: measureStream },
  { name: "freshness", title: "Freshness", run: measureFreshness },
  { name: "reads", title: "Reads", run: measureReads },
  { name: "counted", title: "Cost and scale", run: measureCounted },
  { name: "peer", title: "A peer: Fastify and PostgreSQL", run: measurePeers },
];

/** How long a round of a load lasts, when nothing is said: all together stay well under ten minutes. */
const SECONDS = 4;

type Options = { readonly only: readonly Measure[]; readonly seconds: number };

const command = new Command("npm run bench --")
  .description("Measures edgemeter beside its limits, on this machine and without the network.")
  .option(
    "--only <names>",
    `some of ${MEASURES.map(({ name }) => name).join(",")}; writes no results`,
    chosen,
    MEASURES,
  )
  .option("--seconds <n>", "how long each round of a load lasts", seconds, SECONDS)
  .parse();

const options = command.opts<Options>();
const run = await measureAll(options);
console.log(toText(run));
if (options.only === MEASURES) await write(run);
process.exitCode = run.sections.some(({ failed }) => failed !== undefined) ? 1 : 0;

async function measureAll({ only, seconds }: Options): Promise<Run> {
  const machine = await describeMachine();
  const progress = showProgress(only.length);
  const started = performance.now();
  const sections: Section[] = [];
  for (const measure of only) sections.push(await section(measure, seconds, progress));
  progress.end();
  const minutes = (performance.now() - started) / 60_000;
  return { machine: { ...machine, "time taken": `${minutes.toFixed(1)} minutes` }, seconds, sections };
}

/** What one measure came to; that it failed says nothing about the others. */
async function section({ name, title, run }: Measure, seconds: number, progress: Progress): Promise<Section> {
  progress.begin(title);
  try {
    const { figures, tables = [] } = await run({ seconds, settings: readSettings(), progress: progress.say });
    return { name, title, figures, tables };
  } catch (error) {
    const failed = error instanceof Error ? error.message : String(error);
    return { name, title, figures: [], tables: [], failed };
  }
}

async function write(run: Run): Promise<void> {
  const file = (name: string): string => path.join(import.meta.dirname, name);
  const aims = judged(run).map(({ aim, value = null, reached = null }) => ({ ...aim, value, reached }));
  await writeFile(file("RESULTS.md"), toMarkdown(run));
  await writeFile(file("results.json"), JSON.stringify({ ...run, aims }));
  const biome = path.join(import.meta.dirname, "../node_modules/.bin/biome");
  await promisify(execFile)(biome, ["format", "--write", file("RESULTS.md"), file("results.json")]);
  console.log("\nwritten to bench/RESULTS.md and bench/results.json");
}

function chosen(names: string): Measure[] {
  return names.split(",").map((name) => {
    const measure = MEASURES.find((candidate) => candidate.name === name);
    if (measure === undefined) throw new InvalidArgumentError(`there is no measure '${name}'.`);
    return measure;
  });
}

function seconds(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError("it must be a number of seconds.");
  return number;
}
