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

export type Figure = Values & {
  /** What an aim refers to. */
  readonly id: string;
  /** With two leading spaces: more about the figure above. */
  readonly name: string;
  readonly unit: string;
  /** Another figure of the same rounds on the same workerd, which this one can at best reach. */
  readonly limit?: { readonly name: string; readonly rounds: readonly number[] };
  readonly note?: string | undefined;
};

/** Shorthand, since there are many. */
export const figure = (id: string, name: string, unit: string, values: Values, more: Partial<Figure> = {}): Figure => ({
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
  readonly rows: readonly (readonly (string | number)[])[];
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

export type Measure = {
  readonly name: string;
  readonly title: string;
  readonly run: (bench: Bench) => Promise<Measured>;
};

/** What one round measured of a contestant, by name. */
export type Sample = Readonly<Record<string, number>>;

export type Contestant = {
  readonly name: string;
  /** Whether this is the commit that is compared; its namesake is the present. */
  readonly base?: boolean;
  readonly measure: () => Promise<Sample>;
};

/** The same of each side. */
export const onEach = <S extends Side>(
  sides: readonly S[],
  name: string,
  measure: (side: S) => Promise<Sample>,
): Contestant[] => sides.map((side) => ({ name, base: side.base, measure: () => measure(side) }));

/**
 * Measures the contestants one after the other, round by round, since a machine is not the same from one second to the
 * next. Gives what the rounds measured of a contestant.
 */
export async function inTurn(
  { rounds, progress }: Bench,
  contestants: readonly Contestant[],
): Promise<(name: string, field: string) => Values> {
  const samples = new Map<Contestant, Sample[]>(contestants.map((contestant) => [contestant, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const [{ name, base, measure }, taken] of samples) {
      progress(`round ${round} of ${rounds}: ${name}${base ? " of the other commit" : ""}`);
      taken.push(await measure());
    }
  }
  const of = (name: string, base: boolean, field: string): number[] | undefined => {
    const contestant = contestants.find((other) => other.name === name && (other.base ?? false) === base);
    return contestant && samples.get(contestant)?.map((sample) => sample[field] ?? Number.NaN);
  };
  return (name, field) => ({ rounds: of(name, false, field) ?? [], base: of(name, true, field) });
}

/** Combines values round by round. */
export function zip(a: Values, b: Values, by: (a: number, b: number) => number): Values {
  const each = (a: readonly number[], b: readonly number[]): number[] => a.map((x, i) => by(x, b[i] ?? Number.NaN));
  return { rounds: each(a.rounds, b.rounds), base: a.base && b.base && each(a.base, b.base) };
}
