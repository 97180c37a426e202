// The baseline: one Fastify and one PostgreSQL, one statement an insert, which also keeps the sums. A child process that
// gets the database's socket as an argument, sends its address when it listens, and ends with its parent.
import Fastify from "fastify";
import pg from "pg";

const SCHEMA = `
  CREATE TABLE events (
    identifier text PRIMARY KEY, customer text NOT NULL, timestamp timestamptz NOT NULL, value bigint NOT NULL
  );
  CREATE INDEX events_by_customer ON events (customer, timestamp);
  CREATE TABLE sums (customer text, hour timestamptz, sum numeric NOT NULL, PRIMARY KEY (customer, hour));`;

// In the order of the customers, so that two batches never wait for each other in turn.
const SUM = `
  INSERT INTO sums SELECT customer, date_trunc('hour', timestamp), sum(value) FROM stored GROUP BY 1, 2 ORDER BY 1, 2
  ON CONFLICT (customer, hour) DO UPDATE SET sum = sums.sum + excluded.sum`;

// The customer's turn, which ends with the transaction; then the event, unless its identifier is taken; then its sum.
const ONE = `
  WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended($2::text, 0)) AS mine),
  stored AS (
    INSERT INTO events SELECT $1::text, $2::text, now(), $3::bigint FROM turn WHERE mine
    ON CONFLICT DO NOTHING RETURNING *
  ),
  summed AS (${SUM})
  SELECT mine, EXISTS (SELECT FROM stored) AS stored FROM turn`;

const MANY = `
  WITH stored AS (
    INSERT INTO events SELECT identifier, customer, now(), value
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS report (identifier, customer, value) ORDER BY identifier
    ON CONFLICT DO NOTHING RETURNING *
  )
  ${SUM}`;

type Report = { readonly identifier: string; readonly customer: string; readonly value: string };

const text = { type: "string", minLength: 1, maxLength: 500 } as const;
const value = { type: "string", pattern: "^[1-9][0-9]{0,14}$" } as const;
const report = {
  type: "object",
  required: ["identifier", "customer", "value"],
  properties: { identifier: text, customer: text, value },
} as const;
const reports = { type: "array", minItems: 1, maxItems: 100, items: report } as const;

/** Transactions that wait for the disk together share a flush, so there are many connections. */
const pool = new pg.Pool({ host: process.argv[2], user: "peer", database: "postgres", max: 40 });
const app = Fastify();

app.post<{ Body: Report }>("/event", { schema: { body: report } }, async ({ body }, reply) => {
  const values = [body.identifier, body.customer, body.value];
  const { rows } = await pool.query<{ mine: boolean; stored: boolean }>({ name: "one", text: ONE, values });
  return rows[0]?.stored ? body : reply.code(rows[0]?.mine ? 400 : 409).send({});
});

app.post<{ Body: Report[] }>("/events", { schema: { body: reports } }, async ({ body }) => {
  const values = (["identifier", "customer", "value"] as const).map((name) => body.map((report) => report[name]));
  await pool.query({ name: "many", text: MANY, values });
  return {};
});

/** Of a customer, or of all. */
app.get<{ Querystring: { customer?: string } }>("/sum", async ({ query }) => {
  const text = "SELECT coalesce(sum(sum), 0)::text AS sum FROM sums WHERE $1::text IS NULL OR customer = $1";
  return (await pool.query({ name: "sum", text, values: [query.customer] })).rows[0];
});

process.on("disconnect", () => process.exit());
await pool.query(SCHEMA);
process.send?.(await app.listen({ host: "127.0.0.1", port: 0 }));
