import { eventsDatabase, nameOfDatabase } from "../catalog/databases.ts";
import { LANES } from "../domain/placement.ts";
import { type Env, settingsOf } from "../env.ts";
import { cutLinesOf, type Share } from "../log/groups.ts";
import { decodeMessage } from "../log/message.ts";
import { isLiveShard } from "../log/shard-name.ts";
import { eventLog } from "../log/shards.ts";
import { logError } from "../logger.ts";
import { NoAnswer, withTimeout } from "../timeout.ts";
import { applyEntries, isAboutData } from "./apply.ts";
import { unlessLeftOut } from "./dead-letters.ts";
import type { Entries } from "./entries.ts";
import { isFull, noteSize } from "./fill.ts";
import { applyOrPark } from "./poison.ts";

/** Entries (bytes of their JSON) that a run takes at a time: they are in memory together. */
const TOGETHER_BYTES = 2_000_000;

/** What a database may take of them, however many there are (bytes). */
const LEAST_BYTES = 250_000;

/**
 * What is taken together is stored lane by lane, as far as the transactions have so many bytes each. Groups of few
 * entries have no lanes, so all of those are stored with the first.
 */
const TRANSACTION_BYTES = 250_000;

/**
 * Before a run gives a database another transaction, that rests for so many times as long as the last one took, up to
 * so long (ms). Its readers get a turn meanwhile, and locally all requests do, since workerd runs everything on one
 * thread. So a run alone keeps a database busy for two fifths of the time, more where transactions take long. With
 * more consumers than one (wrangler.toml), runs do not wait for each other and use each other's rests.
 */
const REST_FACTOR = 1.5;
const MOST_REST_MS = 200;

/**
 * After so many statements a run begins no more transactions; their logs send what is left again. D1 takes 1,000
 * queries of an invocation, and the largest transaction is less than the rest.
 */
const RUN_STATEMENTS = 700;

/** How long a transaction, and all that a run does in one database, may take (ms). */
const TRANSACTION_MS = 30_000;
const RUN_MS = 60_000;

/** How long a log may take to note a confirmation (ms). */
const CONFIRM_MS = 10_000;

/**
 * A database that hung is left alone for so long (ms), by the runs of this isolate: each run ends with the last of its
 * databases, so one that waits for it again would keep the others' shares waiting.
 */
const LEFT_ALONE_MS = 30_000;

/** When what hung was begun (ms), by the databases' names. */
const hungAt = new Map<string, number>();

/** Whether a database hung of late; a clock that went back makes it no longer. */
function isLeftAlone(name: string): boolean {
  const since = Date.now() - (hungAt.get(name) ?? Number.NEGATIVE_INFINITY);
  return since >= 0 && since < TRANSACTION_MS + LEFT_ALONE_MS;
}

/** Statements that a run has left, in all of its databases. */
type Budget = { statements: number };

/** What a run does in one database, until its end (ms). */
type Run = {
  readonly db: D1Database;
  readonly name: string;
  readonly env: Env;
  readonly budget: Budget;
  deadline: number;
  /** When it last began to ask the database. */
  beganAt: number;
  /** When the database has rested from the last transaction. */
  restedAt: number;
};

/**
 * The queue consumer: applies the shares of a batch to their databases, then confirms them to their logs.
 * Every message is acknowledged, also when D1 failed: the logs alone own retry, and send again what
 * was not confirmed. Databases are written side by side, so that none waits for another.
 */
export async function consume(batch: MessageBatch, env: Env): Promise<void> {
  const shares = withoutRepeats(batch.messages.flatMap(readMessage));
  const byDatabase = Map.groupBy(shares, ({ shard, database }) => nameOfDatabase(isLiveShard(shard), database));
  const budget = { statements: RUN_STATEMENTS };
  await Promise.all(
    [...byDatabase].map(async ([name, ofDatabase]) => {
      try {
        await applyAll(name, ofDatabase, byDatabase.size, budget, env);
      } catch (error) {
        logError("shares were not applied; their logs will send them again", error, { database: name });
      }
    }),
  );
  batch.ackAll();
}

async function applyAll(
  name: string,
  shares: readonly Share[],
  databases: number,
  budget: Budget,
  env: Env,
): Promise<void> {
  const [first] = shares;
  if (first === undefined || isLeftAlone(name)) return;
  const db = counting(eventsDatabase(env, isLiveShard(first.shard), first.database), budget);
  const run = { db, name, env, budget, deadline: Date.now() + RUN_MS, beganAt: 0, restedAt: 0 };
  const most = Math.max(LEAST_BYTES, TOGETHER_BYTES / databases);
  for (const together of takenTogether(shares, most)) await applyAndConfirm(together, run, LANES);
}

/** A database whose statements are taken from a budget. */
const counting = (db: D1Database, budget: Budget): D1Database =>
  new Proxy(db, {
    get: (_, name) => {
      if (name !== "batch") return Reflect.get(db, name).bind(db);
      return (statements: D1PreparedStatement[]) => {
        budget.statements -= statements.length;
        return db.batch(statements);
      };
    },
  });

