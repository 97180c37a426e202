// When a log's sender hands groups to the queue, on a clock that the test turns.
import { createHash } from "node:crypto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Env } from "../../src/env.ts";
import { bodiesOf, type Group } from "../../src/log/groups.ts";
import { decodeMessage, MESSAGE_BYTES } from "../../src/log/message.ts";
import type { Partitions } from "../../src/log/partitions.ts";
import { Sender } from "../../src/log/sender.ts";
import { shardName } from "../../src/log/shard-name.ts";

const INTERVAL = 200;

/** A tick of every interval (ms). */
const TICK = Date.UTC(2040, 0);

const VARS = {
  ...{ EVENT_LOG_SHARDS: "1", TEST_EVENT_LOG_SHARDS: "1", LOCATION_HINT: "", JURISDICTION: "" },
  ...{ CONFLICT_WAIT_MS: "0", RETRY_WAIT_MS: "0", GROUP_COMMIT_MS: "0", RESEND_AFTER_MS: "10000" },
  ...{ LOG_HIGH_WATER_MB: "1", DATABASE_HIGH_WATER_MB: "1", EVENTS_HOT_DAYS: "35", AUDIT_ROWS_A_MINUTE: "0" },
  SEND_INTERVAL_MS: String(INTERVAL),
};

beforeEach(() => {
  vi.useFakeTimers({ now: TICK + 30 });
});

afterEach(() => {
  vi.useRealTimers();
});

/** A log of one database, none of whose groups is ever confirmed; `sent` has the groups of each message, by when. */
function aLog() {
  const groups: Group[] = [];
  const store = {
    get lastGroupId() {
      return groups.length;
    },
    read: (id: number) => groups[id - 1],
    unconfirmedAfter: (id: number) => groups.slice(id).values(),
    oldestAfter: (id: number) => groups[id]?.id,
  };
  const sent: (readonly [at: number, groups: readonly number[]])[] = [];
  const queue = {
    sendBatch: vi.fn(async (batch: Iterable<MessageSendRequest>): Promise<unknown> => {
      for (const { body } of batch) sent.push([Date.now() - TICK, decodeMessage(body).map(({ group }) => group)]);
      return {};
    }),
  };
  const start = { databases: 1, confirmedThrough: () => 0, vain: () => 0, resentThrough: undefined };
  const env = { ...VARS, EVENT_QUEUE: queue } as unknown as Env;
  const sender = new Sender(env, shardName(true, 0), store as unknown as Partitions, start);
  const place = { database: 0, slice: 1, lane: 0, timestamp: TICK };
  const append = (entries = 1, text = '["an entry"]'): void => {
    const bodies = bodiesOf(Array.from({ length: entries }, () => ({ ...place, text })));
    const group: Group = { id: groups.length + 1, kind: "events", bodies };
    groups.push(group);
    sender.took(group);
    sender.sendSoon();
  };
  return { append, sent, queue, sender };
}

/** Text that deflating makes half as long at best. */
const dense = (bytes: number): string => createHash("shake256", { outputLength: bytes / 2 }).digest("hex");

test("an idle log sends at once, and then what has gathered at the next tick", async () => {
  const { append, sent } = aLog();
  append();
  await vi.advanceTimersByTimeAsync(0);
  expect(sent).toEqual([[30, [1]]]);
  for (let i = 0; i < 3; i++) {
    append();
    await vi.advanceTimersByTimeAsync(20);
  }
  expect(sent).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(INTERVAL);
  expect(sent.slice(1)).toEqual([[INTERVAL, [2, 3, 4]]]);
  await vi.advanceTimersByTimeAsync(10 * INTERVAL);
  append();
  await vi.advanceTimersByTimeAsync(0);
  expect(sent.slice(2)).toEqual([[290 + 10 * INTERVAL, [5]]]);
});

test("a busy log sends less often, but a full message soon", async () => {
  const { append, sent } = aLog();
  append();
  await vi.advanceTimersByTimeAsync(0);
  append(1_000);
  await vi.advanceTimersByTimeAsync(INTERVAL);
  expect(sent.slice(1)).toEqual([[INTERVAL, [2]]]);
  append();
  await vi.advanceTimersByTimeAsync(INTERVAL);
  expect(sent).toHaveLength(2);
  // Its timer has begun; this moves it up.
  for (let i = 0; i < 3; i++) append(1, dense(MESSAGE_BYTES * 0.9));
  await vi.advanceTimersByTimeAsync(INTERVAL);
  expect(sent.slice(2).map(([at]) => at)).toEqual([3 * INTERVAL, 3 * INTERVAL]);
  expect(sent.slice(2).flatMap(([, groups]) => groups)).toEqual([3, 4, 5, 6]);
});

test("what comes during a send does not follow it at once", async () => {
  const { append, sent, queue } = aLog();
  const under = Promise.withResolvers<unknown>();
  queue.sendBatch.mockImplementationOnce(() => under.promise);
  append();
  await vi.advanceTimersByTimeAsync(0);
  append();
  under.resolve({});
  await vi.advanceTimersByTimeAsync(INTERVAL - 31);
  expect(sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(sent).toEqual([[INTERVAL, [2]]]);
});

test("a send that fails is logged, and the next tick sends what came later", async () => {
  const errors = vi.spyOn(console, "error").mockImplementation(() => {});
  const { append, sent, queue } = aLog();
  queue.sendBatch.mockRejectedValueOnce(new Error("the queue is away"));
  append();
  await vi.advanceTimersByTimeAsync(0);
  expect(errors.mock.calls.flat().join()).toContain("the alarm will");
  append();
  await vi.advanceTimersByTimeAsync(INTERVAL);
  expect(sent).toEqual([[INTERVAL, [2]]]);
  errors.mockRestore();
});

test("an alarm waits for no tick", async () => {
  const { append, sent, sender } = aLog();
  append();
  await vi.advanceTimersByTimeAsync(0);
  append();
  await sender.send();
  expect(sent).toEqual([
    [30, [1]],
    [30, [2]],
  ]);
});
