import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { InFlight } from "../../src/log/in-flight.ts";

const RESEND_AFTER = 10_000;
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Groups that may be on their way at once. */
const WINDOW = 1_000;

/** The longest a group waits: 10 minutes, and a quarter more by the spread. */
const LONGEST = 12.5 * MINUTE;

/** One number after another, the same in each run. */
function numbers(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

beforeEach(() => {
  vi.spyOn(Math, "random").mockImplementation(numbers());
});

afterEach(() => {
  vi.restoreAllMocks();
});

const withoutSpread = () => vi.mocked(Math.random).mockReturnValue(0);

/** All groups up to an id are confirmed, and some were sent after that, of one character each, at 0. */
function inFlightGroups(confirmedThrough = 0, sent: readonly number[] = []): InFlight {
  const inFlight = new InFlight(confirmedThrough, RESEND_AFTER);
  for (const id of sent) inFlight.send(id, 1, 0);
  return inFlight;
}

/** Sends new groups of 100 characters after those that were sent, while there is room. */
function fill(inFlight: InFlight, now: number, characters = 100): number {
  let sends = 0;
  for (; inFlight.hasRoom(); sends++) inFlight.send(inFlight.lastSent + 1, characters, now);
  return sends;
}

describe("the window of groups on their way", () => {
  test.each([
    ["groups", 100, WINDOW],
    ["characters", 120_000, 34],
  ])("takes a bounded number of %s, and one more group for each that is confirmed", (_, characters, most) => {
    const inFlight = inFlightGroups();
    expect(fill(inFlight, 0, characters)).toBe(most);
    expect(inFlight.count).toBe(most);
    inFlight.confirm(20, 1);
    expect(fill(inFlight, 1, characters)).toBe(1);
  });

  test("counts a group once, however often it is sent, and not at all once it is confirmed", () => {
    const inFlight = inFlightGroups();
    for (let round = 1; round <= 100; round++) {
      for (let again = 0; again < 100; again++) inFlight.send(round, 120_000, again);
      expect(inFlight.count).toBe(1);
      expect(inFlight.hasRoom()).toBe(true);
      inFlight.confirm(round, 100);
      inFlight.confirm(round, 100);
    }
    expect(inFlight.count).toBe(0);
    expect(fill(inFlight, 0)).toBe(WINDOW);
    expect(inFlight.nextDue()).toBeLessThanOrEqual(RESEND_AFTER * 1.25);
  });

  test("begins after what was confirmed before a restart", () => {
    const inFlight = inFlightGroups(41);
    expect([inFlight.lastSent, inFlight.confirmedThrough, inFlight.count]).toEqual([41, 41, 0]);
    expect(inFlight.nextDue()).toBeUndefined();
    expect(inFlight.due(Number.MAX_SAFE_INTEGER)).toEqual([]);
  });

  test("knows what was sent last, also when an older group is sent again", () => {
    expect(inFlightGroups(5, [6, 7, 8, 6]).lastSent).toBe(8);
  });

  test("ignores the confirmation of a group that is not on its way", () => {
    const inFlight = inFlightGroups(5, [6]);
    for (const id of [5, 7, 1_000]) inFlight.confirm(id, 1);
    expect([inFlight.count, inFlight.confirmedThrough, inFlight.lastSent]).toEqual([1, 5, 6]);
  });
});

describe("the groups up to which all are confirmed", () => {
  test("end before the oldest that is on its way, whatever the order of confirmations", () => {
    const inFlight = inFlightGroups(10, [11, 12, 13, 14]);
    const through = [12, 14, 11, 13].map((id) => {
      inFlight.confirm(id, 1);
      return inFlight.confirmedThrough;
    });
    expect(through).toEqual([10, 10, 12, 14]);
  });

  test("are not moved by sending again", () => {
    const inFlight = inFlightGroups(10, [11, 12, 13, 11]);
    expect(inFlight.confirmedThrough).toBe(10);
    inFlight.confirm(13, 1);
    inFlight.send(12, 1, 1);
    expect(inFlight.confirmedThrough).toBe(10);
  });
});

describe("a group that is not confirmed", () => {
  test("is due after the delay of the settings, not before, and at most a quarter later", () => {
    for (const random of [0, 0.5, 0.999]) {
      vi.mocked(Math.random).mockReturnValue(random);
      const inFlight = inFlightGroups();
      inFlight.send(1, 1, 500);
      expect(inFlight.due(500 + RESEND_AFTER - 1)).toEqual([]);
      expect(inFlight.due(500 + RESEND_AFTER * 1.25)).toEqual([1]);
      expect(inFlight.nextDue()).toBeCloseTo(500 + RESEND_AFTER * (1 + random / 4));
    }
  });

  test("waits twice as long after each attempt, and never longer than 10 minutes", () => {
    withoutSpread();
    const inFlight = inFlightGroups();
    const waits: number[] = [];
    let now = 0;
    for (let attempt = 0; attempt < 2_000; attempt++) {
      inFlight.send(1, 1, now);
      const due = inFlight.nextDue() ?? 0;
      waits.push(due - now);
      now = due;
    }
    expect(waits.slice(0, 8)).toEqual([10, 20, 40, 80, 160, 320, 600, 600].map((seconds) => seconds * SECOND));
    expect(new Set(waits.slice(6))).toEqual(new Set([600 * SECOND]));
  });

  test("never waits longer than 10 minutes and the spread, even when the settings say an hour", () => {
    const inFlight = new InFlight(0, HOUR);
    inFlight.send(1, 1, 0);
    expect(inFlight.nextDue()).toBeLessThanOrEqual(LONGEST);
  });

  test("does not come back in the same instant as the others that were sent with it", () => {
    const inFlight = inFlightGroups();
    fill(inFlight, 0);
    expect(inFlight.due(RESEND_AFTER * 1.05).length).toBeLessThan(WINDOW * 0.4);
    expect(inFlight.due(RESEND_AFTER * 1.2).length).toBeLessThan(WINDOW * 0.95);
  });

  test("is due next when it is the first of all, in whatever order they were sent", () => {
    withoutSpread();
    const inFlight = inFlightGroups();
    inFlight.send(1, 1, 500);
    inFlight.send(2, 1, 100);
    inFlight.send(3, 1, 300);
    expect(inFlight.nextDue()).toBe(100 + RESEND_AFTER);
    inFlight.confirm(2, 400);
    expect(inFlight.nextDue()).toBe(300 + RESEND_AFTER);
  });
});

describe("while the database is down", () => {
  /** Sends what is due, each 2 s as the log's alarm does, and counts. */
  function sendWhatIsDue(inFlight: InFlight, from: number, to: number): number {
    let sends = 0;
    for (let now = from; now < to; now += 2 * SECOND) {
      for (const id of inFlight.due(now)) {
        inFlight.send(id, 100, now);
        sends++;
      }
      if (inFlight.hasRoom()) throw new Error("the window opened without a confirmation");
    }
    return sends;
  }

  /** A full window, of which nothing was confirmed for an hour. */
  function anHourLater(): InFlight {
    const inFlight = inFlightGroups();
    fill(inFlight, 0);
    sendWhatIsDue(inFlight, 0, HOUR);
    return inFlight;
  }

  test("each group is sent 8 to 11 times in the first hour and 9 times an hour at most in a day: no storm", () => {
    const inFlight = inFlightGroups();
    const inFirstHour = fill(inFlight, 0) + sendWhatIsDue(inFlight, 0, HOUR);
    expect(inFirstHour).toBeLessThanOrEqual(11 * WINDOW);
    expect(inFirstHour).toBeGreaterThanOrEqual(8 * WINDOW);
    const inDay = inFirstHour + sendWhatIsDue(inFlight, HOUR, 24 * HOUR);
    expect(inDay).toBeLessThanOrEqual(9 * 24 * WINDOW);
  });

  test("its return is heard from the first group that is confirmed: the others are due soon, not in minutes", () => {
    const inFlight = anHourLater();
    expect(inFlight.due(HOUR + 1.25 * RESEND_AFTER).length).toBeLessThan(WINDOW / 10);
    // Every group stays on its way.
    expect(inFlight.due(HOUR + LONGEST)).toHaveLength(WINDOW);
    inFlight.confirm(500, HOUR);
    expect(inFlight.due(HOUR + 1.25 * RESEND_AFTER)).toHaveLength(WINDOW - 1);
  });

  test("its return does not make a group later than it was", () => {
    const inFlight = anHourLater();
    const next = inFlight.nextDue() ?? 0;
    const [first] = inFlight.due(next);
    inFlight.confirm(first === 1 ? 2 : 1, HOUR);
    expect(inFlight.nextDue()).toBeLessThanOrEqual(next);
  });

  test("delays that grew meanwhile are forgotten once it is back", () => {
    withoutSpread();
    const inFlight = anHourLater();
    inFlight.confirm(500, HOUR);
    const again = HOUR + 1.25 * RESEND_AFTER;
    for (const id of inFlight.due(again)) inFlight.send(id, 100, again);
    expect(inFlight.due(again + 2 * RESEND_AFTER)).toHaveLength(WINDOW - 1);
  });

  test("and back, what is sent for the first time has short delays again", () => {
    const inFlight = anHourLater();
    const sentBefore = inFlight.lastSent;
    for (let id = 1; id <= sentBefore; id++) inFlight.confirm(id, HOUR + 10 * id);
    inFlight.send(sentBefore + 1, 100, HOUR + 20 * SECOND);
    expect(inFlight.nextDue()).toBeLessThanOrEqual(HOUR + 80 * SECOND);
  });

  test("all groups of an hour are delivered within a minute of the first that arrives", () => {
    const inFlight = anHourLater();
    let firstConfirmed: number | undefined;
    let now = HOUR;
    for (; inFlight.count > 0; now += 2 * SECOND) {
      for (const id of inFlight.due(now)) {
        inFlight.send(id, 100, now);
        inFlight.confirm(id, now + SECOND);
        firstConfirmed ??= now;
      }
    }
    expect(firstConfirmed).toBeLessThan(HOUR + LONGEST);
    expect(now - (firstConfirmed ?? 0)).toBeLessThan(MINUTE);
  });
});

describe("a look back at older groups", () => {
  /** Sends the groups of the look back while there is room; gives how many. */
  function fillOld(inFlight: InFlight, now: number): number {
    let sends = 0;
    for (let { behind } = inFlight; behind !== undefined && inFlight.hasRoomForOld(); { behind } = inFlight) {
      inFlight.send(behind.after + 1, 100, now);
      sends++;
    }
    return sends;
  }

  test("takes half of the window at most, and leaves the rest to new groups", () => {
    const inFlight = inFlightGroups(10_000);
    inFlight.lookBack(0);
    expect(fillOld(inFlight, 0)).toBe(WINDOW / 2);
    expect(fill(inFlight, 0)).toBe(WINDOW / 2);
    expect(inFlight.lastSent).toBe(10_000 + WINDOW / 2);
    inFlight.confirm(1, 1);
    expect(fillOld(inFlight, 1)).toBe(1);
  });

  test("holds what is confirmed where it began, until the last of its groups is", () => {
    const inFlight = inFlightGroups(100);
    inFlight.lookBack(90);
    expect(fillOld(inFlight, 0)).toBe(10);
    inFlight.send(101, 1, 0);
    inFlight.confirm(101, 1);
    for (let id = 91; id <= 99; id++) inFlight.confirm(id, 1);
    expect([inFlight.isLookingBack, inFlight.confirmedThrough]).toEqual([true, 90]);
    inFlight.confirm(100, 1);
    expect([inFlight.isLookingBack, inFlight.confirmedThrough]).toEqual([false, 101]);
  });

  test("begins no later than a group that was on its way before, and sends that no second time", () => {
    const inFlight = inFlightGroups(10, [11, 12, 13]);
    inFlight.confirm(12, 0);
    inFlight.lookBack(11);
    expect(inFlight.confirmedThrough).toBe(10);
    expect(inFlight.behind).toMatchObject({ after: 11, through: 13 });
    expect([inFlight.has(12), inFlight.has(13)]).toEqual([false, true]);
  });

  test("that is extended looks at the older ones too, and ends once", () => {
    const inFlight = inFlightGroups(100);
    inFlight.lookBack(90);
    fillOld(inFlight, 0);
    inFlight.lookBack(80);
    expect(inFlight.behind).toMatchObject({ after: 80, through: 100 });
    inFlight.lookedBack(100);
    expect(inFlight.isLookingBack).toBe(true);
    for (let id = 91; id <= 100; id++) inFlight.confirm(id, 1);
    expect(inFlight.isLookingBack).toBe(false);
  });

  test("at nothing is over at once", () => {
    const inFlight = inFlightGroups(100);
    inFlight.lookBack(100);
    expect([inFlight.isLookingBack, inFlight.confirmedThrough]).toEqual([false, 100]);
    inFlight.lookBack(5_000);
    expect([inFlight.isLookingBack, inFlight.confirmedThrough]).toEqual([false, 100]);
  });
});

describe("while the database works", () => {
  test("a group that alone fails keeps its long delay: others that arrive at once do not hurry it", () => {
    withoutSpread();
    const inFlight = inFlightGroups();
    for (let attempt = 0; attempt < 6; attempt++) inFlight.send(1, 1, 0);
    const due = inFlight.nextDue();
    expect(due).toBe(320 * SECOND);
    for (let id = 2; id < 100; id++) {
      inFlight.send(id, 1, id * SECOND);
      inFlight.confirm(id, id * SECOND + 200);
    }
    expect(inFlight.nextDue()).toBe(due);
  });

  test("but slowly, sending again does not drown it: what waits in the queue stops growing", () => {
    const PER_SECOND = 25;
    const inFlight = inFlightGroups();
    const queue: number[] = [];
    let confirmed = 0;
    for (let now = 0; now < 15 * MINUTE; now += 200) {
      const again = now % (2 * SECOND) === 0 ? inFlight.due(now) : [];
      for (const id of again) {
        inFlight.send(id, 100, now);
        queue.push(id);
      }
      while (inFlight.hasRoom()) {
        const id = inFlight.lastSent + 1;
        inFlight.send(id, 100, now);
        queue.push(id);
      }
      // A group that comes again costs the database its time again.
      for (const id of queue.splice(0, PER_SECOND / 5)) {
        const before = inFlight.count;
        inFlight.confirm(id, now);
        confirmed += before - inFlight.count;
      }
    }
    expect(queue.length).toBeLessThan(10 * WINDOW);
    expect(confirmed).toBeGreaterThan((PER_SECOND * 15 * 60) / 5);
  });
});
