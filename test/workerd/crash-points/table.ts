// The crash points' tests are the rows of README.md's tables.
import { expect, it } from "vitest";
import readme from "../../README.md?raw";

/**
 * A test of a row of README.md's table: at a point, a fault, what comes of it. The three make its
 * name.
 */
export function crash(point: string, fault: string, outcome: string, story: () => Promise<void>): void {
  it(`${point}, ${fault}: ${outcome}`, story);
}

/** README.md's table under the heading that names a file has exactly its tests, in their order. To be registered last. */
export function agreesWithReadme(file: string): void {
  it("stands in README.md's table, row by row", ({ task }) => {
    const section = readme.split(/^#+ /m).find((text) => text.split("\n", 1)[0]?.includes(file)) ?? "";
    const [, , ...rows] = section.split("\n").filter((line) => line.startsWith("|"));
    const named = rows.map((row) => {
      const [, point = "", fault = "", outcome = ""] = row.split("|").map((cell) => cell.trim());
      return `${point}, ${fault}: ${outcome}`;
    });
    const tests = task.file.tasks.map(({ name }) => name);
    expect(named).toEqual(tests.filter((name) => name !== task.name));
  });
}
