// What the load is made of, drawn from a seed: the same seed sends the same kinds of requests in the same order.
import fc from "fast-check";
import { type Drawn, some, word } from "../../draw.ts";

/** Meters and customers are few, so that writes meet. A meter's event name is its formula. */
export const FORMULAS = ["sum", "count", "last"] as const;
export type Formula = (typeof FORMULAS)[number];
export const CUSTOMERS = ["cus_1", "cus_2", "cus_3", "cus_4", "cus_5"] as const;

const version = word("v1", "v2");
const hasKey = fc.boolean();

/** How far back in what was sent before; most look at the latest. */
const back = fc.oneof(fc.nat({ max: 5 }), fc.nat({ max: 200 }));

const event = {
  formula: word(...FORMULAS),
  customer: word(...CUSTOMERS),
  value: fc.oneof(some(9, fc.integer({ min: 1, max: 1_000 })), some(1, fc.constantFrom(999_999_999_999_999, 10 ** 9))),
  /** Without one, an event happens when it is received; `last` events always have one, so that each has its own. */
  hasTimestamp: fc.boolean(),
};

/**
 * - `event`: named by an identifier, or by its key alone, from which the service makes one;
 * - `stream`: without a key every event has an identifier, else only some of them;
 * - `again`: a request that was sent before, as it was;
 * - `rival`: another event under an identifier that was sent before: on its way, answered or given up;
 * - `reused_key`: another event under the key of one that was accepted.
 */
const action = fc.oneof(
  some(
    10,
    fc.record({ is: word("event"), version, naming: word("identifier", "identifier_and_key", "key"), ...event }),
  ),
  some(
    3,
    fc.record({
      is: word("stream"),
      hasKey,
      events: fc.array(fc.record({ ...event, hasIdentifier: hasKey }), { minLength: 1, maxLength: 10, size: "max" }),
      rivals: fc.array(fc.record({ ...event, back }), { maxLength: 2, size: "max" }),
    }),
  ),
  some(2, fc.record({ is: word("again"), back })),
  some(2, fc.record({ is: word("rival"), version, hasKey, back, ...event })),
  some(1, fc.record({ is: word("reused_key"), back, event: fc.record(event) })),
  some(3, fc.record({ is: word("cancel"), version, hasKey, back })),
);

const request = fc.record({
  action,
  /** Not tried again when its first attempt was not answered. */
  givesUp: fc.integer({ min: 0, max: 6 }).map((n) => n === 6),
});

/** When the server is killed: some time (ms) after its start, at so many answers, or as soon as something is on disk. */
const ms = fc.integer({ min: 0, max: 1_500 });
const moment = fc.oneof(
  some(2, fc.record({ at: word("time"), ms })),
  some(1, fc.record({ at: word("answer"), count: fc.integer({ min: 1, max: 200 }) })),
  some(4, fc.record({ at: word("write"), by: word("append", "aggregator", "aggregator", "confirmation"), ms })),
);

export type DrawnEvent = ActionOf<"reused_key">["event"];
export type Action = Drawn<typeof action>;
export type ActionOf<K extends Action["is"]> = Extract<Action, { is: K }>;
export type DrawnRequest = Drawn<typeof request>;
export type Moment = Drawn<typeof moment>;

/** As many as are taken, always the same for a seed; so many are drawn at a time. */
function* sequence<T>(arbitrary: fc.Arbitrary<T>, seed: number): Generator<T, never> {
  // Small values and early choices are no more interesting than others here.
  const unbiased = fc.noBias(arbitrary);
  // Spread by the golden ratio, so that neighbouring seeds share no chunk.
  for (let chunk = 1; ; chunk++) {
    yield* fc.sample(unbiased, { seed: seed ^ Math.imul(chunk, 0x9e3779b9), numRuns: 500 });
  }
}

export const drawRequests = (seed: number): Generator<DrawnRequest, never> => sequence(request, seed);
export const drawMoments = (seed: number): Generator<Moment, never> => sequence(moment, ~seed);
