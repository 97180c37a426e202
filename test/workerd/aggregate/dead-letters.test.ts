import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { consume } from "../../../src/aggregate/consumer.ts";
import type { LogEntry } from "../../../src/log/codec.ts";
import type { Share } from "../../../src/log/groups.ts";
import { encodeMessage } from "../../../src/log/message.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { aShare, cancellationLines, eventLines, rejectionLines } from "../../support/shares.ts";
import { aBatch, aContext, aNewEvent, answerOf, aShard, eventually, storedEvents } from "../support.ts";

beforeEach(() => {
  vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
  vi.restoreAllMocks();
});

const db = env.TEST_EVENTS;

/** A share of events of a log of its own, which hears of its confirmation. */
const aShareOf = (...entries: readonly (LogEntry | string)[]): Share =>
  aShare(aShard().shard, "events", eventLines(entries));

/** An event that D1 refuses: it has no identifier. */
const aPoisonEvent = (changes: Partial<LogEntry>): LogEntry => ({ ...aLogEntry(changes), identifier: null as never });

const deliver = (...shares: readonly Share[]): Promise<void> =>
  consume(aBatch(shares.map((share) => encodeMessage([share]))), env);

/** Where an entry has its id and its identifier. */
const [ID, IDENTIFIER] = [4, 5] as const;

type Letter = { id: string; entry: string; reason: string; kind: string; livemode: boolean };

async function lettersOf(meter: string, key: string = LOCAL_KEYS.test): Promise<Letter[]> {
  const { body } = await answerOf("/v1/edgemeter/dead_letters?limit=100", { key });
  return (body.data as Letter[]).filter(({ entry }) => entry.includes(meter));
}

describe("a group that D1 refuses", () => {
  it("is cut down to the offending events, which are parked with their reason; the others count", async () => {
    const meter = unique("mtr_test_poison");
    const good = Array.from({ length: 40 }, () => aLogEntry({ meter }));
    const [first, second] = [aPoisonEvent({ meter }), aPoisonEvent({ meter })];
    await deliver(aShareOf(...good.slice(0, 7), first, ...good.slice(7, 30), second, ...good.slice(30)));
    expect(await storedEvents(meter)).toBe(40);
    const letters = await lettersOf(meter);
    expect(letters.map(({ entry }) => JSON.parse(entry)[ID]).sort()).toEqual([first.id, second.id].sort());
    for (const { reason } of letters) expect(reason).toMatch(/NOT NULL constraint failed: events_\d+.identifier/);
  });

  it("is confirmed, so that its log sends it no more", async () => {
    const { log } = aShard();
    const meter = unique("mtr_test_poison");
    const event = aNewEvent({ meter });
    await log.append([{ ...event, identifier: null as never }], aContext());
    const confirmed = () => log.confirmedAfter(0, Number.MAX_SAFE_INTEGER / 1_000);
    await eventually(async () => expect(await confirmed()).toHaveLength(1));
    expect((await log.status()).entries).toBe(0);
    expect(await lettersOf(meter)).toHaveLength(1);
    expect(await storedEvents(meter)).toBe(0);
  });

  it("holds up nothing of a batch that is stored lane by lane", async () => {
    const { log } = aShard();
    const meter = unique("mtr_test_poison");
    const events = Array.from({ length: 1_500 }, (_, i) => {
      const event = aNewEvent({ meter, customer: `cus_${i % 100}` });
      return { ...event, event: { ...event.event, payload: { note: "x".repeat(100) } } };
    });
    const poison = { ...aNewEvent({ meter }), identifier: null as never };
    await log.append([...events.slice(0, 700), poison, ...events.slice(700)], aContext());
    await eventually(async () => expect((await log.status()).entries).toBe(0));
    expect(await lettersOf(meter)).toHaveLength(1);
    expect(await storedEvents(meter)).toBe(1_500);
  });

  it("holds up no other group of its batch", async () => {
    const [poisoned, sound] = [unique("mtr_test_poison"), unique("mtr_test_sound")];
    await deliver(
      aShareOf(aLogEntry({ meter: sound })),
      aShareOf(aPoisonEvent({ meter: poisoned })),
      aShareOf(aLogEntry({ meter: sound })),
    );
    expect(await storedEvents(sound)).toBe(2);
    expect(await lettersOf(poisoned)).toHaveLength(1);
  });

  it("parks an event once, however often it comes", async () => {
    const meter = unique("mtr_test_poison");
    const group = aShareOf(aLogEntry({ meter }), aPoisonEvent({ meter }));
    for (const _ of [1, 2, 3]) await deliver(group);
    await Promise.all([deliver(group), deliver(group)]);
    expect(await storedEvents(meter)).toBe(1);
    expect(await lettersOf(meter)).toHaveLength(1);
  });

  it("is parked whole when it cannot be taken apart", async () => {
    const meter = unique("mtr_test_poison");
    await deliver(aShareOf(aLogEntry({ meter }), `["${meter}",`));
    expect(await storedEvents(meter)).toBe(0);
    expect(await lettersOf(meter)).toMatchObject([{ reason: expect.stringContaining("malformed JSON") }]);
  });

  it.each(["cancellations", "rejections"] as const)("of %s is parked likewise", async (kind) => {
    const meter = unique("mtr_test_poison");
    const rejection = {
      id: null as never,
      livemode: false,
      meter,
      code: null as never,
      count: 1,
      samples: [],
      received: 1,
    };
    const lines = kind === "rejections" ? rejectionLines([rejection]) : cancellationLines([aPoisonEvent({ meter })]);
    await deliver(aShare(aShard().shard, kind, lines));
    expect(await lettersOf(meter)).toMatchObject([{ kind, livemode: false }]);
  });
});

