// The peer's SQL. Every statement is prepared once per connection, by its name.
import pg from "pg";
import type { Admitted, Meter } from "./rules.ts";

/** Connections to the database, and so transactions at a time: those that wait for the disk together share a flush. */
const CONNECTIONS = 40;

const HOUR_MS = 3_600_000;

export type NewEvent = Admitted & { readonly identifier: string };

const FIND_KEY = { name: "find_key", text: "SELECT livemode FROM api_keys WHERE hash = $1" };

// The active meter of a name, or the last that had it.
const FIND_METER = {
  name: "find_meter",
  text: `
    SELECT id, formula, customer_key AS "customerKey", value_key AS "valueKey", status
    FROM meters
    WHERE livemode = $1 AND event_name = $2
    ORDER BY status = 'active' DESC, id DESC
    LIMIT 1`,
};

// One round trip and one transaction: the customer's turn on the meter, the identifier, the event.
// The turn ends after the commit is on disk, with the transaction.
const RECORD = {
  name: "record",
  text: `
    WITH turn AS MATERIALIZED (
      SELECT pg_try_advisory_xact_lock(hashtextextended($3::text || '/' || $4::text, 0)) AS mine
    ), taken AS (
      INSERT INTO identifiers (livemode, identifier, received)
      SELECT $1::boolean, $2::text, $8::timestamptz FROM turn WHERE mine
      ON CONFLICT (livemode, identifier) DO UPDATE SET received = excluded.received
      WHERE identifiers.received <= excluded.received - interval '24 hours'
      RETURNING identifier
    ), stored AS (
      INSERT INTO events (meter, customer, timestamp, identifier, value, received, dimensions)
      SELECT $3::text, $4::text, $5::timestamptz, identifier, $6::bigint, $8::timestamptz, $7::json FROM taken
    )
    SELECT mine, EXISTS (SELECT FROM taken) AS accepted FROM turn`,
};

// In the order of the identifiers, so that two requests never wait for each other's in turn.
const RECORD_MANY = {
  name: "record_many",
  text: `
    WITH incoming AS MATERIALIZED (
      SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::json[])
        AS incoming (identifier, meter, customer, timestamp, value, dimensions)
    ), taken AS (
      INSERT INTO identifiers (livemode, identifier, received)
      SELECT $1::boolean, identifier, $8::timestamptz FROM incoming ORDER BY identifier
      ON CONFLICT (livemode, identifier) DO UPDATE SET received = excluded.received
      WHERE identifiers.received <= excluded.received - interval '24 hours'
      RETURNING identifier
    )
    INSERT INTO events (meter, customer, timestamp, identifier, value, received, dimensions)
    SELECT meter, customer, timestamp, identifier, value, $8::timestamptz, dimensions
    FROM incoming JOIN taken USING (identifier)`,
};

// Whoever holds this row aggregates; whoever waited for it sees where the other one came to.
const LOCK_AGGREGATION = {
  name: "lock_aggregation",
  text: "SELECT FROM aggregation FOR UPDATE",
};

// Everything below the oldest running transaction is settled, and nothing will be added to it.
const AGGREGATION_SPAN = {
  name: "aggregation_span",
  text: `SELECT next AS first, pg_snapshot_xmin(pg_current_snapshot()) AS next FROM aggregation`,
};

const AGGREGATE = {
  name: "aggregate",
  text: `
    INSERT INTO hourly_summaries AS summary (meter, customer, hour, count, sum)
    SELECT meter, customer, date_trunc('hour', timestamp, 'UTC') AS hour, count(*), sum(value)
    FROM events
    WHERE transaction_id >= $1::xid8 AND transaction_id < $2::xid8
    GROUP BY meter, customer, hour
    ON CONFLICT (meter, customer, hour) DO UPDATE
    SET count = summary.count + excluded.count, sum = summary.sum + excluded.sum`,
};

const MARK_AGGREGATED = { name: "mark_aggregated", text: "UPDATE aggregation SET next = $1::xid8" };

