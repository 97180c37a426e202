// The documents name files and headings that exist.
import { existsSync, globSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

const root = path.join(import.meta.dirname, "../..");
const documents = globSync("{*,docs/**/*,test/**/*,bench/*}.md", { cwd: root });
const textOf = (document: string): string => readFileSync(path.join(root, document), "utf8");
const exists = (file: string): boolean => existsSync(path.join(root, file));

/** A heading as a link names it. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}_ -]/gu, "")
    .replaceAll(" ", "-");

test.each(documents)("%s links to what exists", (document) => {
  const links = [...textOf(document).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)];
  const broken = links.filter(([, to = "", anchor]) => {
    const target = to === "" ? document : path.join(path.dirname(document), to);
    if (!exists(target)) return true;
    const headings = anchor === undefined ? [] : textOf(target).matchAll(/^#+ (.*)$/gm);
    return anchor !== undefined && ![...headings].some(([, heading = ""]) => anchorOf(heading) === anchor);
  });
  expect(broken.map(([link]) => link)).toEqual([]);
});

test.each(documents)("%s names files that exist", (document) => {
  const named = [...textOf(document).matchAll(/`((?:[\w-]+\/)+(?:[\w-]+\.)+(?:ts|mjs|py|sql|md|toml|json))`/g)];
  const folders = ["", "src", "test", "test/workerd", path.dirname(document)];
  const missing = named.filter(([, file = ""]) => !folders.some((folder) => exists(path.join(folder, file))));
  expect(missing.map(([, file]) => file)).toEqual([]);
});
