import { env } from "cloudflare:workers";
import { sign } from "hono/jwt";
import { expect } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import { parkStatement } from "../../../src/aggregate/dead-letters.ts";
import { eventsDatabase } from "../../../src/catalog/databases.ts";
import { hashOf } from "../../../src/catalog/key-hash.ts";
import { sliceOf } from "../../../src/domain/window.ts";
import { type LogRejection, writeRejection } from "../../../src/log/codec.ts";
import type { Ref } from "../../support/fuzz/nodes.ts";
import type { BadCredential, Caller, Mode } from "../../support/fuzz/requests.ts";
import { DEAD_LETTERS } from "../../support/fuzz/valid-requests.ts";
import { rejectionLines, toEntries } from "../../support/shares.ts";
import { answerOf, call, createdMeter, eventually, storedEvents } from "../support.ts";

export const MODES = ["test", "live"] as const satisfies readonly Mode[];

/**
 * What only a mode's own answers may hold: parts of its data that no fuzzed request contains. A caller
 * of the other mode may guess ids, names and customers, and sees his guesses echoed, but never these.
 */
export const CANARIES: Readonly<Record<Mode, RegExp>> = {
  test: /canary[ _]of[ _]test|777000111222333/,
  live: /canary[ _]of[ _]live|888000111222333/,
};

const VALUES: Readonly<Record<Mode, string>> = { test: "777000111222333", live: "888000111222333" };

/** What a mode has before anything is fuzzed, and what its callers present. */
export type World = {
  readonly refs: Readonly<Record<string, string>>;
  readonly key: string;
  readonly restricted: Readonly<Record<"ingest" | "read", string>>;
  readonly token: string;
  readonly bad: Readonly<Record<BadCredential, string>>;
};

export type Worlds = Readonly<Record<Mode, World>>;

export const otherMode = (mode: Mode): Mode => (mode === "test" ? "live" : "test");

/** The text of a ref in a caller's eyes. */
export const resolveIn =
  (worlds: Worlds, mode: Mode) =>
  (ref: Ref): string => {
    const [whose, what = ""] = ref.split(".");
    return worlds[whose === "own" ? mode : otherMode(mode)].refs[what] ?? "";
  };

/** The Authorization header of a caller: for a session's endpoint the token of one, else a key. */
export function authorizationOf(worlds: Worlds, caller: Caller, auth: "key" | "session"): string | undefined {
  if ("header" in caller) return caller.header ?? undefined;
  if ("bad" in caller) return `Bearer ${worlds.test.bad[caller.bad]}`;
  const { key, token, restricted } = worlds[caller.mode];
  if (caller.as === "the other kind") return `Bearer ${auth === "session" ? key : token}`;
  if (auth === "session") return `Bearer ${token}`;
  const secret = caller.may === undefined ? key : restricted[caller.may];
  return caller.as === "basic" ? `Basic ${btoa(`${secret}:`)}` : `Bearer ${secret}`;
}

/** Fills both modes with data that can be recognised, all of it in D1 already. */
export async function createWorlds(): Promise<Worlds> {
  const [test, live] = await Promise.all(MODES.map(createWorld));
  if (test === undefined || live === undefined) throw new Error("a mode is missing");
  return { test, live };
}

async function createWorld(mode: Mode): Promise<World> {
  const key = LOCAL_KEYS[mode];
  const meter = await createdMeter(
    {
      display_name: `canary of ${mode}`,
      event_name: `watched_${mode}`,
      "customer_mapping[type]": "by_id",
      "customer_mapping[event_payload_key]": `canary_of_${mode}`,
    },
    key,
  );
  const [event, victim] = await Promise.all([
    createdMeter({ display_name: "for events" }, key),
    createdMeter({ display_name: "to be changed" }, key),
  ]);
  const refs = {
    meter: meter.id,
    victim: victim.id,
    event: event.event_name,
    customer: `cus_of_${mode}`,
    identifier: `watched_identifier_${mode}`,
    report: await aReport(mode, meter.id),
    place: await anEvent(mode, key, meter),
    ...(await deadLetters(mode)),
  };
  return { refs, key, ...(await credentials(mode, key)) };
}

