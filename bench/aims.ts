// What the figures are to reach (two cores, one run), and whether they do.
import { type Figure, median, zip } from "./results.ts";

export type Aim = {
  readonly figure: string;
  /** The figure itself, or beside its limit or the commit it is compared with: divided by it, or minus it. */
  readonly of: "value" | "÷ limit" | "÷ commit" | "− commit";
  readonly at: "≤" | "≥";
  readonly bound: number;
};

const AIMS: readonly Aim[] = [
  { figure: "sync-cpu", of: "÷ commit", at: "≤", bound: 0.88 },
  { figure: "stream-cpu", of: "÷ commit", at: "≤", bound: 0.7 },
  { figure: "sync", of: "÷ limit", at: "≥", bound: 0.82 },
  { figure: "sync-by-echo", of: "÷ limit", at: "≥", bound: 0.48 },
  { figure: "stream", of: "÷ limit", at: "≥", bound: 0.18 },
  { figure: "stream-tail", of: "value", at: "≤", bound: 4 },
  { figure: "freshness-idle-p50", of: "value", at: "≤", bound: 100 },
  { figure: "freshness-busy-p99", of: "value", at: "≤", bound: 600 },
  { figure: "rows-sync", of: "value", at: "≤", bound: 3.4 },
  { figure: "rows-stream", of: "value", at: "≤", bound: 2.3 },
  { figure: "rows-skewed", of: "− commit", at: "≤", bound: 0.1 },
  { figure: "cost-sync", of: "value", at: "≤", bound: 4.3 },
  { figure: "cost-stream", of: "value", at: "≤", bound: 2.6 },
  { figure: "read-30-days-others-growth", of: "value", at: "≤", bound: 1.3 },
  { figure: "read-30-days-own-growth", of: "value", at: "≤", bound: 1.3 },
  { figure: "bundle", of: "value", at: "≤", bound: 160 },
];

/** `value` and `reached` are null where there was nothing to compare. */
export type Judged = Aim & { readonly name: string; readonly value: number | null; readonly reached: boolean | null };

/** The aims of a figure, as far as it has any. */
export const judge = (figure: Figure): Judged[] =>
  AIMS.filter((aim) => aim.figure === figure.id).map((aim) => {
    const value = median(compared(figure, aim.of));
    const reached = aim.at === "≥" ? value >= aim.bound : value <= aim.bound;
    const measured = Number.isFinite(value);
    return { ...aim, name: figure.name.trim(), value: measured ? value : null, reached: measured ? reached : null };
  });

/** What is compared with a bound, round by round; nothing where there is no such commit or limit. */
export function compared(figure: Figure, of: Aim["of"]): readonly number[] {
  const { rounds, base = [], limit } = figure;
  if (of === "value") return rounds;
  const other = of === "÷ limit" ? (limit?.rounds ?? []) : base;
  if (other.length === 0) return [];
  return zip(figure, { rounds: other }, (a, b) => (of === "− commit" ? a - b : a / b)).rounds;
}
