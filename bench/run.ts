// `npm run bench`: measures everything in one run, prints it, and writes RESULTS.md.
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { inspect, promisify } from "node:util";
import { SingleBar } from "cli-progress";
import { Command, InvalidArgumentError } from "commander";
import { describeMachine } from "./machine.ts";
import { measureArchive } from "./measures/archive.ts";
import { measureArchiveLatency } from "./measures/archive-latency.ts";
import { measureBundle } from "./measures/bundle.ts";
import { measureBytes } from "./measures/bytes.ts";
import { measureCodec } from "./measures/codec.ts";
import { measureCounted } from "./measures/counted.ts";
import { measureFreshness } from "./measures/freshness.ts";
import { measureGrowth } from "./measures/growth.ts";
import { measureImport } from "./measures/import.ts";
import { measurePeer } from "./measures/peer.ts";
import { measureReads } from "./measures/reads.ts";
import { measureStream } from "./measures/stream.ts";
import { measureHotCustomer, measureSync } from "./measures/sync.ts";
import { measureUsage } from "./measures/usage.ts";
import { type Run, type Section, toMarkdown } from "./report.ts";
import type { Bench, Measured } from "./results.ts";
import { git, presentSide, root, sideAt } from "./sides.ts";

type Measure = {
  readonly name: string;
  readonly title: string;
  readonly run: (bench: Bench) => Promise<Measured>;
};

const MEASURES: readonly Measure[] = [
  { name: "bundle", title: "Bundle", run: measureBundle },
  { name: "sync", title: "Sync events", run: measureSync },
  { name: "hot", title: "One hot customer", run: measureHotCustomer },
  { name: "stream", title: "Streams", run: measureStream },
  { name: "freshness", title: "Freshness", run: measureFreshness },
  { name: "import", title: "Import of a usage file", run: measureImport },
  { name: "bytes", title: "Bytes an event takes", run: measureBytes },
  { name: "codec", title: "Codec of the log", run: measureCodec },
  { name: "growth", title: "Growth of the log", run: measureGrowth },
  { name: "reads", title: "Reads", run: measureReads },
  { name: "usage", title: "Usage", run: measureUsage },
  { name: "archive", title: "Archive", run: measureArchive },
  { name: "archive-latency", title: "Events while the archive and the auditors work", run: measureArchiveLatency },
  { name: "counted", title: "Cost and scale", run: measureCounted },
  { name: "peer", title: "A peer: Fastify and PostgreSQL", run: measurePeer },
];

type Options = Pick<Bench, "rounds" | "seconds"> & { readonly only: readonly Measure[]; readonly against?: string };

const NAMES = MEASURES.map(({ name }) => name).join(",");

const options = new Command("npm run bench --")
  .description("Measures edgemeter beside its limits, on this machine and without the network.")
  .option("--only <names>", `some of ${NAMES}; writes no results`, chosen, MEASURES)
  .option("--against <commit>", "measures this commit's Worker too, in turn with the present one")
  .option("--rounds <n>", "how often what is compared is measured", positive, 5)
  .option("--seconds <n>", "how long each round of a load lasts", positive, 4)
  .parse()
  .opts<Options>();
const run = await measureAll(options);
const markdown = toMarkdown(run);
console.log(markdown);
if (options.only === MEASURES) {
  const file = path.join(import.meta.dirname, "RESULTS.md");
  await writeFile(file, markdown);
  await promisify(execFile)(path.join(root, "node_modules/.bin/biome"), ["format", "--write", file]);
  console.log("written to bench/RESULTS.md");
}
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
  for (const { title, run } of only) {
    bar.update(sections.length, { title, text: "starting" });
    const bench = { rounds, seconds, sides, progress: (text: string) => bar.update({ text }) };
    // That one fails says nothing about the others.
    const measured = await run(bench).catch((error) => ({ figures: [], failed: inspect(error) }));
    sections.push({ title, ...measured });
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