/** An event in log and D1; gives its id in the list of stored events. */
async function anEvent(mode: Mode, key: string, meter: { id: string; event_name: string }): Promise<string> {
  const payload = { [`canary_of_${mode}`]: `cus_of_${mode}`, value: VALUES[mode], note: `canary of ${mode}` };
  const body = { event_name: meter.event_name, identifier: `watched_identifier_${mode}`, payload };
  expect((await call("/v2/billing/meter_events", { key, body })).status).toBe(200);
  await eventually(async () => expect(await storedEvents(meter.id)).toBe(1));
  const stored = await answerOf(`/v1/billing/meter_events?meter=${meter.id}&customer=cus_of_${mode}`, { key });
  const [first] = stored.body.data as { id: string }[];
  return first?.id ?? "";
}

/** Entries that wait for an operator; gives their ids. */
async function deadLetters(mode: Mode): Promise<Record<string, string>> {
  const numbers = Array.from({ length: DEAD_LETTERS }, (_, n) => n);
  const livemode = mode === "live";
  const db = eventsDatabase(env, livemode, 0);
  const idOf = (n: number) => `dl_${n}_${mode}-0_0_0`;
  await db.batch(
    numbers.map((n) => {
      const entry = writeRejection(aRejection(mode, `letter_${n}_${mode}`, Date.now()));
      const place = { id: idOf(n), slice: sliceOf(Date.now()) };
      return parkStatement(db, { ...place, kind: "rejections", entry, reason: "refused", parked: 0 });
    }),
  );
  const { body } = await answerOf("/v1/edgemeter/dead_letters?limit=100", { key: LOCAL_KEYS[mode] });
  expect(body.data).toMatchObject(Array(DEAD_LETTERS).fill({ livemode }));
  return Object.fromEntries(numbers.map((n) => [`letter${n}`, idOf(n)]));
}

/** A refused event of no meter. */
const aRejection = (mode: Mode, id: string, received: number): LogRejection => ({
  id,
  livemode: mode === "live",
  meter: null,
  code: "no_meter",
  count: 1,
  samples: [[`canary of ${mode}`, `canary_of_${mode}`]],
  received,
});

/** An error report that can be read already; gives its id. */
async function aReport(mode: Mode, meter: string): Promise<string> {
  const received = Date.now() - 60_000;
  const lines = rejectionLines([{ ...aRejection(mode, `rejection_${mode}`, received), meter }]);
  await applyEntries(eventsDatabase(env, mode === "live", 0), toEntries("rejections", lines), received);
  const { body } = await answerOf("/v2/core/events", { key: LOCAL_KEYS[mode] });
  const [first] = body.data as { id: string }[];
  return first?.id ?? "";
}

async function credentials(mode: Mode, key: string): Promise<Pick<World, "restricted" | "token" | "bad">> {
  const restricted = { ingest: `rk_${mode}_fuzzed_ingest`, read: `rk_${mode}_fuzzed_read` };
  const revoked = `sk_${mode}_fuzzed_revoked`;
  const insert = env.DB.prepare(
    `INSERT INTO api_keys (hash, id, number, name, livemode, created, revoked_at, permissions)
     VALUES (?, ?, (SELECT MAX(number) + 1 FROM api_keys), 'fuzz', ?, 0, ?, ?)`,
  );
  const live = mode === "live" ? 1 : 0;
  await env.DB.batch([
    insert.bind(hashOf(restricted.ingest), `key_${mode}_ingest`, live, null, "ingest"),
    insert.bind(hashOf(restricted.read), `key_${mode}_read`, live, null, "read"),
    insert.bind(hashOf(revoked), `key_${mode}_revoked`, live, 1, "ingest read manage"),
  ]);
  const token = await signed(mode, {});
  const [header = "", claims = ""] = token.split(".");
  return {
    restricted,
    token,
    bad: {
      revoked,
      "unknown key": `sk_${mode}_that_nobody_has`,
      "truncated key": key.slice(0, -1),
      "expired token": await signed(mode, { exp: Math.floor(Date.now() / 1_000) - 1 }),
      "forged token": await signed(mode, {}, "another secret, and as long as it has to be"),
      "unsigned token": `token_${btoa('{"alg":"none","typ":"JWT"}').replaceAll("=", "")}.${claims}.`,
      "truncated token": `${header}.${claims}`,
      "token for another audience": await signed(mode, { aud: "another" }),
    },
  };
}

/** A token as good as the service's own, but for what is changed. It outlives a long run. */
async function signed(
  mode: Mode,
  changes: Record<string, unknown>,
  secret = env.SESSION_SECRET ?? "",
): Promise<string> {
  const exp = Math.floor(Date.now() / 1_000) + 86_400;
  const claims = { sub: `key_${mode}_local`, livemode: mode === "live", aud: "meter_event_stream", exp, ...changes };
  return `token_${await sign(claims, secret, "HS256")}`;
}
