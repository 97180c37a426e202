// What is measured in turn, round by round, and what it comes to.
import type { Side } from "./sides.ts";

/** The value that a share of the numbers does not exceed (0.5 is the median); NaN of none. */
export function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] ?? Number.NaN;
}

/** Of an even number, halfway between the middle two. */
export function median(numbers: readonly number[]): number {
  const negated = numbers.map((number) => -number);
  return (quantile(numbers, 0.5) - quantile(negated, 0.5)) / 2;
}

/** A figure's value in each round, and in the same rounds that of the commit it is compared with. */
export type Values = { readonly rounds: readonly number[]; readonly base?: readonly number[] | undefined };

type More = {
  /** Another figure of the same rounds on the same workerd, which this one can at best reach. */
  readonly limit?: { readonly name: string; readonly rounds: readonly number[] };
  readonly note?: string | undefined;
};

/** `id` is what an aim refers to; a name with two leading spaces says more about the figure above. */
export type Figure = Values & More & { readonly id: string; readonly name: string; readonly unit: string };

/** Shorthand, since there are many. */
export const figure = (id: string, name: string, unit: string, values: Values, more: More = {}): Figure => ({
  id,
  name,
  unit,
  ...values,
  ...more,
});

/** What does not fit a list of figures. */
export type Table = {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly notes?: readonly string[];
};

export type Measured = { readonly figures: readonly Figure[]; readonly tables?: readonly Table[] };

/** What a measure works with. */
export type Bench = {
  /** How long one round of one load lasts. */
  readonly seconds: number;
  readonly rounds: number;
  /** The present Worker, and after it that of the commit it is compared with, if any. */
  readonly sides: readonly [Side, ...Side[]];
  /** Says what is being done. */
  readonly progress: (text: string) => void;
};

/** What one round measured of a contestant, by name. */
export type Sample = Readonly<Record<string, number>>;

/** Measures one round of a side, with loads of so many seconds. */
type Contestants = Readonly<Record<string, (seconds: number, side: Side) => Promise<Sample>>>;

/** At most so long a contestant is tried before its rounds count: code is compiled then, and caches are full (s). */
const WARM_UP_SECONDS = 1;

/**
 * Measures the contestants one after the other, round by round, since a machine is not the same from one second to the
 * next: `once` those that are of no side, and the others on each side in turn. Every other round goes the other way, so
 * that nothing is always first. Gives what the rounds measured of a contestant.
 */
export async function inTurn(
  { rounds, seconds, sides, progress }: Bench,
  each: Contestants,
  once: Contestants = {},
): Promise<(name: string, field: string) => Values> {
  const on = (contestants: Contestants, sides: readonly Side[]) =>
    Object.entries(contestants).flatMap(([name, measure]) =>
      sides.map((side) => ({ name, side, measure, samples: [] as Sample[] })),
    );
  const turns = [...on(once, [sides[0]]), ...on(each, sides)];
  for (let round = 0; round <= rounds; round++) {
    for (const { name, side, measure, samples } of round % 2 === 0 ? turns : turns.toReversed()) {
      progress(
        `${round === 0 ? "warm-up" : `round ${round} of ${rounds}`}: ${name}${side.base ? " of the commit" : ""}`,
      );
      const sample = await measure(round === 0 ? Math.min(WARM_UP_SECONDS, seconds) : seconds, side);
      if (round > 0) samples.push(sample);
    }
  }
  const of = (name: string, base: boolean, field: string): number[] | undefined =>
    turns
      .find((turn) => turn.name === name && turn.side.base === base)
      ?.samples.map((sample) => sample[field] ?? Number.NaN);
  return (name, field) => ({ rounds: of(name, false, field) ?? [], base: of(name, true, field) });
}

/** Divides values round by round. */
export function ratio(a: Values, b: Values): Values {
  const each = (a: readonly number[], b: readonly number[]): number[] => a.map((x, i) => x / (b[i] ?? Number.NaN));
  return { rounds: each(a.rounds, b.rounds), base: a.base && b.base && each(a.base, b.base) };
}