describe("many groups or entries that D1 refuses", () => {
  it("a bad group among hundreds costs some twenty transactions, not one for each", async () => {
    const meter = unique("mtr_test_poison");
    const groups = Array.from({ length: 300 }, () => aShareOf(aLogEntry({ meter })));
    groups.splice(123, 0, aShareOf(aPoisonEvent({ meter })));
    const batch = vi.spyOn(db, "batch");
    await deliver(...groups);
    expect(batch.mock.calls.length).toBeLessThan(30);
    expect(await storedEvents(meter)).toBe(300);
    expect(await lettersOf(meter)).toHaveLength(1);
  });

  it("what was parked is not tried again, so that any number of attempts add up", async () => {
    const meter = unique("mtr_test_poison");
    const entries = Array.from({ length: 301 }, (_, i) => (i === 0 ? aLogEntry({ meter }) : aPoisonEvent({ meter })));
    const group = aShareOf(...entries);
    const batch = db.batch.bind(db);
    let attempts = 0;
    for (let parked = 0; parked < 300; attempts++) {
      let calls = 0;
      // As Cloudflare ends a Worker that asks D1 too often.
      const limit = vi.spyOn(db, "batch").mockImplementation((statements) => {
        if (++calls > 200) throw new Error("too many API requests by single worker invocation");
        return batch(statements);
      });
      await deliver(group);
      limit.mockRestore();
      const before = parked;
      const counted = db.prepare("SELECT COUNT(*) AS n FROM dead_letters WHERE entry LIKE ?");
      parked = (await counted.bind(`%${meter}%`).first<number>("n")) ?? 0;
      expect(parked).toBeGreaterThan(before);
    }
    expect(attempts).toBeGreaterThan(1);
    expect(await storedEvents(meter)).toBe(1);
  });

  it("when D1 takes none of many, its schema is wrong: nothing is parked, and all count once it is right", async () => {
    const meter = unique("mtr_test_schema");
    const group = aShareOf(...Array.from({ length: 20 }, () => aLogEntry({ meter })));
    const batch = vi
      .spyOn(db, "batch")
      .mockRejectedValue(new Error("D1_ERROR: NOT NULL constraint failed: events.new_column: SQLITE_CONSTRAINT"));
    await deliver(group);
    batch.mockRestore();
    expect(await lettersOf(meter)).toEqual([]);
    await deliver(group);
    expect(await storedEvents(meter)).toBe(20);
  });
});

