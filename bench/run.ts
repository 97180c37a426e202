// `npm run bench`: measures everything in one run, prints it, and writes RESULTS.md and results.json.
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { inspect, promisify } from "node:util";
import { SingleBar } from "cli-progress";
import { Command, InvalidArgumentError } from "commander";
import { describeMachine } from "./machine.ts";
import { measureBundle } from "./measures/bundle.ts";
import { measureCounted } from "./measures/counted.ts";
import { measureFreshness } from "./measures/freshness.ts";
import { measurePeer } from "./measures/peer.ts";
import { measureReads } from "./measures/reads.ts";
import { measureStream } from "./measures/stream.ts";
import { measureHotCustomer, measureSync } from "./measures/sync.ts";
import { judged, type Run, type Section, toMarkdown } from "./report.ts";
import { type Bench, type Measure, median } from "./results.ts";
import { git, presentSide, root, sideAt } from "./sides.ts";

const MEASURES: readonly Measure[] = [
  { name: "bundle", title: "Bundle", run: measureBundle },
  { name: "sync", title: "Sync events", run: measureSync },
  { name: "hot", title: "One hot customer", run: measureHotCustomer },
  { name: "stream", title: "Streams", run: measureStream },
  { name: "freshness", title: "Freshness", run: measureFreshness },
  { name: "reads", title: "Reads", run: measureReads },
  { name: "counted", title: "Cost and scale", run: measureCounted },
  { name: "peer", title: "A peer: Fastify and PostgreSQL", run: measurePeer },
];

type Options = Pick<Bench, "rounds" | "seconds"> & { readonly only: readonly Measure[]; readonly against?: string };

const command = new Command("npm run bench --")
  .description("Measures edgemeter beside its limits, on this machine and without the network.")
  .option(
    "--only <names>",
    `some of ${MEASURES.map(({ name }) => name).join(",")}; writes no results`,
    chosen,
    MEASURES,
  )
  .option("--against <commit>", "measures this commit's Worker too, in turn with the present one")
  .option("--rounds <n>", "how often what is compared is measured", positive, 5)
  .option("--seconds <n>", "how long each round of a load lasts", positive, 4)
  .parse();

const options = command.opts<Options>();
const run = await measureAll(options);
console.log(toMarkdown(run));
if (options.only === MEASURES) await write(run);
process.exitCode = run.sections.some(({ failed }) => failed !== undefined) ? 1 : 0;

async function measureAll({ only, against, rounds, seconds }: Options): Promise<Run> {
  const started = performance.now();
  const commit = against && (await git("rev-parse", "--short", `${against}^{commit}`));
  const present = await presentSide();
  const sides: Bench["sides"] = commit ? [present, await sideAt(commit)] : [present];
  const format = "{bar} {value}/{total} · {title}: {text}";
  const bar = new SingleBar({ format, hideCursor: true, noTTYOutput: true, notTTYSchedule: 10_000 });
  bar.start(only.length, 0, { title: "", text: "" });
  const sections: Section[] = [];
  for (const measure of only) {
    bar.update(sections.length, { title: measure.title, text: "starting" });
    const progress = (text: string): void => bar.update({ text });
    sections.push(await section(measure, { rounds, seconds, sides, progress }));
  }
  bar.update(only.length, { title: "done", text: "" });
  bar.stop();
  const machine = {
    ...(await describeMachine()),
    ...(commit && { "compared with": commit }),
    rounds: `${rounds}, of ${seconds} s`,
    "time taken": `${((performance.now() - started) / 60_000).toFixed(1)} minutes`,
  };
  return { machine, against: commit, sections };
}

/** What one measure came to; that it failed says nothing about the others. */
async function section({ name, title, run }: Measure, bench: Bench): Promise<Section> {
  try {
    const { figures, tables = [] } = await run(bench);
    return { name, title, figures, tables };
  } catch (error) {
    const failed = inspect(error);
    return { name, title, figures: [], tables: [], failed };
  }
}

async function write(run: Run): Promise<void> {
  const files = ["RESULTS.md", "results.json"].map((name) => path.join(import.meta.dirname, name));
  const [markdown = "", json = ""] = files;
  const sections = run.sections.map(({ figures, ...section }) => ({
    ...section,
    figures: figures.map((figure) => ({ ...figure, value: median(figure.rounds) })),
  }));
  await writeFile(markdown, toMarkdown(run));
  await writeFile(json, JSON.stringify({ ...run, sections, aims: judged(run.sections) }));
  await promisify(execFile)(path.join(root, "node_modules/.bin/biome"), ["format", "--write", ...files]);
  console.log("written to bench/RESULTS.md and bench/results.json");
}

function chosen(names: string): Measure[] {
  return names.split(",").map((name) => {
    const measure = MEASURES.find((candidate) => candidate.name === name);
    if (measure === undefined) throw new InvalidArgumentError(`there is no measure '${name}'.`);
    return measure;
  });
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError("it must be a number above 0.");
  return number;
}
