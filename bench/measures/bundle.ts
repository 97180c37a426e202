// What a deployment uploads, as Cloudflare measures it, and how long a Worker takes to start.
import { mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { unstable_readConfig } from "wrangler";
import { bundle } from "../local-workerd.ts";
import { type Bench, figure, inTurn, type Measured, median, type Sample, type Values } from "../results.ts";
import { type Side, scratch } from "../sides.ts";
import { startUp, writeConfig } from "../start-up.ts";

/** A request that takes what an event's does at the edge, up to the key that it lacks. */
const FIRST = { method: "POST", path: "/v2/billing/meter_events" };

/** How often workerd is started in a round, of which the median counts. */
const STARTS = 5;

const MAIN = "index.js";

/** Has no more than a Worker must. */
const EMPTY = "export default { fetch: () => new Response() };";

export async function measureBundle(bench: Bench): Promise<Measured> {
  const [side, other] = bench.sides;
  const present = await build(side);
  const base = other && (await build(other));
  const of = (size: (module: Buffer) => number) => ({
    rounds: [kilobytes(present.modules, size)],
    base: base && [kilobytes(base.modules, size)],
  });
  const folder = await mkdtemp(path.join(scratch, "empty-"));
  await writeFile(path.join(folder, MAIN), EMPTY);
  const empty = await writeConfig(folder, [MAIN], present.date);
  const taken = await inTurn(
    bench,
    { worker: (_, { base: isBase }) => medianStart(isBase && base ? base.start : present.start) },
    { empty: () => medianStart(empty) },
  );
  const aboveEmpty = (field: string): Values => {
    const [worker, none] = [taken("worker", field), taken("empty", field).rounds];
    const less = (values: readonly number[]) => values.map((value, round) => value - (none[round] ?? Number.NaN));
    return { rounds: less(worker.rounds), base: worker.base && less(worker.base) };
  };
  return {
    figures: [
      figure(
        "bundle",
        "Worker bundle, minified + gzip",
        "KB",
        of((module) => gzipSync(module).length),
      ),
      figure(
        "bundle-minified",
        "  minified",
        "KB",
        of((module) => module.length),
      ),
      figure("start-up", "start-up, above an empty Worker", "ms", aboveEmpty("ms")),
      figure("start-up-cpu", "  processor time", "ms", aboveEmpty("cpu")),
    ],
  };
}

/** What is uploaded of a side, and what workerd starts it with. */
type Built = { readonly modules: readonly Buffer[]; readonly start: string; readonly date: string };

async function build({ config }: Side): Promise<Built> {
  const folder = await bundle(config, ["--minify"]);
  // Beside the modules wrangler writes their maps, and a note on what they are.
  const names = (await readdir(folder)).filter((name) => name !== "README.md" && !name.endsWith(".map"));
  const modules = await Promise.all(names.map((name) => readFile(path.join(folder, name))));
  const { compatibility_date: date = "" } = unstable_readConfig({ config });
  return { modules, date, start: await writeConfig(folder, names, date) };
}

/** Processes of one machine differ more from each other than versions do, so a round is the median of several. */
async function medianStart(config: string): Promise<Sample> {
  const samples: Sample[] = [];
  for (let start = 0; start < STARTS; start++) samples.push(await startUp(config, FIRST));
  const of = (field: string): number => median(samples.map((sample) => sample[field] ?? Number.NaN));
  return { ms: of("ms"), cpu: of("cpu") };
}

const kilobytes = (modules: readonly Buffer[], size: (module: Buffer) => number): number =>
  modules.reduce((total, module) => total + size(module), 0) / 1_000;
