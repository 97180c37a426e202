import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import { parkStatement } from "../../../src/aggregate/dead-letters.ts";
import { reopenSlice } from "../../../src/aggregate/sql/slices.ts";
import { type ArchivedDatabase, archivedDatabases } from "../../../src/archive/archive.ts";
import { eraseStep, forgetErased } from "../../../src/archive/erase.ts";
import { filesOf } from "../../../src/archive/manifest.ts";
import { Budget } from "../../../src/audit/budget.ts";
import { auditPage } from "../../../src/audit/log-page.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { newEventId } from "../../../src/domain/identifiers.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import { EventLog } from "../../../src/index.ts";
import { type LogEntry, writeCancellation, writeEvent } from "../../../src/log/codec.ts";
import { aLogEntry, aMeter, errorOf, resultOf, unique } from "../../support/builders.ts";
import { rejectionLines, toEntries } from "../../support/shares.ts";
import { readSummaries } from "../../support/summaries.ts";
import { erase, tracesOf } from "../archive/erase-support.ts";
import { archive, archivedRows, cancel, empty, statesOf, store } from "../archive/support.ts";
import { aStoredMeter, cancel as cancelInLog, holdQueueAndClock, logged, settle } from "../audit/audit-support.ts";
import { D1, HostileD1 } from "../hostile-d1.ts";
import { aContext, aNewEvent, answerOf, aShard, FUTURE, growTo, recordPlacement, storedIn } from "../support.ts";

holdQueueAndClock();

/** Every event of a story is received at the beginning of a slice. */
const BEGIN = receiptOf(sliceOf(FUTURE)).start + MINUTE_MS;
const SLICE = sliceOf(BEGIN);
const OVER = receiptOf(SLICE).end + 25 * HOUR_MS + 1;
const OLD = receiptOf(SLICE).end + 35 * DAY_MS;

const db = env.EVENTS_0;
const METER = { ...aMeter({ livemode: true }), id: "mtr_erased" };
const CUSTOMER = "cus_erased_person";
const UUID = "01234567-89ab-cdef-0123-456789abcdef";
/** What must not be found after an erasure. */
const WORDS = [CUSTOMER, UUID, UUID.replaceAll("-", ""), "secret-order", "secret-payload"];

beforeEach(async () => {
  await Promise.all([db, env.EVENTS_1, env.TEST_EVENTS].map(empty));
  vi.setSystemTime(BEGIN + MINUTE_MS);
});

const anEntry = (changes: Partial<LogEntry> = {}): LogEntry =>
  aLogEntry({
    id: newEventId(BEGIN),
    meter: METER.id,
    customer: CUSTOMER,
    timestamp: BEGIN,
    received: BEGIN,
    identifier: unique("secret-order"),
    payload: { note: "secret-payload" },
    ...changes,
  });

/** Some events of the customer, and some of another. */
const someEntries = (): LogEntry[] => [
  anEntry({ value: 1, identifier: UUID }),
  anEntry({ value: 2, dimensions: '{"region":"eu"}' }),
  anEntry({ value: 4, timestamp: BEGIN - 20 * DAY_MS }),
  anEntry({ value: 8, meter: "mtr_other" }),
  anEntry({ value: 16, customer: "cus_2", identifier: unique("order"), payload: { note: "kept" } }),
];

/** What is counted for a customer on a meter. */
async function usedBy(customer: string, meter = METER.id): Promise<bigint> {
  const range = { start: BEGIN - 30 * DAY_MS, end: BEGIN + 30 * DAY_MS };
  const query = { meter: { ...METER, id: meter }, customer, range, windowLength: range.end - range.start };
  const [summary] = resultOf(await readSummaries(env, { ...query, order: "newest_first", limit: 10 }));
  return summary?.value ?? 0n;
}

const known = (name: string): ArchivedDatabase => {
  const found = archivedDatabases(env).find(({ database }) => database.name === name);
  if (found === undefined) throw new Error(name);
  return found;
};

