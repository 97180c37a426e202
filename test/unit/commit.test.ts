// What a log decides, without its tables. The objects' own tests show that it is done in one transaction.
import { describe, expect, test, vi } from "vitest";
import { orderAt, placedAt } from "../../src/domain/identifiers.ts";
import { REJECTION_SAMPLES } from "../../src/domain/limits.ts";
import { DAY_MS } from "../../src/domain/window.ts";
import { accept, cancel, recognise } from "../../src/log/commit.ts";
import type { EventAppend, RejectionAppend } from "../../src/log/entries.ts";
import type { StoredHolder } from "../../src/log/holders.ts";
import { aLogEntry, anEventId, NOON } from "../support/builders.ts";

const EVENT = { id: anEventId(orderAt(NOON)), timestamp: NOON - 1, received: NOON };

const holding = (changes: Partial<StoredHolder> = {}): StoredHolder => ({
  received: NOON,
  keyDigest: undefined,
  reportDigest: "report",
  event: () => EVENT,
  place: { group: NOON * 1_000, index: 0 },
  cancelled: undefined,
  ...changes,
});

/** The holder of a key that was only claimed. */
const CLAIMED = { event: () => undefined, place: undefined } as const;

const asking = (changes: object = {}) => ({
  key: "test:a",
  id: anEventId(orderAt(NOON) + 1),
  reportDigest: "report",
  claims: false,
  ...changes,
});

describe("an entry whose key is taken", () => {
  test("is the platform's repetition by its token, wherever it stands in receipt order", () => {
    const outcome = recognise(asking({ id: placedAt(orderAt(NOON + 5), EVENT.id) }), holding());
    expect(outcome).toEqual({ outcome: "accepted", ...EVENT });
  });

  test.each([
    ["a retry", { keyDigest: "k" }, { keyDigest: "k" }, "accepted"],
    ["the same report under another key", { keyDigest: "k" }, { keyDigest: "l" }, "duplicate"],
    ["the same report under no key", { keyDigest: "k" }, {}, "duplicate"],
    ["another report under the same key", { keyDigest: "k" }, { keyDigest: "k", reportDigest: "b" }, "duplicate"],
    ["the same request under a claimed key", {}, { claims: true }, "accepted"],
    ["another request under a claimed key", {}, { claims: true, reportDigest: "b" }, "key_reused"],
    ["another request under a key that was only claimed", CLAIMED, { claims: true, reportDigest: "b" }, "key_reused"],
  ])("is %s", (_, held, asked, outcome) => {
    expect(recognise(asking(asked), holding(held))).toMatchObject({ outcome });
  });
});

describe("a commit", () => {
  const { id, identifier, apiKey, received: _, timestamp: __, ...event } = aLogEntry({ apiKey: 7 });
  const anEvent: EventAppend = {
    ...asking({ id }),
    id,
    kind: "event",
    identifier,
    apiKey,
    event: { ...event, timestamp: undefined },
  };
  const { event: ___, apiKey: ____, ...rest } = anEvent;
  const aRejection: RejectionAppend = {
    ...rest,
    kind: "rejection",
    key: "rejected:test:a",
    rejection: { livemode: false, meter: null, code: "no_meter", message: "m" },
  };
  const aClaim = { kind: "claim", key: "test:k", reportDigest: "r", claims: true } as const;

  test("stores each kind of entry, and looks at what it has just accepted", () => {
    const again = { ...anEvent, id: anEventId(orderAt(NOON) + 9) };
    const commit = accept([anEvent, aClaim, aRejection, again], new Map(), { now: NOON, isFull: false });
    expect(commit.outcomes.map(({ outcome }) => outcome)).toEqual(["accepted", "accepted", "accepted", "duplicate"]);
    expect(commit.others.map(({ key }) => key)).toEqual(["test:k", "rejected:test:a"]);
    const stored = { id, timestamp: NOON, received: NOON, apiKey: 7 };
    expect(commit.events).toMatchObject([{ key: "test:a", reportDigest: "report", event: stored }]);
    expect(commit.rejections).toMatchObject([{ id, code: "no_meter", received: NOON }]);
  });

  test("adds rejections up by meter and code, and keeps the first ten of each", () => {
    const refused = (place: number, changes: Partial<RejectionAppend["rejection"]> = {}): RejectionAppend => ({
      ...aRejection,
      key: `rejected:${place}:${JSON.stringify(changes)}`,
      id: anEventId(place),
      identifier: `i_${place}`,
      rejection: { ...aRejection.rejection, message: `m_${place}`, ...changes },
    });
    const alike = Array.from({ length: REJECTION_SAMPLES + 15 }, (_, place) => refused(place));
    const others = [refused(1, { meter: "mtr_a" }), refused(2, { code: "archived_meter" }), refused(3)];
    const { rejections } = accept([...alike, ...others], new Map(), { now: NOON, isFull: false });
    expect(rejections.map(({ meter, code, count, samples }) => [meter, code, count, samples.length])).toEqual([
      [null, "no_meter", REJECTION_SAMPLES + 15, REJECTION_SAMPLES],
      ["mtr_a", "no_meter", 1, 1],
      [null, "archived_meter", 1, 1],
    ]);
    expect(rejections[0]).toMatchObject({ id: alike[0]?.id, livemode: false, received: NOON });
    expect(rejections[0]?.samples[9]).toEqual(["m_9", "i_9"]);
  });

  test("takes claims alone into a log that is full, and still knows what is there", () => {
    const known = new Map([["test:a", holding()]]);
    const other = { ...anEvent, key: "test:b" };
    const commit = accept([anEvent, other, aClaim, aRejection], known, { now: NOON, isFull: true });
    expect(commit.outcomes.map(({ outcome }) => outcome)).toEqual(["duplicate", "full", "accepted", "full"]);
  });

  test("finds a key free again after 24 hours", () => {
    const known = new Map([["test:a", holding()]]);
    const outcomeAt = (now: number) => accept([anEvent], known, { now, isFull: false }).outcomes[0]?.outcome;
    expect([DAY_MS - 1, DAY_MS].map((ms) => outcomeAt(NOON + ms))).toEqual(["duplicate", "accepted"]);
  });
});

