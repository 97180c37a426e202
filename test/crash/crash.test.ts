// Promises 1 to 5 across SIGKILL of the whole server under load; see test/support/node/crash/.
import { expect, inject, it } from "vitest";
import { crash } from "../support/node/crash/harness.ts";
import { lineOf } from "../support/node/crash/report.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** How often the crash test kills the server. */
    crashKills: number;
  }
}

it("has every acknowledged event and cancellation exactly once after its server was killed again and again", async () => {
  const kills = inject("crashKills");
  const report = await crash({ kills, seed: inject("seed") });
  console.log(lineOf(report));
  expect(report.problems).toEqual([]);
  expect(report).toMatchObject({ kills, lost: 0, doubled: 0, wrong: 0, databases: 4, shards: 8 });
  // Otherwise nothing of it was put to the test.
  for (const number of ["acknowledged", "cancellations", "retries", "abandoned", "summaries"] as const) {
    expect(report[number], number).toBeGreaterThan(0);
  }
});
