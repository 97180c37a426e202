/**
 * Exact sums of values. A value has up to 15 digits, so a sum of many leaves both what JavaScript
 * counts exactly (2^53) and what SQLite can add (2^63). Sums are therefore kept in two limbs:
 * `sum = high * LIMB + low`. One row's limbs stay below 2^63 for nine thousand million events.
 */
export const LIMB = 1_000_000_000;

/** A positive integer of at most 15 digits, without sign or leading zero. */
const VALUE = /^[1-9][0-9]{0,14}$/;

/** The greatest value that an event can have. */
export const GREATEST_VALUE = 999_999_999_999_999;

/** Reads an event's value, or nothing when it is not a positive integer of at most 15 digits. */
export const parseValue = (text: string): number | undefined => (VALUE.test(text) ? Number(text) : undefined);

/** The integer that two limbs stand for; takes them as text, since each may be past 2^53. */
export const fromLimbs = (high: string, low: string): bigint => BigInt(high) * BigInt(LIMB) + BigInt(low);
