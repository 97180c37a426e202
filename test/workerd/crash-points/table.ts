// The crash points' tests are the rows of README.md's tables.
import { afterEach, beforeAll, expect, it, vi } from "vitest";
import readme from "../../README.md?raw";
import { growTo } from "../support.ts";
import { missedFaults } from "./faults.ts";

/** What comes of a fault, and the story that shows it. */
export type Crash = readonly [outcome: string, story: () => Promise<void>];

/**
 * Tests each fault at each point. README.md's table under the heading that names the file has exactly
 * these rows, in their order.
 */
export function crashPoints(file: string, points: Record<string, Record<string, Crash>>): void {
  // All of these stories have four databases.
  beforeAll(() => growTo(4, 0));
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
    expect(missedFaults()).toBe(0);
  });

  const names: string[] = [];
  for (const [point, faults] of Object.entries(points)) {
    for (const [fault, [outcome, story]] of Object.entries(faults)) {
      const name = `${point}, ${fault}: ${outcome}`;
      names.push(name);
      it(name, story);
    }
  }

  it("stands in README.md's table, row by row", () => {
    const section = readme.split(/^#+ /m).find((text) => text.split("\n", 1)[0]?.includes(file)) ?? "";
    const [, , ...rows] = section.split("\n").filter((line) => line.startsWith("|"));
    const cells = rows.map((row) => row.split("|").map((cell) => cell.trim()));
    expect(cells.map(([, point, fault, outcome]) => `${point}, ${fault}: ${outcome}`)).toEqual(names);
  });
}