/** Applies shares, in up to `most` transactions, and confirms them when all of those are in. */
async function applyAndConfirm(shares: readonly Share[], run: Run, most: number): Promise<void> {
  const now = Date.now();
  try {
    const unless = unlessLeftOut(run.db, shares);
    for (const entries of transactionsOf(shares, most)) {
      if (!(await store(entries, run, now, unless))) return;
    }
  } catch (error) {
    if (error instanceof NoAnswer) endRun(run);
    const [first, ...others] = shares;
    if (first === undefined || !isAboutData(error)) {
      logError("shares were not applied; their logs will send them again", error, {
        database: run.name,
        shares: shares.length,
        first: `${first?.shard}:${first?.group}`,
      });
    } else if (others.length > 0) {
      // One share's data must not hold up the others.
      const middle = Math.ceil(shares.length / 2);
      await applyAndConfirm(shares.slice(0, middle), run, 1);
      await applyAndConfirm(shares.slice(middle), run, 1);
    } else if (await takeApart(run, first, now)) {
      await confirm(shares, run.env);
    }
    return;
  }
  await confirm(shares, run.env);
}

/** A database that hangs must not keep its run, or one that follows, which others' shares are waiting for. */
function endRun(run: Run): void {
  run.deadline = 0;
  hungAt.set(run.name, run.beganAt);
}

/** Stores entries in one transaction, after a rest; whether the run had time, and the database room, for it. */
async function store(
  entries: readonly Entries[],
  run: Run,
  now: number,
  unless: D1PreparedStatement,
): Promise<boolean> {
  const rest = run.restedAt - Date.now();
  if (rest > 0) await scheduler.wait(rest);
  if (run.budget.statements <= 0 || Date.now() >= run.deadline) return false;
  run.beganAt = Date.now();
  if (await withTimeout(isFull(run.db, run.name, settingsOf(run.env)), TRANSACTION_MS)) return false;
  const began = Date.now();
  noteSize(run.name, await withTimeout(applyEntries(run.db, entries, now, [unless]), TRANSACTION_MS));
  const ended = Date.now();
  run.restedAt = ended + Math.min(REST_FACTOR * (ended - began), MOST_REST_MS);
  return true;
}

/**
 * The entries of shares, for one transaction after another: as many as their size asks for, up to `most`, and a part of
 * LANES, so that all take alike. Each lane is in one of them, and with it all that counts in one sum. A crash between
 * them leaves a part of the shares stored, which changes nothing when they come again.
 */
function transactionsOf(shares: readonly Share[], most: number): Entries[][] {
  const size = shares.reduce((bytes, share) => bytes + share.size, 0);
  const count = Math.min(most, 2 ** Math.ceil(Math.log2(Math.max(1, size / TRANSACTION_BYTES))));
  const transactions: Entries[][] = Array.from({ length: count }, () => []);
  for (const share of shares) {
    for (const { lanes, ...line } of cutLinesOf(share)) {
      for (const [lane, entries] of lanes.entries()) {
        if (entries !== "") transactions[lane % transactions.length]?.push({ ...line, kind: share.kind, entries });
      }
    }
  }
  return transactions.filter((entries) => entries.length > 0);
}

/** Stores what D1 takes of a share that it refuses, and parks the rest; whether nothing is left to do. */
async function takeApart(run: Run, share: Share, now: number): Promise<boolean> {
  const where = { shard: share.shard, group: share.group };
  run.beganAt = Date.now();
  try {
    const parked = await withTimeout(applyOrPark(run.db, share, now), RUN_MS);
    for (const { id, reason } of parked) logError("an entry was parked as a dead letter", reason, { ...where, id });
    return true;
  } catch (error) {
    if (error instanceof NoAnswer) endRun(run);
    logError("a group that D1 refuses was not taken apart; its log will send it again", error, where);
    return false;
  }
}

/** The shares of a message; none when it cannot be read, which only a log that runs other code can cause. */
function readMessage({ id, body }: Message): Share[] {
  try {
    return decodeMessage(body);
  } catch (error) {
    logError("a message was not read", error, { queueMessage: id });
    return [];
  }
}

/** A share twice in one statement would be counted twice: neither copy is stored yet when both are added. */
const withoutRepeats = (shares: readonly Share[]): Share[] => [
  ...new Map(shares.map((share) => [`${share.shard}:${share.group}:${share.database}`, share])).values(),
];

/** Shares that are applied and confirmed together. What was sent in vain before goes alone, so that its neighbours pass. */
function* takenTogether(shares: readonly Share[], most: number): Generator<Share[]> {
  let current: Share[] = [];
  let bytes = 0;
  for (const share of shares.filter(({ alone }) => !alone)) {
    current.push(share);
    bytes += share.size;
    if (bytes >= most) {
      yield current;
      current = [];
      bytes = 0;
    }
  }
  if (current.length > 0) yield current;
  for (const share of shares.filter(({ alone }) => alone)) yield [share];
}

/** Tells each log which of its shares are stored. A log that does not hear it, or does not respond, sends them again. */
async function confirm(shares: readonly Share[], env: Env): Promise<void> {
  const byShard = Map.groupBy(shares, ({ shard }) => shard);
  await Promise.all(
    [...byShard].map(async ([shard, stored]) => {
      try {
        const names = stored.map(({ group, database }) => ({ group, database }));
        await withTimeout(eventLog(env, shard).confirm(names), CONFIRM_MS);
      } catch (error) {
        logError("groups were not confirmed", error, { shard, groups: stored.length });
      }
    }),
  );
}
