import { eventsDatabase, nameOfDatabase } from "../catalog/databases.ts";
import { type Env, settingsOf } from "../env.ts";
import { linesOf, type Share } from "../log/groups.ts";
import { decodeMessage } from "../log/message.ts";
import { isLiveShard } from "../log/shard-name.ts";
import { eventLog } from "../log/shards.ts";
import { logError } from "../logger.ts";
import { NoAnswer, withTimeout } from "../timeout.ts";
import { applyEntries, isAboutData } from "./apply.ts";
import { isFull, noteSize } from "./fill.ts";
import { applyOrPark } from "./poison.ts";

/** Entries (bytes of their JSON) that the transactions of a run take at a time: under D1's 30 seconds, and in memory together. */
const TRANSACTION_BYTES = 2_000_000;

/** What a transaction may take, however many databases share TRANSACTION_BYTES (bytes). */
const LEAST_BYTES = 250_000;

/**
 * After so many statements a run begins no more transactions; their logs send what is left again. D1 takes 1,000
 * queries of an invocation, and the largest transaction is less than the rest.
 */
const RUN_STATEMENTS = 700;

/** How long a transaction, and all that a run does in one database, may take (ms). */
const TRANSACTION_MS = 30_000;
const RUN_MS = 60_000;

/** Statements that a run has left, in all of its databases. */
type Budget = { statements: number };

/** What a run does in one database, until its end (ms). */
type Run = {
  readonly db: D1Database;
  readonly name: string;
  readonly env: Env;
  readonly budget: Budget;
  deadline: number;
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
  if (first === undefined) return;
  const db = counting(eventsDatabase(env, isLiveShard(first.shard), first.database), budget);
  const run = { db, name, env, budget, deadline: Date.now() + RUN_MS };
  const most = Math.max(LEAST_BYTES, TRANSACTION_BYTES / databases);
  for (const together of transactions(shares, most)) await applyAndConfirm(together, run);
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

async function applyAndConfirm(shares: readonly Share[], run: Run): Promise<void> {
  if (run.budget.statements <= 0 || Date.now() >= run.deadline) return;
  if (await isFull(run.db, run.name, settingsOf(run.env))) return;
  const now = Date.now();
  try {
    noteSize(run.name, await withTimeout(applyEntries(run.db, shares.flatMap(entriesOf), now), TRANSACTION_MS));
  } catch (error) {
    // A database that hangs must not keep this run, which others' shares are waiting for.
    if (error instanceof NoAnswer) run.deadline = 0;
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
      await applyAndConfirm(shares.slice(0, middle), run);
      await applyAndConfirm(shares.slice(middle), run);
    } else if (await takeApart(run.db, first, now)) {
      await confirm(shares, run.env);
    }
    return;
  }
  await confirm(shares, run.env);
}

const entriesOf = (share: Share) => linesOf(share).map((line) => ({ ...line, kind: share.kind }));

/** Stores what D1 takes of a share that it refuses, and parks the rest; whether nothing is left to do. */
async function takeApart(db: D1Database, share: Share, now: number): Promise<boolean> {
  const where = { shard: share.shard, group: share.group };
  try {
    const parked = await applyOrPark(db, share, now);
    for (const { id, reason } of parked) logError("an entry was parked as a dead letter", reason, { ...where, id });
    return true;
  } catch (error) {
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

/** What goes into one transaction together. What was sent in vain before goes alone, so that its neighbours pass. */
function* transactions(shares: readonly Share[], most: number): Generator<Share[]> {
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

/** Tells each log which of its shares are stored. A log that does not hear it sends them again. */
async function confirm(shares: readonly Share[], env: Env): Promise<void> {
  const byShard = Map.groupBy(shares, ({ shard }) => shard);
  await Promise.all(
    [...byShard].map(async ([shard, stored]) => {
      try {
        await eventLog(env, shard).confirm(stored.map(({ group, database }) => ({ group, database })));
      } catch (error) {
        logError("groups were not confirmed", error, { shard, groups: stored.length });
      }
    }),
  );
}
