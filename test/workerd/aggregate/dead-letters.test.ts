import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { consume } from "../../../src/aggregate/consumer.ts";
import {
  deadLetterPrefix,
  findDeadLetter,
  forgetRedriven,
  type KnownLetter,
  parkStatement,
  redrive as redriveLetter,
} from "../../../src/aggregate/dead-letters.ts";
import { awaitsLetter } from "../../../src/archive/states.ts";
import { type LogEntry, writeEvent } from "../../../src/log/codec.ts";
import type { Share } from "../../../src/log/groups.ts";
import { encodeMessage } from "../../../src/log/message.ts";
import { eventLog } from "../../../src/log/shards.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { aShare, cancellationLines, eventLines, rejectionLines } from "../../support/shares.ts";
import {
  aBatch,
  aContext,
  aNewEvent,
  answerOf,
  aShard,
  createdMeter,
  eventually,
  storedEvents,
  storedIn,
} from "../support.ts";

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
  const post = (path: string, key: string = LOCAL_KEYS.test, idempotencyKey?: string) =>
    answerOf(`/v1/edgemeter/dead_letters/${path}`, {
      method: "POST",
      key,
      headers: idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey },
    });
  const redrive = (id: string, ...rest: string[]) => post(`${id}/redrive`, ...rest);
  const discard = (id: string, ...rest: string[]) => post(`${id}/discard`, ...rest);

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

  it("that are discarded are not listed, and neither redriven nor forgotten any more", async () => {
    const meter = unique("mtr_test_poison");
    const [given, stored] = [await aMendedLetter(meter), await aMendedLetter(unique("mtr_test_poison"))];
    const slice =
      (await db.prepare("SELECT slice FROM dead_letters WHERE id = ?").bind(given).first<number>("slice")) ?? 0;
    await db
      .prepare("DELETE FROM dead_letters WHERE slice = ? AND id <> ? AND id <> ?")
      .bind(slice, given, stored)
      .run();
    expect((await redrive(stored)).status).toBe(200);
    expect(await awaitsLetter(db, slice)).toBe(true);
    const key = unique("key");
    const first = await discard(given, LOCAL_KEYS.test, key);
    expect(first).toMatchObject({ status: 200, body: { id: given, object: "edgemeter.dead_letter" } });
    expect(await discard(given, LOCAL_KEYS.test, key)).toMatchObject({ status: 200, body: first.body });
    expect((await discard(given)).status).toBe(200);
    expect(await lettersOf(meter)).toEqual([]);
    expect(await awaitsLetter(db, slice)).toBe(false);
    const ended = { status: 400, body: { error: { code: "letter_ended" } } };
    expect(await redrive(given)).toMatchObject(ended);
    expect(await discard(stored)).toMatchObject(ended);
    await forgetRedriven(db, Date.now() + 2 * 86_400_000);
    expect((await redrive(stored)).status).toBe(404);
    expect(await redrive(given)).toMatchObject(ended);
    expect(await storedEvents(meter)).toBe(0);
  });

  it("are discarded by a redrive that began before no more than by one after", async () => {
    const meter = unique("mtr_test_poison");
    const id = await aMendedLetter(meter);
    const letter = await findDeadLetter(db, id);
    await discard(id);
    await expect(redriveLetter(db, letter as KnownLetter, Date.now())).rejects.toThrow("malformed JSON");
    expect(await storedEvents(meter)).toBe(0);
  });

  it.each([
    ["discarded", discard],
    ["left waiting", async () => {}],
  ])(
    "that are %s are left out when their log sends the share again, whatever the database takes by then",
    async (_, end) => {
      const meter = unique("mtr_test_poison");
      const entries = Array.from({ length: 5 }, () => aLogEntry({ meter }));
      const share = aShareOf(...entries);
      const id = `${deadLetterPrefix(share.shard, share)}2`;
      const letter = {
        id,
        kind: "events",
        slice: 1,
        entry: writeEvent(entries[2] as LogEntry),
        reason: "refused",
      } as const;
      await parkStatement(db, { ...letter, parked: 0 }).run();
      await end(id);
      const neighbour = aShareOf(aLogEntry({ meter }));
      for (const _ of [1, 2]) await consume(aBatch([encodeMessage([share, neighbour])]), env);
      expect(await storedEvents(meter)).toBe(5);
      const stored = (await storedIn(db, meter)).map((event) => event.id);
      expect(stored).not.toContain(entries[2]?.id);
      expect(await lettersOf(meter)).toHaveLength(end === discard ? 0 : 1);
    },
  );

  it("that are discarded are known by the identifier of their event", async () => {
    const meter = await createdMeter();
    const identifier = unique("identifier");
    const poison = { ...aNewEvent({ meter: meter.id, identifier }), identifier: null as never };
    await eventLog(env, "test-0").append([poison], aContext({ shards: [1] }));
    const known = () => answerOf(`/v1/billing/meter_events/${identifier}`);
    const letter = await eventually(async () => {
      const { body } = await known();
      expect(body).toMatchObject({ aggregated: false, parked: { discarded_at: null } });
      return (body.parked as { dead_letter: string }).dead_letter;
    });
    await discard(letter);
    const { body } = await known();
    expect(body).toMatchObject({
      aggregated: false,
      parked: { dead_letter: letter, discarded_at: expect.any(Number) },
    });
  });
});
