import type { Figure } from "./results.ts";
import { median } from "./statistics.ts";

/** What is compared is measured in turn, so often: a machine is not the same from one second to the next. */
export const ROUNDS = 3;

/** A rate of each round, beside a limit's rates of the same rounds. */
export function besideLimit(
  figure: Omit<Figure, "value" | "limit">,
  rates: readonly number[],
  limitName: string,
  limits: readonly number[],
): Figure {
  const ratio = median(rates.map((rate, round) => rate / (limits[round] ?? Number.NaN)));
  return { ...figure, value: median(rates), limit: { name: limitName, value: median(limits), ratio } };
}
