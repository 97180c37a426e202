// What an operator sees of the archive: the pipeline's page, and what is logged once an hour.
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { parkStatement } from "../../../src/aggregate/dead-letters.ts";
import { openSlice } from "../../../src/aggregate/sql/slices.ts";
import { warnOfArchive } from "../../../src/archive/alarms.ts";
import { archivedDatabases } from "../../../src/archive/archive.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, receiptOf, sliceOf } from "../../../src/domain/window.ts";
import type { Env } from "../../../src/env.ts";
import { createApp } from "../../../src/http/app.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { answerOf, FUTURE } from "../support.ts";
import { archive, empty, store } from "./support.ts";

const db = env.EVENTS_0;
const SLICE = sliceOf(FUTURE);
const NEXT = SLICE + 12;
const BEGIN = receiptOf(SLICE).start + MINUTE_MS;
const OVER = receiptOf(SLICE).end + 25 * HOUR_MS;

const lines: Record<string, unknown>[] = [];

beforeEach(async () => {
  for (const each of [db, env.TEST_EVENTS]) await empty(each);
  lines.length = 0;
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
  for (const level of ["error", "warn"] as const) {
    vi.spyOn(console, level).mockImplementation((line) => void lines.push(JSON.parse(line)));
  }
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const storeOne = () => store(db, [aLogEntry({ timestamp: BEGIN, received: BEGIN, identifier: unique("identifier") })]);

type Page = { databases: { database: string; archive: Record<string, unknown> }[] };

async function archiveOf(database: string, key: string = LOCAL_KEYS.live): Promise<unknown> {
  const { body } = await answerOf("/v1/edgemeter/pipeline", { key });
  return (body as Page).databases.find((known) => known.database === database)?.archive;
}

const toUnix = (time: number): number => time / 1_000;

const OPEN = { begins: toUnix(receiptOf(SLICE).start), over: toUnix(OVER) };

/** A letter that waits for the slice. */
const park = () =>
  parkStatement(db, { id: "dl_1", kind: "events", slice: SLICE, entry: "[]", reason: "refused", parked: BEGIN }).run();

const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);

/** What a shard says of the first database: when the first entry was received that it lacks; or it does not respond. */
function shardSays(shard: string, oldest: number | "nothing"): void {
  vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((name, options) => {
    const log = getByName(name, options);
    if (name !== shard) return log;
    const status = async () => {
      if (oldest === "nothing") throw new Error("overloaded");
      return { ...(await log.status()), oldestOf: { 0: oldest } };
    };
    return { status } as never;
  });
}

/** Everything but a bucket. */
const { ARCHIVE: _, ...WITHOUT_BUCKET } = env;

describe("the pipeline's page", () => {
  it("says how far the archive is, how much it has, and when it was last checked", async () => {
    await storeOne();
    await openSlice(db, NEXT);
    expect(await archiveOf("EVENTS_0")).toEqual({
      ...{ status: "archiving", archived_through: null, last_check: null, files: 0, bytes: 0, failed_checks: [] },
      oldest_open: { ...OPEN, kept_open_by: "not_over", shard: null },
    });
    vi.setSystemTime(OVER + 1_000);
    await archive();
    const { objects } = await env.ARCHIVE.list();
    const checked = { archived_through: toUnix(receiptOf(SLICE).end), last_check: toUnix(OVER + 1_000) };
    expect(await archiveOf("EVENTS_0")).toMatchObject({ ...checked, files: 1, bytes: objects[0]?.size });
    expect(await archiveOf("EVENTS_0")).toMatchObject({ oldest_open: { begins: toUnix(receiptOf(NEXT).start) } });
    vi.setSystemTime(receiptOf(SLICE).end + 35 * DAY_MS);
    await archive();
    // The next slice is over as well by then, and has nothing in it.
    const next = { archived_through: toUnix(receiptOf(NEXT).end), last_check: toUnix(Date.now()) };
    expect(await archiveOf("EVENTS_0")).toMatchObject({ ...next, files: 1, oldest_open: null });
  });

  it("says which slices differ from their files, and goes no further than before them", async () => {
    await storeOne();
    await openSlice(db, NEXT);
    vi.setSystemTime(OVER + 1_000);
    await archive();
    await db.prepare("UPDATE slices SET failed = 1 WHERE slice = ?").bind(SLICE).run();
    expect(await archiveOf("EVENTS_0")).toMatchObject({ archived_through: null, failed_checks: [OPEN.begins] });
  });

  it("says what keeps the oldest slice open", async () => {
    await storeOne();
    const kept = async () => ((await archiveOf("EVENTS_0")) as { oldest_open: unknown }).oldest_open;
    vi.setSystemTime(OVER + 1_000);
    expect(await kept()).toEqual({ ...OPEN, kept_open_by: null, shard: null });
    await park();
    expect(await kept()).toEqual({ ...OPEN, kept_open_by: "dead_letters", shard: null });
    shardSays("live-1", OVER - HOUR_MS);
    expect(await kept()).toEqual({ ...OPEN, kept_open_by: "shard_not_confirmed", shard: "live-1" });
    shardSays("live-1", OVER - HOUR_MS + 1);
    expect(await kept()).toEqual({ ...OPEN, kept_open_by: "dead_letters", shard: null });
    shardSays("live-2", "nothing");
    expect(await kept()).toEqual({ ...OPEN, kept_open_by: "shard_not_reachable", shard: "live-2" });
  });

  it("says of a deployment without a bucket that all stays in the database, and of test mode that it has no archive", async () => {
    await storeOne();
    await openSlice(env.TEST_EVENTS, SLICE);
    vi.setSystemTime(OVER + 1_000);
    const headers = { authorization: `Bearer ${LOCAL_KEYS.live}` };
    const context = createExecutionContext();
    const request = new Request("http://edgemeter.test/v1/edgemeter/pipeline", { headers });
    const response = await createApp().fetch(request, WITHOUT_BUCKET, context);
    const { databases } = (await response.json()) as Page;
    expect(databases[0]?.archive).toMatchObject({
      status: "no_bucket",
      archived_through: null,
      oldest_open: { ...OPEN, kept_open_by: "no_bucket" },
    });
    expect(databases.at(-1)?.archive).toMatchObject({ status: "not_archived", oldest_open: { kept_open_by: null } });
    expect(await archiveOf("TEST_EVENTS", LOCAL_KEYS.test)).toMatchObject({ status: "not_archived" });
    expect(await archiveOf("EVENTS_0", LOCAL_KEYS.test)).toBeUndefined();
  });
});

describe("an hour's look at an archive", () => {
  const DAY_LATE = OVER + DAY_MS;

  async function warnings(now: number, bindings: Env = env): Promise<unknown[]> {
    const [known] = archivedDatabases(env);
    if (known === undefined) throw new Error("there is no database");
    vi.setSystemTime(now);
    await warnOfArchive(bindings, known, now);
    return lines.map(({ message, slice, reason, shard }) =>
      JSON.parse(JSON.stringify({ message, slice, reason, shard })),
    );
  }

  const UNSEALED = { message: "a slice cannot be sealed", slice: SLICE };
  const LATE = receiptOf(SLICE).start + 3 * DAY_MS;
  const sealed = () => db.prepare("UPDATE slices SET state = 'sealed' WHERE slice = ?").bind(SLICE).run();

  it.each<[what: string, now: number, prepare: () => unknown, expected: unknown[]]>([
    ["nothing when all is well", DAY_LATE, () => undefined, []],
    ["nothing when a shard holds up a slice for less than a day", DAY_LATE - 1, () => shardSays("live-1", BEGIN), []],
    [
      "the shard that holds up a slice",
      DAY_LATE,
      () => shardSays("live-1", BEGIN),
      [{ ...UNSEALED, reason: "shard_not_confirmed", shard: "live-1" }],
    ],
    [
      "the shard that is silent",
      DAY_LATE,
      () => shardSays("live-3", "nothing"),
      [{ ...UNSEALED, reason: "shard_not_reachable", shard: "live-3" }],
    ],
    ["letters that hold up a slice", DAY_LATE, park, [{ ...UNSEALED, reason: "dead_letters" }]],
    ["nothing when what is not exported is three days old", LATE, sealed, []],
    ["that the export lags", LATE + 1, sealed, [{ message: "the archive lags by days", slice: SLICE }]],
    [
      "a failed check",
      OVER,
      () => db.prepare("UPDATE slices SET state = 'exported', failed = 1 WHERE slice = ?").bind(SLICE).run(),
      [{ message: "a slice is left alone: its files differ from it", slice: SLICE }],
    ],
  ])("tells of %s", async (_, now, prepare, expected) => {
    await storeOne();
    await prepare();
    expect(await warnings(now)).toEqual(expected);
  });

  it("tells of a database that needs room while there is nothing to drop", async () => {
    await storeOne();
    await db.prepare("INSERT INTO leases VALUES ('what takes room', hex(zeroblob(450000)), 0)").run();
    const small = { DATABASE_HIGH_WATER_MB: "1" };
    const message = { message: "a database needs room and has nothing to drop" };
    expect(await warnings(OVER, { ...WITHOUT_BUCKET, ...small })).toEqual([message]);
    expect(await warnings(OVER)).toEqual([message]);
    lines.length = 0;
    await db.prepare("UPDATE slices SET state = 'checked' WHERE slice = ?").bind(SLICE).run();
    expect(await warnings(OVER, { ...env, ...small })).toEqual([]);
  });

  it("tells nothing of sealing and exports where there is no bucket", async () => {
    await storeOne();
    expect(await warnings(LATE + 1, WITHOUT_BUCKET)).toEqual([]);
  });
});
