// The baseline: one Fastify and one PostgreSQL, one statement for everything that is reported. A child process that
// sends its address and PostgreSQL's version when it listens, or nothing where PostgreSQL's server is not installed,
// and ends with its parent.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import Fastify from "fastify";
import pRetry from "p-retry";
import pg from "pg";

const SCHEMA = `
  CREATE TABLE events (
    identifier text PRIMARY KEY, customer text NOT NULL, timestamp timestamptz NOT NULL, value bigint NOT NULL
  );
  CREATE INDEX events_by_customer ON events (customer, timestamp);
  CREATE TABLE sums (customer text, hour timestamptz, sum numeric NOT NULL, PRIMARY KEY (customer, hour));`;

// The customer's turn, where $4 asks for it, which ends with the transaction; then the events whose identifiers are not
// taken; then their sums. Each in an order, so that two batches never wait for each other in turn.
const STORE = `
  WITH report AS MATERIALIZED (
    SELECT *, NOT $4::boolean OR pg_try_advisory_xact_lock(hashtextextended(customer, 0)) AS mine
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS report (identifier, customer, value)
  ),
  stored AS (
    INSERT INTO events SELECT identifier, customer, now(), value FROM report WHERE mine ORDER BY identifier
    ON CONFLICT DO NOTHING RETURNING *
  ),
  summed AS (
    INSERT INTO sums SELECT customer, date_trunc('hour', timestamp), sum(value) FROM stored GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (customer, hour) DO UPDATE SET sum = sums.sum + excluded.sum
  )
  SELECT bool_and(mine) AS mine, EXISTS (SELECT FROM stored) AS stored FROM report`;

const SUM = "SELECT coalesce(sum(sum), 0)::text AS sum FROM sums WHERE $1::text IS NULL OR customer = $1";

type Report = { readonly identifier: string; readonly customer: string; readonly value: string };

const text = { type: "string", minLength: 1, maxLength: 500 } as const;
const value = { type: "string", pattern: "^[1-9][0-9]{0,14}$" } as const;
const report = {
  type: "object",
  required: ["identifier", "customer", "value"],
  properties: { identifier: text, customer: text, value },
} as const;
const reports = { type: "array", minItems: 1, maxItems: 100, items: report } as const;

/** What a program prints, or nothing when there is no such program. */
const output = async (program: string, ...args: string[]): Promise<string> =>
  (await promisify(execFile)(program, args).catch(() => undefined))?.stdout.trim() ?? "";

const programs = await output("pg_config", "--bindir");
const version = await output(path.join(programs, "postgres"), "--version");
// PostgreSQL does not run as root.
const ids =
  process.getuid?.() === 0 ? [await output("id", "-u", "postgres"), await output("id", "-g", "postgres")] : [];
if (version !== "" && !ids.includes("")) await run(ids.map(Number));
else process.disconnect();

/** A new cluster in a temporary folder, durable as it is by default (fsync and synchronous_commit on), and its API. */
async function run([uid, gid]: readonly number[]): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), "edgemeter-peer-"));
  const as = uid !== undefined && gid !== undefined ? { uid, gid, cwd: "/" } : {};
  if (uid !== undefined && gid !== undefined) await chown(folder, uid, gid);
  const data = path.join(folder, "data");
  const initialise = ["-D", data, "-U", "peer", "--auth=trust", "--encoding=UTF8", "--no-locale"];
  await promisify(execFile)(path.join(programs, "initdb"), initialise, as);
  const settings = ["-c", "listen_addresses=", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"];
  const postgres = spawn(path.join(programs, "postgres"), ["-D", data, "-k", folder, ...settings], {
    ...as,
    stdio: "ignore",
  });
  process.once("disconnect", async () => {
    postgres.kill("SIGQUIT");
    await once(postgres, "exit");
    await rm(folder, { recursive: true });
    process.exit();
  });
  // Transactions that wait for the disk together share a flush, so there are many connections.
  const pool = new pg.Pool({ host: folder, user: "peer", database: "postgres", max: 40 });
  pool.on("error", () => {});
  await pRetry(() => pool.query(SCHEMA), { minTimeout: 100, factor: 1, retries: 300 });
  process.send?.({ url: await listen(pool), version });
}

/** The API; its address. */
function listen(pool: pg.Pool): Promise<string> {
  const app = Fastify();
  const store = async (reports: readonly Report[], inTurn: boolean) => {
    const columns = (["identifier", "customer", "value"] as const).map((name) => reports.map((report) => report[name]));
    const query = { name: "store", text: STORE, values: [...columns, inTurn] };
    return (await pool.query<{ mine: boolean; stored: boolean }>(query)).rows[0];
  };
  app.post<{ Body: Report }>("/event", { schema: { body: report } }, async ({ body }, reply) => {
    const outcome = await store([body], true);
    return outcome?.stored ? body : reply.code(outcome?.mine ? 400 : 409).send({});
  });
  app.post<{ Body: Report[] }>("/events", { schema: { body: reports } }, async ({ body }) => {
    await store(body, false);
    return {};
  });
  // Of a customer, or of all.
  app.get<{ Querystring: { customer?: string } }>("/sum", async ({ query }) => {
    return (await pool.query({ name: "sum", text: SUM, values: [query.customer] })).rows[0];
  });
  return app.listen({ host: "127.0.0.1", port: 0 });
}
