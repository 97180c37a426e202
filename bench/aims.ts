// What the figures are to reach (two cores, one run), and whether they do.
import { type Figure, median, ratio } from "./results.ts";

/** The figure itself, or beside its limit or the commit it is compared with: divided by it, or minus it. */
type Of = "value" | "÷ limit" | "÷ commit" | "− commit";

/** The commit that aims are set beside. Beside any other a ratio is printed without a verdict. */
const BASE = "e8df900";

type Aim = readonly [figure: string, of: Of, at: "≤" | "≥", bound: number];

/** Processor time first, since it depends least on what else the machine does. A figure may have several. */
const AIMS: readonly Aim[] = [
  ["sync-cpu", "÷ commit", "≤", 0.88],
  ["stream-cpu", "÷ commit", "≤", 0.7],
  ["sync", "÷ limit", "≥", 0.82],
  ["sync-by-echo", "÷ limit", "≥", 0.48],
  ["stream", "÷ limit", "≥", 0.18],
  ["stream-tail", "value", "≤", 4],
  ["freshness-idle-p50", "value", "≤", 100],
  ["freshness-busy-p99", "value", "≤", 600],
  ["import", "value", "≥", 3_000],
  ["archive-latency-audit", "÷ limit", "≤", 1.3],
  ["archive-latency-export", "÷ limit", "≤", 1.3],
  ["archive-latency-drop", "÷ limit", "≤", 1.3],
  ["bundle", "value", "≤", 160],
  ["start-up", "value", "≤", 120],
  ["bytes-plain", "value", "≤", 80],
  ["bytes-payload", "value", "≤", 125],
  ["bytes-plain-log", "value", "≤", 110],
  ["bytes-log-sync", "value", "≤", 150],
  ["bytes-log-sync-sdk-key", "value", "≤", 150],
  ["bytes-log-sync-key", "value", "≤", 150],
  ["bytes-log-sync-key-identifier", "value", "≤", 215],
  ["rows-sync", "value", "≤", 3.4],
  ["rows-sync", "value", "≤", 3.3],
  ["rows-sync-key-identifier", "value", "≤", 4.3],
  ["rows-stream", "value", "≤", 2.3],
  ["rows-skewed", "− commit", "≤", 0.1],
  ["cost-sync", "value", "≤", 4.3],
  ["cost-stream", "value", "≤", 2.6],
  ["read-30-days-fixed-growth", "value", "≤", 1.3],
  ["read-30-days-half-growth", "value", "≤", 1.3],
  ["read-7-days-by-hour-fixed-growth", "value", "≤", 1.3],
  ["read-7-days-by-hour-half-growth", "value", "≤", 1.3],
  ["usage-grouped-ratio", "value", "≤", 3],
  ["usage-largest", "value", "≤", 1_000],
];

/** An aim, the figure that it is of, and round by round what is compared with its bound. */
type Judged = {
  readonly figure: Figure;
  readonly of: Of;
  readonly bound: string;
  /** Nothing where there was nothing to compare. */
  readonly rounds: readonly number[];
  /** Of the median of the rounds; nothing where that says nothing. */
  readonly reached: boolean | undefined;
};

/** The aims of the figures that were measured, beside a commit or none. */
export function judge(figures: readonly Figure[], against: string | undefined): Judged[] {
  return AIMS.flatMap(([id, of, at, bound]) => {
    const figure = figures.find((candidate) => candidate.id === id);
    if (figure === undefined) return [];
    const rounds = compared(figure, of);
    const value = median(rounds);
    const isOpen = Number.isNaN(value) || (of.endsWith("commit") && !against?.startsWith(BASE));
    const reached = isOpen ? undefined : at === "≥" ? value >= bound : value <= bound;
    return [{ figure, of, bound: `${at} ${bound.toLocaleString("en")}`, rounds, reached }];
  });
}

/** What is compared with a bound, round by round; nothing where there is no such commit or limit. */
export function compared({ rounds, base = [], limit }: Figure, of: Of): readonly number[] {
  if (of === "value") return rounds;
  const other = of === "÷ limit" ? (limit?.rounds ?? []) : base;
  if (other.length === 0) return [];
  if (of === "− commit") return rounds.map((value, i) => value - (other[i] ?? Number.NaN));
  return ratio({ rounds }, { rounds: other }).rounds;
}
