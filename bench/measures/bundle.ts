// What a deployment uploads, as Cloudflare measures it.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { bundle } from "../local-workerd.ts";
import { type Bench, figure, type Measured } from "../results.ts";

export async function measureBundle({ sides }: Bench): Promise<Measured> {
  const [present = [], base] = await Promise.all(sides.map(({ config }) => modulesOf(config)));
  const of = (size: (module: Buffer) => number) => ({
    rounds: [kilobytes(present, size)],
    base: base && [kilobytes(base, size)],
  });
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
    ],
  };
}

/** Beside the modules wrangler writes their maps, and a note on what they are. */
async function modulesOf(config: string): Promise<Buffer[]> {
  const folder = await bundle(config, ["--minify"]);
  const names = (await readdir(folder)).filter((name) => name !== "README.md" && !name.endsWith(".map"));
  return Promise.all(names.map((name) => readFile(path.join(folder, name))));
}

const kilobytes = (modules: readonly Buffer[], size: (module: Buffer) => number): number =>
  modules.reduce((total, module) => total + size(module), 0) / 1_000;