test("a key that is another shard's is told where, whoever holds it here", () => {
  const moved = { outcome: "moved", shards: [2, 4] } as const;
  const known = new Map([["test:a", holding()]]);
  const asked = { kind: "claim", key: "test:a", reportDigest: "report", claims: true } as const;
  expect(accept([asked], known, { now: NOON, isFull: false, moved: () => moved })).toMatchObject({
    outcomes: [moved],
    others: [],
  });
});

describe("a cancellation", () => {
  const logged = { event: aLogEntry(), place: { database: 2, slice: 498_792 } };
  const request = {
    key: "test:a",
    id: "adjustment",
    meters: [logged.event.meter],
    apiKey: 9,
    keyDigest: undefined,
    requestDigest: "request",
  };
  const first = { id: "first", at: NOON, by: 3 };

  test.each([
    ["of nothing", {}, undefined, "unknown"],
    ["of a claim", {}, holding(CLAIMED), "unknown"],
    ["after 24 hours", {}, holding({ received: NOON - DAY_MS }), "too_old"],
    ["of another meter's event", { meters: ["another"] }, holding(), "other_meter"],
    ["of a cancelled event", {}, holding({ cancelled: first }), "already_cancelled"],
    ["once more by the platform", { id: "first" }, holding({ cancelled: first }), "cancelled"],
  ])("%s stores nothing", (_, changes, holder, outcome) => {
    const cancelled = cancel({ ...request, ...changes }, { earlier: undefined, holder, eventAt: () => logged }, NOON);
    expect(cancelled.outcome.outcome).toBe(outcome);
    expect(cancelled.stored).toBeUndefined();
  });

  test("is stored with its event, whole, where that is", () => {
    const known = { earlier: undefined, holder: holding(), eventAt: () => logged };
    expect(cancel(request, known, NOON + 5)).toEqual({
      outcome: { outcome: "cancelled", id: "adjustment", at: NOON + 5 },
      stored: { entry: { ...logged.event, cancelled: NOON + 5, cancelledBy: 9 }, place: logged.place },
    });
  });

  test("under a key that came before is answered as then, or refused, without a look at the event", () => {
    const eventAt = vi.fn(() => logged);
    const earlier = holding({ ...CLAIMED, cancelled: first, reportDigest: "request" });
    const again = (requestDigest: string) =>
      cancel({ ...request, requestDigest }, { earlier, holder: holding(), eventAt }, NOON + 5).outcome;
    expect(again("request")).toEqual({ outcome: "cancelled", id: "first", at: NOON });
    expect(again("another")).toEqual({ outcome: "key_reused" });
    expect(eventAt).not.toHaveBeenCalled();
  });
});
