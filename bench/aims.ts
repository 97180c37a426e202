// What the figures are to reach (two cores, one run), and whether they do.
import { type Figure, median, ratio } from "./results.ts";

/** The figure itself, or beside its limit or the commit it is compared with: divided by it, or minus it. */
type Of = "value" | "÷ limit" | "÷ commit" | "− commit";

const AIMS: Readonly<Record<string, readonly [of: Of, at: "≤" | "≥", bound: number]>> = {
  "sync-cpu": ["÷ commit", "≤", 1.05],
  "stream-cpu": ["÷ commit", "≤", 1.05],
  sync: ["÷ limit", "≥", 0.82],
  "sync-by-echo": ["÷ limit", "≥", 0.48],
  stream: ["÷ limit", "≥", 0.18],
  "stream-tail": ["value", "≤", 4],
  "freshness-idle-p50": ["value", "≤", 100],
  "freshness-busy-p99": ["value", "≤", 600],
  "bytes-plain": ["value", "≤", 80],
  "bytes-payload": ["value", "≤", 125],
  "bytes-plain-log": ["value", "≤", 110],
  "bytes-log-sync": ["value", "≤", 150],
  "bytes-log-sync-sdk-key": ["value", "≤", 150],
  "bytes-log-sync-key": ["value", "≤", 150],
  "bytes-log-sync-key-identifier": ["value", "≤", 215],
  "rows-sync": ["value", "≤", 3.3],
  "rows-sync-key-identifier": ["value", "≤", 4.3],
  "rows-stream": ["value", "≤", 2.3],
  "rows-skewed": ["− commit", "≤", 0.1],
  "cost-sync": ["value", "≤", 4.3],
  "cost-stream": ["value", "≤", 2.6],
  "read-30-days-fixed-growth": ["value", "≤", 1.3],
  "read-30-days-half-growth": ["value", "≤", 1.3],
  "read-7-days-by-hour-fixed-growth": ["value", "≤", 1.3],
  "read-7-days-by-hour-half-growth": ["value", "≤", 1.3],
  "usage-grouped-ratio": ["value", "≤", 3],
  "usage-largest": ["value", "≤", 1_000],
  bundle: ["value", "≤", 160],
};

/** The aim of a figure, if it has one. `value` is NaN, and `reached` nothing, where there was nothing to compare. */
export function judge(figure: Figure) {
  const aim = AIMS[figure.id];
  if (aim === undefined) return undefined;
  const [of, at, bound] = aim;
  const value = median(compared(figure, of));
  const reached = at === "≥" ? value >= bound : value <= bound;
  return { name: figure.name.trim(), of, at, bound, value, reached: Number.isNaN(value) ? undefined : reached };
}

/** What is compared with a bound, round by round; nothing where there is no such commit or limit. */
export function compared({ rounds, base = [], limit }: Figure, of: Of): readonly number[] {
  if (of === "value") return rounds;
  const other = of === "÷ limit" ? (limit?.rounds ?? []) : base;
  if (other.length === 0) return [];
  if (of === "− commit") return rounds.map((value, i) => value - (other[i] ?? Number.NaN));
  return ratio({ rounds }, { rounds: other }).rounds;
}