describe("a failure that is not about the data", () => {
  it.each([
    "D1_ERROR: Network connection lost.",
    "D1_ERROR: D1 DB is overloaded. Requests queued for too long.",
    "D1_ERROR: Exceeded maximum DB size.",
    "D1_ERROR: no such table: events: SQLITE_ERROR",
    "D1_ERROR: D1 DB storage operation exceeded timeout which caused object to be reset.",
    "Maximum call stack size exceeded: stack overflow",
  ])("parks nothing: %s", async (message) => {
    const meter = unique("mtr_test_transient");
    const batch = vi.spyOn(db, "batch").mockRejectedValue(new Error(message));
    const group = aShareOf(aLogEntry({ meter }));
    await deliver(group);
    batch.mockRestore();
    expect([...(await lettersOf(meter)), ...(await lettersOf(meter, LOCAL_KEYS.live))]).toEqual([]);
    await deliver(group);
    expect(await storedEvents(meter)).toBe(1);
  });

  it("parks nothing in the middle of taking a group apart, and the next attempt ends it", async () => {
    const meter = unique("mtr_test_poison");
    const group = aShareOf(aLogEntry({ meter }), aPoisonEvent({ meter }), aLogEntry({ meter }));
    const batch = db.batch.bind(db);
    let calls = 0;
    const spy = vi.spyOn(db, "batch").mockImplementation((statements) => {
      if (++calls > 2) throw new Error("D1_ERROR: Network connection lost.");
      return batch(statements);
    });
    await deliver(group);
    spy.mockRestore();
    expect(await lettersOf(meter)).toEqual([]);
    await deliver(group);
    expect(await storedEvents(meter)).toBe(2);
    expect(await lettersOf(meter)).toHaveLength(1);
  });
});

