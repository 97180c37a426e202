// What a deployment uploads, as Cloudflare measures it.
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { bundle, EDGEMETER } from "../local-workerd.ts";
import type { Measured } from "../results.ts";
import { sum } from "../statistics.ts";

/** Beside the modules wrangler writes a note on what they are. */
const NO_MODULES = new Set(["README.md"]);

export async function measureBundle(): Promise<Measured> {
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-bundle-"));
  try {
    await bundle(EDGEMETER.config, folder, ["--minify"]);
    const names = (await readdir(folder)).filter((name) => !NO_MODULES.has(name) && !name.endsWith(".map"));
    const modules = await Promise.all(names.map((name) => readFile(path.join(folder, name))));
    return {
      figures: [
        {
          id: "bundle",
          name: "Worker bundle, minified + gzip",
          value: sum(modules.map((module) => gzipSync(module).length)) / 1_000,
          unit: "KB",
        },
        {
          id: "bundle-minified",
          name: "  minified",
          value: sum(modules.map(({ length }) => length)) / 1_000,
          unit: "KB",
        },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
