// Which pairs of a customer and a meter have the most events of a database, counted in little room.
import { hashOfPair } from "../domain/placement.ts";
import { logWarning } from "../logger.ts";
import type { Part } from "./portions.ts";

/** How many pairs are remembered: no pair that has more than one in 51 of the events is missed. */
const MOST = 50;

/** What part of DATABASE_HIGH_WATER_MB is much for one pair: more databases do not divide it. */
const MUCH = 0.25;

type Counted = {
  /** A hash of the pair, since what is saved of a walk must not name a customer. */
  readonly pair: string;
  readonly meter: string;
  /** One of its series. */
  readonly series: number;
  readonly events: number;
};

/** Events so far, and the pairs that have the most of them. */
export type Tally = { readonly events: number; readonly largest: readonly Counted[] };

export const NO_EVENTS: Tally = { events: 0, largest: [] };

/**
 * Counts the events of parts of series; `eventsOf` says how many each series has. Where there are more pairs than are
 * remembered, all of them lose as many events as the largest of the others has (Misra and Gries, 1982): so a pair is
 * never said to have more events than it has, and less by at most one in 51 of all.
 */
export function tallied(
  tally: Tally,
  parts: readonly Pick<Part, "series" | "meter" | "customer">[],
  eventsOf: ReadonlyMap<number, number>,
): Tally {
  const pairs = new Map(tally.largest.map((each) => [each.pair, each]));
  let { events } = tally;
  for (const { series, meter, customer } of parts) {
    const more = eventsOf.get(series) ?? 0;
    const pair = hashOfPair(meter, customer).toString(36);
    const known = pairs.get(pair) ?? { pair, meter, series, events: 0 };
    pairs.set(pair, { ...known, events: known.events + more });
    events += more;
  }
  const sorted = [...pairs.values()].sort((a, b) => b.events - a.events);
  const lost = sorted[MOST]?.events ?? 0;
  const largest = sorted.slice(0, MOST).map((each) => ({ ...each, events: each.events - lost }));
  return { events, largest: largest.filter((each) => each.events > 0) };
}

/** Warns of each pair that takes much of a database, by its part of the events. `bytes`: of the database, now and at most. */
export function warnOfLargest(
  database: string,
  { events, largest }: Tally,
  bytes: { readonly now: number; readonly highWater: number },
): void {
  for (const { meter, series, events: own } of largest) {
    const share = (own / events) * (bytes.now / bytes.highWater);
    if (share <= MUCH) continue;
    const percent = Math.floor(share * 100);
    logWarning("one customer fills much of a database by one meter", { database, meter, series, percent });
  }
}