/** Forgets whom a test has erased, as the schedule does five days later. */
const forget = async (name = "EVENTS_0") => {
  vi.setSystemTime(Date.now() + 6 * DAY_MS);
  await forgetErased(env, known(name), Date.now());
};

describe("a customer who was erased", () => {
  it("has nothing, and an alias has what was used, without identifiers and payloads", async () => {
    const entries = someEntries();
    await store(db, entries);
    const alias = await erase(CUSTOMER);
    expect([await usedBy(CUSTOMER), await usedBy(alias), await usedBy(alias, "mtr_other")]).toEqual([0n, 7n, 8n]);
    expect(await usedBy("cus_2")).toBe(16n);
    const stored = await storedIn(db, METER.id, "mtr_other");
    expect(stored.map(({ customer, identifier, payload }) => [customer, identifier, payload])).toEqual(
      entries.map(({ customer, id, identifier }) =>
        customer === CUSTOMER ? [alias, `em_${id}`, null] : ["cus_2", identifier, '{"note":"kept"}'],
      ),
    );
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
    await forget();
    expect(await tracesOf(db, ...WORDS)).toEqual([]);
  });

  it("counts anew from then on, also when erased again, and everything comes again", async () => {
    const [first, second, third] = [anEntry({ value: 1 }), anEntry({ value: 2 }), anEntry({ value: 4 })].map(
      (entry, i) => ({ ...entry, received: BEGIN + i * HOUR_MS }),
    ) as [LogEntry, LogEntry, LogEntry];
    const aliases: string[] = [];
    for (const entry of [first, second]) {
      vi.setSystemTime(entry.received);
      await store(db, [entry]);
      expect(await usedBy(CUSTOMER)).toBe(BigInt(entry.value));
      aliases.push(await erase(CUSTOMER));
    }
    await store(db, [third]);
    await store(db, [first, second, third]);
    await cancel(db, [first]);
    expect(await Promise.all([...aliases, CUSTOMER].map((customer) => usedBy(customer)))).toEqual([0n, 2n, 4n]);
  });

  it.each<[string, (entries: LogEntry[]) => Promise<unknown>, bigint, bigint]>([
    ["is delivered again", (entries) => store(db, entries), 7n, 0n],
    ["is cancelled", (entries) => cancel(db, entries.slice(0, 2)), 4n, 0n],
    [
      "was on its way",
      () => store(db, [anEntry({ value: 32 }), anEntry({ value: 64, dimensions: '{"region":"us"}' })]),
      103n,
      0n,
    ],
    ["and its cancellation were on their way", () => cancel(db, [anEntry({ value: 32 })]), 7n, 0n],
    ["was received later", () => store(db, [anEntry({ value: 32, received: BEGIN + HOUR_MS })]), 7n, 32n],
  ])("has its alias count what %s", async (_, happens, ofAlias, own) => {
    const entries = someEntries();
    await store(db, entries);
    const alias = await erase(CUSTOMER);
    await happens(entries);
    expect([await usedBy(alias), await usedBy(CUSTOMER)]).toEqual([ofAlias, own]);
    if (own === 0n) expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
  });

  it("gives an alias also what a log received whose clock is ahead", async () => {
    const entry = anEntry({ value: 1, received: BEGIN + 3 * MINUTE_MS });
    await store(db, [entry]);
    const alias = await erase(CUSTOMER);
    // What an erasure takes over is never another's, however near it is.
    const another = await erase(CUSTOMER);
    await store(db, [entry, anEntry({ value: 2 })]);
    expect([await usedBy(alias), await usedBy(another), await usedBy(CUSTOMER)]).toEqual([3n, 0n, 0n]);
  });

  it("is neither missing nor altered to the audit, which repairs what differs", async () => {
    const meter = await aStoredMeter();
    const { shard, log } = aShard();
    const events = [1, 2, 4].map((value) => {
      const event = aNewEvent({ meter: meter.id, customer: CUSTOMER, value, identifier: unique("secret-order") });
      return { ...event, event: { ...event.event, payload: { note: "secret-payload" } } };
    });
    await log.append(events, aContext());
    await settle(log);
    await cancelInLog(log, events[0], meter);
    await settle(log);
    const audit = async () => {
      const { checked, missing, altered } = await auditPage(env, shard, 0, Date.now() + DAY_MS, Budget.unlimited());
      return { checked, missing, altered };
    };
    // Also between the first step and the next: there are more slices than it looks at.
    await store(
      env.TEST_EVENTS,
      Array.from({ length: 9 }, (_, i) => anEntry({ received: BEGIN + i * 12 * HOUR_MS })),
    );
    await eraseStep(env, { livemode: false, customer: CUSTOMER, cursor: undefined }, Date.now());
    expect(await audit()).toEqual({ checked: 4, missing: 0, altered: 0 });
    const alias = await erase(CUSTOMER, false);
    expect(await audit()).toEqual({ checked: 4, missing: 0, altered: 0 });
    await env.TEST_EVENTS.prepare(`UPDATE events_${SLICE} SET value = 9 WHERE value = 4`).run();
    expect(await audit()).toEqual({ checked: 4, missing: 0, altered: 1 });
    expect((await storedIn(env.TEST_EVENTS, meter.id)).map((event) => [event.customer, event.value])).toEqual([
      [alias, 1],
      [alias, 2],
      [alias, 4],
    ]);
    await env.TEST_EVENTS.prepare(`DELETE FROM events_${SLICE}`).run();
    expect(await audit()).toMatchObject({ missing: 4 });
    await settle(log);
    expect(await audit()).toEqual({ checked: 4, missing: 0, altered: 0 });
    expect(await tracesOf(env.TEST_EVENTS, ...WORDS)).toEqual([CUSTOMER]);
  });

  it.each(["events", "cancellations"] as const)(
    "has its alias count dead letters that are redriven: %s",
    async (kind) => {
      const event = anEntry({ value: 32 });
      const others = [
        anEntry({ customer: "cus_2", payload: { of: CUSTOMER } }),
        anEntry({ received: BEGIN + HOUR_MS }),
      ];
      const write = (entry: LogEntry) =>
        kind === "events" ? writeEvent(entry) : writeCancellation({ ...entry, cancelled: BEGIN + 1, cancelledBy: 2 });
      const letters = [event, ...others].map((entry, place) => ({
        ...{ id: `dl_1_live-0_0_${place}`, kind, slice: SLICE, reason: "it is refused", parked: BEGIN },
        entry: write(entry),
      }));
      if (kind === "cancellations") await store(db, [event]);
      await db.batch([
        ...letters.map((letter) => parkStatement(db, letter)),
        parkStatement(db, { ...(letters[0] as (typeof letters)[0]), id: "dl_2_live-0_0_0", entry: `["${CUSTOMER}",` }),
      ]);
      const alias = await erase(CUSTOMER);
      const { results } = await db.prepare("SELECT entry FROM dead_letters ORDER BY id").all<{ entry: string }>();
      expect(results.map(({ entry }) => entry)).toEqual([
        write({ ...event, customer: alias, identifier: `em_${event.id}`, payload: undefined }),
        ...letters.slice(1).map(({ entry }) => entry),
        "erased",
      ]);
      const redriven = await answerOf(`/v1/edgemeter/dead_letters/${letters[0]?.id}/redrive`, {
        ...{ key: LOCAL_KEYS.live, form: "" },
      });
      expect(redriven.status).toBe(200);
      expect([await usedBy(alias), await usedBy(CUSTOMER)]).toEqual([kind === "events" ? 32n : 0n, 0n]);
    },
  );

  it("is in no error report and no response", async () => {
    const rejection = {
      ...{ id: unique("rejection"), livemode: true, meter: METER.id, code: "duplicate_meter_event", count: 2 },
      samples: [
        [`It is of ${CUSTOMER}.`, "order-1"],
        ["It is another.", "order-2"],
      ] as [string, string][],
      received: BEGIN,
    };
    await applyEntries(db, toEntries("rejections", rejectionLines([rejection])), BEGIN);
    const letter = { id: "dl_1_live-0_0_0", kind: "events", slice: SLICE, reason: "refused", parked: BEGIN } as const;
    await parkStatement(db, { ...letter, entry: writeEvent(anEntry()) }).run();
    const path = `/v1/edgemeter/dead_letters/${letter.id}/redrive`;
    const request = { key: LOCAL_KEYS.live, form: "", idempotencyKey: unique("redrive") };
    await answerOf(path, request);
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER, "secret-order", "secret-payload"]);

    const form: Record<string, string> = { customer: CUSTOMER };
    const sum = { dead_letters: 0, error_reports: 0, responses: 0, series: 0, events: 0 };
    for (;;) {
      const { status, body } = await answerOf("/v1/edgemeter/erasures", { key: LOCAL_KEYS.live, form });
      expect(status).toBe(200);
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += Number(body[name]);
      if (body.next === null) break;
      form.cursor = String(body.next);
    }
    expect(sum).toEqual({ dead_letters: 1, error_reports: 1, responses: 1, series: 1, events: 1 });
    const { samples } = (await db
      .prepare("SELECT samples FROM error_reports WHERE id = ?")
      .bind(rejection.id)
      .first()) as {
      samples: string;
    };
    expect(JSON.parse(samples)).toEqual([
      ["The customer of this event was erased.", "em_erased"],
      rejection.samples[1],
    ]);
    expect((await answerOf(path, request)).body).toMatchObject({ object: "edgemeter.dead_letter", id: letter.id });
    await forget();
    expect(await tracesOf(db, ...WORDS)).toEqual([]);
  });

  it("is refused as an alias, and with a cursor of another erasure", async () => {
    await store(db, someEntries());
    const asked = { livemode: true, customer: CUSTOMER, cursor: undefined };
    const { alias, next } = resultOf(await eraseStep(env, asked, Date.now()));
    expect(errorOf(await eraseStep(env, { ...asked, customer: alias }, Date.now()))).toBe("is_alias");
    for (const cursor of ["x", next]) {
      expect(errorOf(await eraseStep(env, { ...asked, customer: "cus_2", cursor }, Date.now()))).toBe("invalid_cursor");
    }
    expect(await erase(CUSTOMER)).toBe(alias);
    expect(await erase(CUSTOMER)).not.toBe(alias);
  });

  it("is forgotten only once it is finished, and everything of before is confirmed", async () => {
    const customerOf = () => env.TEST_EVENTS.prepare("SELECT customer FROM erasures").first("customer");
    await store(
      env.TEST_EVENTS,
      Array.from({ length: 9 }, (_, i) => anEntry({ received: BEGIN - i * 12 * HOUR_MS })),
    );
    await eraseStep(env, { livemode: false, customer: CUSTOMER, cursor: undefined }, Date.now());
    await forget("TEST_EVENTS");
    expect(logged("warning")).toEqual(["an erasure was begun and not finished"]);
    await erase(CUSTOMER, false);
    const status = vi.spyOn(EventLog.prototype, "status").mockRejectedValue(new Error("away"));
    await forget("TEST_EVENTS");
    expect(await customerOf()).toBe(CUSTOMER);
    status.mockRestore();
    await forget("TEST_EVENTS");
    expect(await customerOf()).toBeNull();
  });
});

