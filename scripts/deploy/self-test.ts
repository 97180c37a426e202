import { randomBytes } from "node:crypto";
import pRetry from "p-retry";
import { z } from "zod";
import { hashOf } from "../../src/catalog/key-hash.ts";
import { CommandError } from "../command-error.ts";
import { Client } from "../http.ts";
import { NEXT_KEY_NUMBER, type RunSql, sqlText } from "../sql.ts";

/** Its meter, of test mode: made by the first deployment and used again by the next ones. */
const SELF_TEST_METER = "edgemeter_self_test";

const KEY_ID = "key_self_test";

const VALUE = "25";

/**
 * Has the Worker at an address count one event, from its report to its sum: through keys, meters, lock,
 * log, queue and aggregator, and with a write and a read of the database. It all happens in test mode,
 * on a meter of its own, for a customer of its own, with a key that is revoked at the end. Notes in the
 * database that `fingerprint` has passed. Throws a CommandError that says what did not come.
 */
export async function selfTest(run: RunSql, address: string, fingerprint: string, patienceMs: number): Promise<void> {
  const server = { url: address, key: await createKey(run), patienceMs, firstPatienceMs: patienceMs };
  const client = new Client(server);
  try {
    await countOneEvent(client, await meterOf(run, client), patienceMs);
  } catch (error) {
    await run(REVOKE()).catch(() => undefined);
    throw error instanceof CommandError ? new CommandError(`the self-test failed: ${error.message}`) : error;
  }
  await run(`${REVOKE()};
    INSERT INTO deployment (name, value) VALUES ('self_test', ${sqlText(fingerprint)})
    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
  `);
}

/** A test key under an id that is always the same, so that only the last one's hash is kept. */
async function createKey(run: RunSql): Promise<string> {
  const secret = `sk_test_${randomBytes(32).toString("hex")}`;
  await run(`INSERT INTO api_keys (hash, id, number, name, livemode, created)
    VALUES (${sqlText(hashOf(secret))}, '${KEY_ID}', ${NEXT_KEY_NUMBER}, 'npm run deploy: self-test', 0, ${Date.now()})
    ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, created = excluded.created, revoked_at = NULL`);
  return secret;
}

const REVOKE = (): string => `UPDATE api_keys SET revoked_at = ${Date.now()} WHERE id = '${KEY_ID}'`;

const WithId = z.object({ id: z.string() });

async function meterOf(run: RunSql, client: Client): Promise<string> {
  const [rows = []] = await run(
    `SELECT id FROM meters WHERE livemode = 0 AND event_name = '${SELF_TEST_METER}' AND status = 'active'`,
  );
  const [found] = z.array(WithId).parse(rows);
  if (found !== undefined) return found.id;
  const form = {
    display_name: "Self-test of npm run deploy",
    event_name: SELF_TEST_METER,
    "default_aggregation[formula]": "sum",
  };
  return (await client.call({ path: "/v1/billing/meters", form }, WithId)).id;
}

const Sums = z.object({ data: z.array(z.object({ aggregated_value: z.number() })) });

async function countOneEvent(client: Client, meter: string, patienceMs: number): Promise<void> {
  // A customer of its own, so that the sum is that of one event.
  const customer = `self_test_${randomBytes(8).toString("hex")}`;
  const json = { event_name: SELF_TEST_METER, payload: { stripe_customer_id: customer, value: VALUE } };
  const report = { path: "/v2/billing/meter_events", idempotencyKey: customer, json };
  await client.call(report, z.object({ identifier: z.string() }));

  const day = 86_400;
  const today = Math.floor(Date.now() / 1_000 / day) * day;
  const range = new URLSearchParams({ customer, start_time: String(today - day), end_time: String(today + 2 * day) });
  const path = `/v1/billing/meters/${meter}/event_summaries?${range}`;
  const sum = async (): Promise<void> => {
    const { data } = await client.call({ path }, Sums);
    const total = data[0]?.aggregated_value ?? 0;
    if (total !== Number(VALUE)) throw new NotYet(`its sum is ${total}, not ${VALUE}`);
  };
  const retrying = { retries: Number.POSITIVE_INFINITY, minTimeout: 100, maxTimeout: 2_000, maxRetryTime: patienceMs };
  await pRetry(sum, { ...retrying, shouldRetry: ({ error }) => error instanceof NotYet }).catch((error: unknown) => {
    if (!(error instanceof NotYet)) throw error;
    throw new CommandError(
      `an event was accepted and not counted within ${patienceMs / 1_000} s, ${error.message}. npx wrangler tail shows what the Worker logs; run npm run deploy again.`,
    );
  });
}

class NotYet extends Error {}
