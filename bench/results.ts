// What a measure comes to.
import type { Settings } from "./settings.ts";

/** Another figure of the same run on the same workerd that this one can at best reach. */
export type Limit = {
  readonly name: string;
  readonly value: number;
  /** Figure ÷ limit: of figures taken in turn, the median of the rounds' ratios. */
  readonly ratio: number;
};

export type Figure = {
  /** What an aim refers to. */
  readonly id: string;
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly limit?: Limit;
  readonly note?: string;
};

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
  readonly settings: Settings;
  /** Says what is being done. */
  readonly progress: (text: string) => void;
};

export type Measure = {
  readonly name: string;
  readonly title: string;
  readonly run: (bench: Bench) => Promise<Measured>;
};