describe("the archive of a customer who was erased", () => {
  type State = "open" | "sealed" | "exported" | "half checked" | "checked" | "archived";

  /** Events in a slice of a state. */
  async function aSlice(state: State): Promise<LogEntry[]> {
    const entries = someEntries();
    await store(db, entries);
    const steps = { open: 0, sealed: 1, exported: 3, "half checked": 4, checked: 6, archived: 6 }[state];
    vi.setSystemTime(OVER);
    if (steps > 0) await archive("EVENTS_0", { steps, until: Number.POSITIVE_INFINITY });
    if (state === "archived") {
      vi.setSystemTime(OLD);
      await archive();
    }
    return entries;
  }

  it.each<[State, string, number]>([
    ["open", "open", 0],
    ["sealed", "sealed", 1],
    ["exported", "exported", 2],
    ["half checked", "exported", 2],
    ["checked", "checked", 2],
    ["archived", "archived", 2],
  ])("has no trace of them, whose slice was %s", async (state, before, files) => {
    const entries = await aSlice(state);
    expect((await statesOf(db)).find(({ slice }) => slice === SLICE)?.state).toBe(before);
    const named = await filesOf(db, SLICE);
    expect(named).toHaveLength(files);
    const alias = await erase(CUSTOMER);
    const written = await filesOf(db, SLICE);
    expect(written.map(({ key }) => key)).toEqual(named.map(({ key }) => key.replace(".parquet", `.${alias}.parquet`)));
    expect(written.map(({ checksum, rows, sum, first, last }) => [checksum, rows, sum, first, last])).toEqual(
      named.map(({ checksum, rows, sum, first, last }) => [checksum, rows, sum, first, last]),
    );
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
    expect((await env.ARCHIVE.list()).objects.map(({ key }) => key).sort()).toEqual(
      written.map(({ key }) => key).sort(),
    );
    // What is compared after it is right.
    vi.setSystemTime(OLD);
    expect(await archive()).toBe(false);
    expect(logged("error")).toEqual([]);
    expect((await statesOf(db)).find(({ slice }) => slice === SLICE)?.state).toBe("archived");
    const rows = await archivedRows(db, SLICE);
    const expected = entries.map(({ customer, id, identifier, value }) =>
      customer === CUSTOMER ? [alias, `em_${id}`, null, value] : [customer, identifier, '{"note":"kept"}', value],
    );
    const byValue = (a: unknown[], b: unknown[]) => Number(a[3]) - Number(b[3]);
    expect(
      rows.map(({ customer, identifier, payload, value }) => [customer, identifier, payload, value]).sort(byValue),
    ).toEqual(expected);
  });

  it("waits until the erasure is finished, and the erasure until the archive's step is", async () => {
    await aSlice("half checked");
    const asked = { livemode: true, customer: CUSTOMER, cursor: undefined };
    await db
      .prepare("INSERT INTO leases VALUES ('archive', 'an archiver', ?)")
      .bind(Date.now() + 1)
      .run();
    expect(errorOf(await eraseStep(env, asked, Date.now()))).toBe("archive_at_work");
    vi.setSystemTime(Date.now() + 1);
    resultOf(await eraseStep(env, asked, Date.now()));
    const states = await statesOf(db);
    expect(await archive()).toBe(false);
    expect(await statesOf(db)).toEqual(states);
    await erase(CUSTOMER);
    await archive();
    expect(await statesOf(db)).not.toEqual(states);
  });

  it("loses an object that was put and is in no manifest", async () => {
    await aSlice("sealed");
    const insert = vi.spyOn(env.ARCHIVE, "put").mockImplementationOnce(async (...args) => {
      insert.mockRestore();
      await env.ARCHIVE.put(...args);
      throw new Error("the exporter died");
    });
    await expect(archive()).rejects.toThrow("the exporter died");
    expect((await env.ARCHIVE.list()).objects).toHaveLength(2);
    await db.prepare("DELETE FROM leases").run();
    await erase(CUSTOMER);
    expect((await env.ARCHIVE.list()).objects).toHaveLength(1);
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
  });

  it("loses the files of a slice that was opened again", async () => {
    await aSlice("checked");
    await db.batch(reopenSlice(db, SLICE));
    expect(await filesOf(db, SLICE)).toEqual([]);
    await erase(CUSTOMER);
    expect((await env.ARCHIVE.list()).objects).toEqual([]);
    await archive();
    expect((await statesOf(db)).find(({ slice }) => slice === SLICE)?.state).toBe("checked");
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
  });

  it("is not erased while a file is damaged", async () => {
    await aSlice("archived");
    const [file] = await filesOf(db, SLICE);
    const good = await (await env.ARCHIVE.get(file?.key ?? ""))?.arrayBuffer();
    await env.ARCHIVE.put(file?.key ?? "", "something else");
    await expect(erase(CUSTOMER)).rejects.toThrow(`the file ${file?.key} is damaged`);
    await env.ARCHIVE.put(file?.key ?? "", good ?? "");
    await erase(CUSTOMER);
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
  });

  it.each(["exported", "half checked", "checked"] as const)(
    "is exported anew where a file is damaged, and is %s",
    async (state) => {
      const entries = await aSlice(state);
      const [damaged] = await filesOf(db, SLICE);
      await env.ARCHIVE.put(damaged?.key ?? "", "something else");
      const alias = await erase(CUSTOMER);
      expect(await tracesOf(db, ...WORDS, "something else")).toEqual([CUSTOMER]);
      vi.setSystemTime(OLD);
      await archive();
      expect(logged("error")).toEqual([]);
      expect((await statesOf(db)).find(({ slice }) => slice === SLICE)?.state).toBe("archived");
      const rows = await archivedRows(db, SLICE);
      expect(rows.map(({ id }) => id).sort()).toEqual(entries.map(({ id }) => id).sort());
      expect(rows.filter(({ customer }) => customer === alias)).toHaveLength(4);
    },
  );

  it.each(["put", "list"] as const)("keeps what another names in the manifest meanwhile: %s", async (call) => {
    await aSlice("archived");
    const [file] = await filesOf(db, SLICE);
    if (file === undefined) throw new Error("no file");
    const other = file.key.replace(".parquet", ".other.parquet");
    const bytes = (await (await env.ARCHIVE.get(file.key))?.arrayBuffer()) ?? "";
    const bucket = env.ARCHIVE as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
    const real = bucket[call]?.bind(bucket);
    vi.spyOn(bucket, call).mockImplementationOnce(async (...args) => {
      const answer = await real?.(...args);
      await env.ARCHIVE.put(other, bytes);
      await db
        .prepare("UPDATE archive_files SET key = ?, bytes = ?, sha256 = ? WHERE slice = ? AND file = 0")
        .bind(other, file.bytes, file.sha256, SLICE)
        .run();
      return answer;
    });
    await expect(erase(CUSTOMER)).rejects.toThrow(`the file ${file.key} was replaced meanwhile`);
    const keys = (await env.ARCHIVE.list()).objects.map(({ key }) => key);
    expect(keys).toEqual(expect.arrayContaining([file.key, other]));
    await erase(CUSTOMER);
    expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
    expect((await env.ARCHIVE.list()).objects.map(({ key }) => key).sort()).toEqual(
      (await filesOf(db, SLICE)).map(({ key }) => key).sort(),
    );
  });

  it("ends its step when another has taken the lease, and goes on there", async () => {
    await aSlice("archived");
    const asked = { livemode: true, customer: CUSTOMER, cursor: undefined };
    const get = env.ARCHIVE.get.bind(env.ARCHIVE) as (key: string) => Promise<R2ObjectBody | null>;
    vi.spyOn(env.ARCHIVE, "get").mockImplementationOnce((async (key: string) => {
      await db.prepare("UPDATE leases SET holder = 'another', until = until + 1").run();
      return get(key);
    }) as never);
    const { alias, next } = resultOf(await eraseStep(env, asked, Date.now()));
    const written = async () => (await filesOf(db, SLICE)).map(({ key }) => key.includes(alias));
    expect(await written()).toEqual([true, false]);
    expect(errorOf(await eraseStep(env, { ...asked, cursor: next }, Date.now()))).toBe("archive_at_work");
    await db.prepare("DELETE FROM leases").run();
    resultOf(await eraseStep(env, { ...asked, cursor: next }, Date.now()));
    expect(await written()).toEqual([true, true]);
  });

  it.each(["isAway", "losesItsAnswer"] as const)(
    "ends the same when each call of D1 and R2 fails once: %s",
    async (fate) => {
      const entries = await aSlice("half checked");
      const open = anEntry({ value: 32, received: OVER, timestamp: OVER });
      await store(db, [open]);
      const letter = { id: "dl_1_live-0_0_0", kind: "events", slice: SLICE, reason: "refused", parked: BEGIN } as const;
      await parkStatement(db, { ...letter, entry: writeEvent(anEntry({ value: 64 })) }).run();
      let calls = 0;
      let failing = 0;
      const meets = <T>(call: () => Promise<T>): Promise<T> => (++calls === failing ? D1[fate](call) : call());
      new HostileD1([db, env.EVENTS_1]).fate = meets;
      const bucket = env.ARCHIVE as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
      for (const name of ["get", "put", "list", "delete"]) {
        const real = bucket[name]?.bind(bucket);
        vi.spyOn(bucket, name).mockImplementation((...args) => meets(async () => real?.(...args)));
      }
      // Each attempt fails at a later call than the one before, until one has fewer calls than that.
      let failures = 0;
      for (let alias: string | undefined; alias === undefined; ) {
        calls = 0;
        failing++;
        alias = await erase(CUSTOMER).catch(() => void failures++);
        // A lease that was not given up ends.
        vi.setSystemTime(Date.now() + 3 * MINUTE_MS);
      }
      expect(failures).toBeGreaterThan(20);
      failing = 0;
      const { results } = await db
        .prepare("SELECT DISTINCT customer FROM series ORDER BY 1")
        .all<{ customer: string }>();
      expect(results.map(({ customer }) => customer)).toEqual(["cus_2", expect.stringMatching(/^erased_/)]);
      await store(db, [...entries, open]);
      expect([await usedBy(results[1]?.customer ?? ""), await usedBy(CUSTOMER)]).toEqual([39n, 0n]);
      expect(await tracesOf(db, ...WORDS)).toEqual([CUSTOMER]);
      expect((await env.ARCHIVE.list()).objects.map(({ key }) => key).sort()).toEqual(
        (await filesOf(db, SLICE)).map(({ key }) => key).sort(),
      );
      vi.setSystemTime(OLD);
      expect(await archive()).toBe(false);
      expect(logged("error")).toEqual([]);
    },
  );
});

