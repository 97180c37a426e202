import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";

const root = path.join(import.meta.dirname, "../..");

/** Every message that the Worker logs, with its level, as a row of the guide begins. */
async function loggedMessages(): Promise<string[]> {
  const files = (await readdir(path.join(root, "src"), { recursive: true })).filter(
    (file) => file.endsWith(".ts") && file !== "logger.ts",
  );
  const sources = await Promise.all(files.map((file) => readFile(path.join(root, "src", file), "utf8")));
  const calls = sources.flatMap((source) => [
    ...source.matchAll(/\b(logError|loggedAs|logWarning)\(\s*(?:"([^"]*)")?/g),
  ]);
  return [
    ...new Set(
      calls.map(([, how, message = "no literal"]) => `${message}: ${how === "logWarning" ? "warning" : "error"}`),
    ),
  ];
}

test("OPERATIONS.md says of every message in the logs what it means, and of no other", async () => {
  const guide = await readFile(path.join(root, "OPERATIONS.md"), "utf8");
  const rows = guide.matchAll(/^\| `([^`]+)` +\| (error|warning) +\|/gm);
  const described = [...rows].map(([, message, level]) => `${message}: ${level}`);
  expect(described.sort()).toEqual((await loggedMessages()).sort());
});
