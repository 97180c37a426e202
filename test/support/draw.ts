// What random tests draw with.
import fc from "fast-check";

/** A choice of `fc.oneof`, so many times as likely as one of weight 1. */
export const some = <T>(weight: number, arbitrary: fc.Arbitrary<T>) => ({ weight, arbitrary });

/** One of a few words. */
export const word = <const T extends string>(...words: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...words);

/** What an arbitrary draws. */
export type Drawn<T> = T extends fc.Arbitrary<infer U> ? U : never;