describe("several databases", () => {
  it("have one alias, each what was received until its own part began; test mode has nothing of it", async () => {
    const events = [anEntry({ value: 1 }), anEntry({ value: 2 })];
    await store(db, events.slice(0, 1));
    await store(env.EVENTS_1, events.slice(1));
    await store(env.TEST_EVENTS, [anEntry({ value: 4 })]);
    const { alias, next } = resultOf(
      await eraseStep(env, { livemode: true, customer: CUSTOMER, cursor: undefined }, Date.now()),
    );
    // It has not begun in the second database: what is stored there is erased as well.
    vi.setSystemTime(Date.now() + MINUTE_MS);
    const later = anEntry({ value: 8, received: Date.now() });
    await store(env.EVENTS_1, [later]);
    expect(next).toBeDefined();
    expect(await erase(CUSTOMER)).toBe(alias);
    await store(env.EVENTS_1, [later]);
    const customers = async (database: D1Database) =>
      (await storedIn(database, METER.id)).map(({ customer, value }) => [customer, value]);
    expect(await customers(db)).toEqual([[alias, 1]]);
    expect(await customers(eventsDatabase(env, true, 1))).toEqual([
      [alias, 2],
      [alias, 8],
    ]);
    expect(await customers(env.TEST_EVENTS)).toEqual([[CUSTOMER, 4]]);
    expect(await tracesOf(env.EVENTS_1, ...WORDS)).toEqual([CUSTOMER]);
    // Its usage stayed where it was, and where that is the alias does not say.
    await growTo(2);
    expect(await usedBy(alias)).toBe(11n);
    await recordPlacement([{ databases: 1, since: 0 }]);
  });
});
