// What the load is made of, drawn from a seed: the same seed sends the same kinds of requests in the same order.
import fc from "fast-check";

/** Meters and customers are few, so that writes meet. */
export const FORMULAS = ["sum", "count", "last"] as const;
export type Formula = (typeof FORMULAS)[number];

export const CUSTOMERS = ["cus_1", "cus_2", "cus_3", "cus_4", "cus_5"] as const;

const doors = fc.constantFrom("v1" as const, "v2" as const);

const eventFields = {
  formula: fc.constantFrom(...FORMULAS),
  customer: fc.constantFrom(...CUSTOMERS),
  value: fc.oneof(
    { weight: 9, arbitrary: fc.integer({ min: 1, max: 1_000 }) },
    { weight: 1, arbitrary: fc.constantFrom(999_999_999_999_999, 1_000_000_000) },
  ),
  /** Without one, an event happens when it is received; `last` events always have one, so that each has its own. */
  hasTimestamp: fc.boolean(),
};

/** An event's name for itself: `key` has no identifier, and the service makes one from the Idempotency-Key. */
const naming = fc.constantFrom("identifier" as const, "identifier_and_key" as const, "key" as const);

/** How far back in what was sent before; most look at the latest. */
const back = fc.oneof(fc.nat({ max: 5 }), fc.nat({ max: 200 }));

/** Another event under an identifier that was sent before, at any time: on its way, answered or given up. */
const rival = { ...eventFields, back };

const drawnEvent = fc.record(eventFields);

const action = fc.oneof(
  { weight: 10, arbitrary: fc.record({ is: fc.constant("event" as const), door: doors, naming, ...eventFields }) },
  {
    weight: 3,
    arbitrary: fc.record({
      is: fc.constant("stream" as const),
      /** Without a key every event has an identifier, else only some of them. */
      hasKey: fc.boolean(),
      events: fc.array(fc.record({ ...eventFields, hasIdentifier: fc.boolean() }), {
        minLength: 1,
        maxLength: 10,
        size: "max",
      }),
      rivals: fc.array(fc.record(rival), { maxLength: 2, size: "max" }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ is: fc.constant("again" as const), back }) },
  {
    weight: 2,
    arbitrary: fc.record({ is: fc.constant("rival" as const), door: doors, hasKey: fc.boolean(), ...rival }),
  },
  { weight: 1, arbitrary: fc.record({ is: fc.constant("reused_key" as const), back, event: drawnEvent }) },
  { weight: 3, arbitrary: fc.record({ is: fc.constant("cancel" as const), door: doors, hasKey: fc.boolean(), back }) },
);

const request = fc.record({
  action,
  /** Not tried again when its first attempt was not answered. */
  givesUp: fc.integer({ min: 0, max: 6 }).map((n) => n === 6),
});

type Drawn<T> = T extends fc.Arbitrary<infer U> ? U : never;
export type DrawnEvent = Drawn<typeof drawnEvent>;
export type Action = Drawn<typeof action>;
export type ActionOf<K extends Action["is"]> = Extract<Action, { is: K }>;
export type DrawnRequest = Drawn<typeof request>;

const pause = fc.integer({ min: 0, max: 1_500 });

/** When the server is killed: some time (ms) after its start, at so many answers, or as soon as something is on disk. */
const moment = fc.oneof(
  { weight: 2, arbitrary: fc.record({ at: fc.constant("time" as const), ms: pause }) },
  {
    weight: 1,
    arbitrary: fc.record({ at: fc.constant("answer" as const), count: fc.integer({ min: 1, max: 200 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      at: fc.constant("write" as const),
      by: fc.constantFrom("append" as const, "aggregator" as const, "aggregator" as const, "confirmation" as const),
      ms: pause,
    }),
  },
);
export type Moment = Drawn<typeof moment>;

/** So many are drawn at a time. */
const CHUNK = 500;

/** As many as are taken, always the same for a seed. */
function* sequence<T>(arbitrary: fc.Arbitrary<T>, seed: number): Generator<T, never> {
  // Small values and early choices are no more interesting than others here.
  const unbiased = fc.noBias(arbitrary);
  // Spread by the golden ratio, so that neighbouring seeds share no chunk.
  for (let chunk = 1; ; chunk++) {
    yield* fc.sample(unbiased, { seed: seed ^ Math.imul(chunk, 0x9e3779b9), numRuns: CHUNK });
  }
}

export const drawRequests = (seed: number): Generator<DrawnRequest, never> => sequence(request, seed);

export const drawMoments = (seed: number): Generator<Moment, never> => sequence(moment, ~seed);