// Whole hours from their rows, ragged edges from the events that are counted.
const SUMMARIZE = {
  name: "summarize",
  text: `
    WITH counted AS (SELECT next FROM aggregation),
    asked AS (SELECT id FROM meters WHERE livemode = $1 AND id = $2)
    SELECT sum(value)::text AS value
    FROM (
      SELECT sum AS value
      FROM hourly_summaries
      WHERE meter IN (SELECT id FROM asked) AND customer = $3 AND hour >= $5 AND hour < $6
      UNION ALL
      SELECT value
      FROM events
      WHERE meter IN (SELECT id FROM asked) AND customer = $3 AND timestamp >= $4 AND timestamp < least($5, $7)
        AND transaction_id < (SELECT next FROM counted)
      UNION ALL
      SELECT value
      FROM events
      WHERE meter IN (SELECT id FROM asked) AND customer = $3 AND timestamp >= greatest($5, $6) AND timestamp < $7
        AND transaction_id < (SELECT next FROM counted)
    ) AS parts`,
};

const PURGE = {
  name: "purge",
  text: "DELETE FROM identifiers WHERE received <= now() - interval '24 hours'",
};

/** What became of an event; `busy` when another write to its customer and meter was under way. */
export type RecordOutcome = "accepted" | "duplicate" | "busy";

/** Everything the service asks of its database, which the environment names (PGHOST, PGUSER, …). */
export class Store {
  readonly #pool = new pg.Pool({ max: CONNECTIONS });

  /** The mode of an API key (SHA-256, hex), when there is such a key. */
  async findKey(hash: string): Promise<{ livemode: boolean } | undefined> {
    const { rows } = await this.#pool.query<{ livemode: boolean }>({ ...FIND_KEY, values: [hash] });
    return rows[0];
  }

  async findMeter(livemode: boolean, eventName: string): Promise<Meter | undefined> {
    const { rows } = await this.#pool.query<Meter>({ ...FIND_METER, values: [livemode, eventName] });
    return rows[0];
  }

  /** Stores an event for good, when it is its customer's turn and its identifier is free. `received` is ISO. */
  async record(event: NewEvent, livemode: boolean, received: string): Promise<RecordOutcome> {
    const { identifier, meter, customer, timestamp, value, dimensions } = event;
    const { rows } = await this.#pool.query<{ mine: boolean; accepted: boolean }>({
      ...RECORD,
      values: [livemode, identifier, meter, customer, timestamp, value, dimensions, received],
    });
    if (rows[0]?.mine !== true) return "busy";
    return rows[0].accepted ? "accepted" : "duplicate";
  }

  /** Stores those events for good whose identifiers are free. No two may have the same. */
  async recordMany(events: readonly NewEvent[], livemode: boolean, received: string): Promise<void> {
    await this.#pool.query({
      ...RECORD_MANY,
      values: [
        livemode,
        events.map((event) => event.identifier),
        events.map((event) => event.meter),
        events.map((event) => event.customer),
        events.map((event) => event.timestamp),
        events.map((event) => event.value),
        events.map((event) => event.dimensions),
        received,
      ],
    });
  }

  /** Adds what was stored since the last time to the summaries: once, whoever else does the same. */
  async aggregate(): Promise<void> {
    const client = await this.#pool.connect();
    let failure: unknown;
    try {
      await client.query("BEGIN");
      await client.query(LOCK_AGGREGATION);
      const { rows } = await client.query<{ first: string; next: string }>(AGGREGATION_SPAN);
      for (const { first, next } of rows) {
        await client.query({ ...AGGREGATE, values: [first, next] });
        await client.query({ ...MARK_AGGREGATED, values: [next] });
      }
      await client.query("COMMIT");
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      // A connection that failed may be in the middle of its transaction: it is closed, not used again.
      client.release(failure !== undefined);
    }
  }

  /** A customer's usage on a meter of that mode in `range` (ms, without its end): digits, or nothing without events. */
  async summarize(
    { livemode, meter, customer }: { livemode: boolean; meter: string; customer: string },
    range: { start: number; end: number },
  ): Promise<string | undefined> {
    const firstHour = Math.ceil(range.start / HOUR_MS) * HOUR_MS;
    const lastHour = Math.floor(range.end / HOUR_MS) * HOUR_MS;
    const times = [range.start, firstHour, lastHour, range.end].map((ms) => new Date(ms).toISOString());
    const { rows } = await this.#pool.query<{ value: string | null }>({
      ...SUMMARIZE,
      values: [livemode, meter, customer, ...times],
    });
    return rows[0]?.value ?? undefined;
  }

  /** Forgets identifiers that are free again. */
  async purge(): Promise<void> {
    await this.#pool.query(PURGE);
  }
}