describe("dead letters", () => {
  const redrive = (id: string, key: string = LOCAL_KEYS.test, idempotencyKey?: string) =>
    answerOf(`/v1/edgemeter/dead_letters/${id}/redrive`, {
      method: "POST",
      key,
      headers: idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey },
    });

  /** A letter that D1 refuses no more. */
  async function aMendedLetter(meter: string): Promise<string> {
    await deliver(aShareOf(aPoisonEvent({ meter })));
    const [letter] = await lettersOf(meter);
    await mend(letter);
    return letter?.id ?? "";
  }

  async function mend(letter: Letter | undefined): Promise<void> {
    const mended = JSON.stringify(JSON.parse(letter?.entry ?? "").with(IDENTIFIER, "mended"));
    await db.prepare("UPDATE dead_letters SET entry = ? WHERE id = ?").bind(mended, letter?.id).run();
  }

  it("are listed newest first, by page", async () => {
    const meter = unique("mtr_test_poison");
    for (const _ of [1, 2, 3]) await deliver(aShareOf(aPoisonEvent({ meter })));
    const page = (query: string) => answerOf(`/v1/edgemeter/dead_letters?limit=2${query}`);
    const first = (await page("")).body as { data: Letter[]; has_more: boolean };
    expect(first.has_more).toBe(true);
    const [newest, middle] = first.data.map(({ id }) => id);
    const second = (await page(`&starting_after=${middle}`)).body as { data: Letter[] };
    const back = (await page(`&ending_before=${second.data[0]?.id}`)).body as { data: Letter[] };
    expect(back.data.map(({ id }) => id)).toEqual([newest, middle]);
    expect(newest && middle && newest > middle).toBe(true);
  });

  it("count once they are redriven, and are gone, when what was wrong is mended", async () => {
    const meter = unique("mtr_test_poison");
    await deliver(aShareOf(aPoisonEvent({ meter })));
    const [letter] = await lettersOf(meter);
    const id = letter?.id ?? "";
    expect(await redrive(id)).toMatchObject({ status: 400, body: { error: { code: "still_refused" } } });
    expect(await lettersOf(meter)).toHaveLength(1);

    await mend(letter);
    expect(await redrive(id)).toMatchObject({ status: 200, body: { id, object: "edgemeter.dead_letter" } });
    expect(await storedEvents(meter)).toBe(1);
    expect(await lettersOf(meter)).toEqual([]);
    expect((await redrive(id)).status).toBe(200);
    expect(await storedEvents(meter)).toBe(1);
  });

  it("answer a repeated redrive with the first answer, and refuse another one under its Idempotency-Key", async () => {
    const meter = unique("mtr_test_poison");
    const key = unique("key");
    const id = await aMendedLetter(meter);
    const first = await redrive(id, LOCAL_KEYS.test, key);
    expect(first.status).toBe(200);
    expect(await redrive(id, LOCAL_KEYS.test, key)).toMatchObject({ status: 200, body: first.body });
    expect(await redrive("dl_other", LOCAL_KEYS.test, key)).toMatchObject({
      status: 400,
      body: { error: { type: "idempotency_error" } },
    });
    expect(await storedEvents(meter)).toBe(1);
  });

  it("may be redriven with the same Idempotency-Key after D1 refused them", async () => {
    const meter = unique("mtr_test_poison");
    const key = unique("key");
    await deliver(aShareOf(aPoisonEvent({ meter })));
    const [letter] = await lettersOf(meter);
    const refused = await redrive(letter?.id ?? "", LOCAL_KEYS.test, key);
    expect(refused).toMatchObject({ status: 400, body: { error: { code: "still_refused" } } });
    await mend(letter);
    expect((await redrive(letter?.id ?? "", LOCAL_KEYS.test, key)).status).toBe(200);
    expect(await storedEvents(meter)).toBe(1);
  });

  it("stay when D1 fails for another reason than their data, and the retry stores them", async () => {
    const meter = unique("mtr_test_poison");
    const key = unique("key");
    const id = await aMendedLetter(meter);
    vi.spyOn(db, "batch").mockRejectedValueOnce(new Error("D1_ERROR: Network connection lost."));
    expect((await redrive(id, LOCAL_KEYS.test, key)).status).toBe(503);
    expect(await lettersOf(meter)).toHaveLength(1);
    expect((await redrive(id, LOCAL_KEYS.test, key)).status).toBe(200);
    expect(await storedEvents(meter)).toBe(1);
  });

  it("are stored once by a redrive whose answer was lost", async () => {
    const meter = unique("mtr_test_poison");
    const key = unique("key");
    const id = await aMendedLetter(meter);
    const batch = db.batch.bind(db);
    vi.spyOn(db, "batch").mockImplementationOnce(async (statements) => {
      await batch(statements);
      throw new Error("D1_ERROR: Network connection lost.");
    });
    expect((await redrive(id, LOCAL_KEYS.test, key)).status).toBe(503);
    expect(await redrive(id, LOCAL_KEYS.test, key)).toMatchObject({ status: 200, body: { id } });
    expect(await storedEvents(meter)).toBe(1);
    expect(await lettersOf(meter)).toEqual([]);
  });

  it("are of one mode: a key of the other neither sees nor redrives them", async () => {
    const [test, live] = [unique("mtr_test_poison"), unique("mtr_poison")];
    await deliver(
      aShareOf(aPoisonEvent({ meter: test })),
      aShare(aShard({ livemode: true }).shard, "events", eventLines([aPoisonEvent({ meter: live })])),
    );
    expect(await lettersOf(live)).toEqual([]);
    expect(await lettersOf(test, LOCAL_KEYS.live)).toEqual([]);
    const [letter] = await lettersOf(live, LOCAL_KEYS.live);
    expect((await redrive(letter?.id ?? "")).status).toBe(404);
    expect(await lettersOf(live, LOCAL_KEYS.live)).toHaveLength(1);
  });
});
