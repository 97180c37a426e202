// What a deployment uploads, as Cloudflare measures it.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { bundle } from "../local-workerd.ts";
import { type Bench, figure, inTurn, type Measured, onEach, type Sample } from "../results.ts";
import type { Side } from "../sides.ts";

export async function measureBundle(bench: Bench): Promise<Measured> {
  const taken = await inTurn({ ...bench, rounds: 1 }, onEach(bench.sides, "bundle", sizes));
  return {
    figures: [
      figure("bundle", "Worker bundle, minified + gzip", "KB", taken("bundle", "gzip")),
      figure("bundle-minified", "  minified", "KB", taken("bundle", "minified")),
    ],
  };
}

async function sizes({ config }: Side): Promise<Sample> {
  const folder = await bundle(config, ["--minify"]);
  // Beside the modules wrangler writes their maps, and a note on what they are.
  const names = (await readdir(folder)).filter((name) => name !== "README.md" && !name.endsWith(".map"));
  const modules = await Promise.all(names.map((name) => readFile(path.join(folder, name))));
  const kilobytes = (sizeOf: (module: Buffer) => number): number =>
    modules.reduce((total, module) => total + sizeOf(module), 0) / 1_000;
  return { gzip: kilobytes((module) => gzipSync(module).length), minified: kilobytes((module) => module.length) };
}
