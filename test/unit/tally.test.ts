import fc from "fast-check";
import { expect, it } from "vitest";
import { NO_EVENTS, tallied } from "../../src/audit/tally.ts";

/** What a series is of: a few customers have many series, and others one or two. */
const partOf = (series: number) => ({
  series,
  meter: `mtr_${series % 2}`,
  customer: series < 2_000 ? `cus_${series % 5}` : `cus_${series % 700}`,
});

const portion = fc
  .uniqueArray(fc.tuple(fc.nat({ max: 4_000 }), fc.nat({ max: 1_000 })), {
    selector: ([series]) => series,
    maxLength: 90,
  })
  .map((drawn) => new Map(drawn));

const sum = (events: readonly number[]): number => events.reduce((a, b) => a + b, 0);

it("finds the pairs with the most events, each with at most one in 51 too few", () => {
  fc.assert(
    fc.property(fc.array(portion, { maxLength: 12 }), (portions) => {
      const tally = portions.reduce((before, of) => tallied(before, [...of.keys()].map(partOf), of), NO_EVENTS);
      const drawn = portions.flatMap((of) => [...of]);
      const all = sum(drawn.map(([, events]) => events));
      expect(tally.events).toBe(all);
      expect(tally.largest.length).toBeLessThanOrEqual(50);
      const nameOf = (series: number) => `${partOf(series).meter} ${partOf(series).customer}`;
      const found = new Map(tally.largest.map(({ series, events }) => [nameOf(series), events]));
      expect(found.size).toBe(tally.largest.length);
      for (const [name, ofPair] of Map.groupBy(drawn, ([series]) => nameOf(series))) {
        const events = sum(ofPair.map(([, each]) => each));
        expect(found.get(name) ?? 0).toBeLessThanOrEqual(events);
        expect(found.get(name) ?? 0).toBeGreaterThanOrEqual(events - all / 51);
      }
    }),
  );
});
