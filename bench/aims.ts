// What the figures are to reach (two cores, one run), and whether they do.
import type { Figure } from "./results.ts";

export type Aim = {
  readonly name: string;
  /** What is compared, of a figure with this id; nothing when it was not measured. */
  readonly figure: string;
  readonly of: "value" | "ratio";
  readonly at: "least" | "most";
  readonly bound: number;
};

const AIMS: readonly Aim[] = [
  {
    name: "sync events/s ÷ bare Durable Object round trips/s",
    figure: "sync-by-echo",
    of: "ratio",
    at: "least",
    bound: 0.5,
  },
  {
    name: "sync events/s ÷ bare one-row durable inserts/s",
    figure: "sync-by-insert",
    of: "ratio",
    at: "least",
    bound: 1.1,
  },
  {
    name: "stream, end to end ÷ the two bulk inserts and nothing else",
    figure: "stream",
    of: "ratio",
    at: "least",
    bound: 0.5,
  },
  {
    name: "stream, end to end, until aggregated (events/s)",
    figure: "stream",
    of: "value",
    at: "least",
    bound: 25_000,
  },
  { name: "freshness p99 at 500 events/s (ms)", figure: "freshness-busy-p99", of: "value", at: "most", bound: 1_500 },
  { name: "rows written per event, sync", figure: "rows-sync", of: "value", at: "most", bound: 3.5 },
  { name: "rows written per event, stream", figure: "rows-stream", of: "value", at: "most", bound: 2.4 },
  { name: "cost per million, sync ($)", figure: "cost-sync", of: "value", at: "most", bound: 4.3 },
  { name: "cost per million, stream ($)", figure: "cost-stream", of: "value", at: "most", bound: 2.6 },
  {
    name: "summary read p50 at 10^6 events ÷ at 10^4, others' events",
    figure: "read-30-days-others-growth",
    of: "value",
    at: "most",
    bound: 1.3,
  },
  {
    name: "summary read p50 at 10^6 events ÷ at 10^4, own events",
    figure: "read-30-days-own-growth",
    of: "value",
    at: "most",
    bound: 1.3,
  },
  { name: "Worker bundle, minified + gzip (KB)", figure: "bundle", of: "value", at: "most", bound: 150 },
];

export type Judged = { readonly aim: Aim; readonly value: number | undefined; readonly reached: boolean | undefined };

export function judge(figures: readonly Figure[]): Judged[] {
  return AIMS.map((aim) => {
    const figure = figures.find(({ id }) => id === aim.figure);
    const value = aim.of === "ratio" ? figure?.limit?.ratio : figure?.value;
    const reached = value === undefined ? undefined : aim.at === "least" ? value >= aim.bound : value <= aim.bound;
    return { aim, value, reached };
  });
}
