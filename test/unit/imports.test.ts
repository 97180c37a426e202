// The order of imports in src: each folder is a stage of an event's way and knows only the stages below it.
import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseSync } from "oxc-parser";
import { describe, expect, test } from "vitest";

const src = path.join(import.meta.dirname, "../../src");

/** What each folder may import besides itself. The SQL of a table is shared; the code around it is not. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  domain: [],
  // env.ts, logger.ts, timeout.ts
  base: [],
  "aggregate/sql": ["domain"],
  catalog: ["domain", "base"],
  log: ["catalog", "domain", "base"],
  ingest: ["log", "catalog", "domain", "base"],
  aggregate: ["aggregate/sql", "log", "catalog", "domain", "base"],
  archive: ["aggregate/sql", "log", "catalog", "domain", "base"],
  query: ["archive", "aggregate/sql", "catalog", "domain", "base"],
  audit: ["archive", "aggregate", "aggregate/sql", "log", "catalog", "domain", "base"],
  http: ["ingest", "log", "aggregate", "archive", "query", "audit", "catalog", "domain", "base"],
  // index.ts, scheduled.ts
  start: ["http", "ingest", "log", "aggregate", "archive", "query", "audit", "catalog", "base"],
};

/** Imports against the order or in a cycle, each with its reason. One that is neither any more fails the test. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  "archive/restore-day.ts → aggregate/apply.ts": "What comes back from a file is stored as what a log sends again.",
  "archive/entries.ts → aggregate/entries.ts": "The same: the aggregator says what it takes.",
  "archive/bring-back.ts → aggregate/json-each.ts": "The same, into a table that counts nothing.",
  "archive/strays.ts → aggregate/json-each.ts": "Files are compared with what is stored, in the same statements.",
  "query/error-reports.ts → aggregate/error-report.ts": "The aggregator makes the ids that readers take apart.",
};

/** The files that a file of src imports or exports again, types too, as paths within src. */
function importsOf(file: string): string[] {
  const text = readFileSync(path.join(src, file), "utf8");
  const { module } = parseSync(file, text);
  const named = module.staticImports.map(({ moduleRequest }) => moduleRequest.value);
  const again = module.staticExports.flatMap(({ entries }) => entries.map(({ moduleRequest }) => moduleRequest?.value));
  const late = module.dynamicImports.map(({ moduleRequest: { start, end } }) => text.slice(start + 1, end - 1));
  return [...named, ...again, ...late]
    .filter((name) => name?.startsWith("."))
    .map((name = "") => path.posix.join(path.posix.dirname(file), name));
}

const files = globSync("**/*.ts", { cwd: src }).map((file) => file.replaceAll(path.sep, "/"));
const imports = new Map(files.map((file) => [file, [...new Set(importsOf(file))]]));
const arrows = files.flatMap((from) => (imports.get(from) ?? []).map((to) => ({ from, to, arrow: `${from} → ${to}` })));

/** The folder whose rule a file has; of what is not in src, none. */
function folderOf(file: string): string {
  if (!imports.has(file)) return "elsewhere";
  if (file.startsWith("aggregate/sql/")) return "aggregate/sql";
  if (file.includes("/")) return file.slice(0, file.indexOf("/"));
  return ["index.ts", "scheduled.ts"].includes(file) ? "start" : "base";
}

type Arrow = (typeof arrows)[number];

/** Whether an import goes against the order of the folders. */
function isAgainstOrder({ from, to }: Arrow): boolean {
  const [here, there] = [folderOf(from), folderOf(to)];
  return to !== "../package.json" && here !== there && !MAY_IMPORT[here]?.includes(there);
}

/** Whether one file imports another, by way of others too. An exception leads nowhere. */
function reaches(from: string, to: string, seen = new Set<string>()): boolean {
  if (from === to) return true;
  seen.add(from);
  return (imports.get(from) ?? []).some(
    (next) => !seen.has(next) && !(`${from} → ${next}` in EXCEPTIONS) && reaches(next, to, seen),
  );
}

const isInCycle = ({ from, to }: Arrow): boolean => reaches(to, from);

const namesOf = (wrong: readonly Arrow[]): string[] => wrong.map(({ arrow }) => arrow);

describe("imports in src", () => {
  const ordinary = arrows.filter(({ arrow }) => !(arrow in EXCEPTIONS));

  test("are found, those of types too", () => {
    expect(arrows.length).toBeGreaterThan(300);
    expect(imports.get("index.ts")).toContain("http/app.ts");
    expect(imports.get("log/shards.ts")).toContain("env.ts");
  });

  test("point the way of an event, and to the rules", () => {
    expect(namesOf(ordinary.filter(isAgainstOrder))).toEqual([]);
  });

  test("form no cycle", () => {
    expect(namesOf(ordinary.filter(isInCycle))).toEqual([]);
  });

  test("have no exception that nothing needs", () => {
    const needed = arrows.filter((each) => isAgainstOrder(each) || isInCycle(each)).map(({ arrow }) => arrow);
    expect(Object.keys(EXCEPTIONS).filter((arrow) => !needed.includes(arrow))).toEqual([]);
  });
});
