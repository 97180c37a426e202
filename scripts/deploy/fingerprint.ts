import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { root } from "../wrangler.ts";

/** Cloudflare's tags of versions hold 25 characters. */
const LENGTH = 24;

/**
 * A short hash of everything that a deployment is made from: the sources, the locked dependencies
 * (wrangler among them), how TypeScript is read, and the settings. It depends on no machine, folder or time.
 */
export async function fingerprintOf(settings: object): Promise<string> {
  const sources = await readdir(path.join(root, "src"), { recursive: true, withFileTypes: true });
  const files = sources
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => path.relative(root, path.join(parentPath, name)))
    .concat("package-lock.json", "tsconfig.json")
    .sort();
  const hash = createHash("sha256");
  for (const file of files) {
    hash.update(JSON.stringify([file.replaceAll("\\", "/"), await readFile(path.join(root, file), "utf8")]));
  }
  hash.update(
    JSON.stringify(Object.entries(settings).filter(([name]) => !name.endsWith("onfigPath"))).replaceAll(root, "."),
  );
  return hash.digest("hex").slice(0, LENGTH);
}
