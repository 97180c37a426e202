// Every endpoint gets thousands of requests that nobody should send: valid ones with a few changes, and
// some that are hostile through and through. Whatever they are, they get a clear error or do what they
// say; nothing that was not acknowledged has changed anything, no mode sees the other's data, and no log
// line tells a secret (RELIABILITY.md). FUZZ_REQUESTS sets how many.
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { afterEach, beforeAll, expect, inject, it, vi } from "vitest";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import { allEndpoints } from "../../../src/http/endpoints.ts";
import { type FuzzedRequest, type Route, requestToAnyOf } from "../../support/fuzz/requests.ts";
import { growTo } from "../support.ts";
import { acknowledgedBy } from "./acknowledged.ts";
import { envelopeFaults, faultsOf, logFaults } from "./answers.ts";
import { send } from "./send.ts";
import { readState, type State, unaccounted } from "./state.ts";
import { Tally } from "./tally.ts";
import { createWorlds, type Worlds } from "./world.ts";

const seed = inject("seed");
const requests = inject("fuzzRequests");

/** Requests that are sent at once, and accounted for together. */
const BATCH = 40;

/** Batches with one seed. */
const BATCHES = 25;

/** How long batches of one seed, and the search for the smallest one that fails, may take (ms). */
const ROUND_MS = 15_000;

/** Routes that are no endpoints of the API. */
const PAGES: readonly Route[] = ["/docs", "/openapi.json"].map((path) => ({ method: "get", path, apiVersion: "v1" }));

const ENDPOINTS = await allEndpoints();

const SESSION_PATHS = new Set(ENDPOINTS.filter(({ auth }) => auth === "session").map(({ path }) => path));

let worlds: Worlds;
let state: State | undefined;
const lines: unknown[][] = [];

beforeAll(async () => {
  await growTo(4, 0);
  worlds = await createWorlds();
});

/** Cuts the queues off, and takes what is logged. */
function isolate(): void {
  for (const queue of [env.EVENT_QUEUE, env.TEST_EVENT_QUEUE]) {
    vi.spyOn(queue, "sendBatch").mockResolvedValue({} as QueueSendBatchResponse);
  }
  for (const level of ["log", "info", "warn", "error", "debug"] as const) {
    vi.spyOn(console, level).mockImplementation((...line) => void lines.push(line));
  }
}

afterEach(() => {
  vi.restoreAllMocks();
  lines.length = 0;
});

const authOf = ({ path }: FuzzedRequest): "session" | "key" => (SESSION_PATHS.has(path) ? "session" : "key");

/** Sends requests at once, and says what was wrong with the answers, the log lines, and what was stored. */
async function play(batch: readonly FuzzedRequest[], tally?: Tally): Promise<string[]> {
  const before = state ?? (await readState());
  state = undefined;
  lines.length = 0;
  const settled = await Promise.allSettled(batch.map((request) => send(request, worlds, authOf(request))));
  const exchanges = settled.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  const thrown = settled.flatMap((result) => (result.status === "rejected" ? [`it threw ${result.reason}`] : []));
  const after = await readState();
  const faults = [
    ...thrown,
    ...exchanges.flatMap(faultsOf),
    ...lines.flatMap((line) => logFaults(line, worlds, exchanges)),
    ...unaccounted(before, after, acknowledgedBy(exchanges)),
  ];
  if (faults.length === 0) {
    state = after;
    for (const exchange of exchanges) tally?.add(exchange);
  }
  return faults;
}

const batchOf = (max: number) =>
  fc.array(requestToAnyOf(ENDPOINTS, PAGES), { minLength: 1, maxLength: max, size: "max" });

it("whatever is sent gets a clear answer, and changes nothing that was not acknowledged", {
  timeout: 8 * ROUND_MS + requests * 60,
}, async () => {
  isolate();
  const inherited = Object.getOwnPropertyNames(Object.prototype).sort();
  const tally = new Tally([...ENDPOINTS, ...PAGES]);
  const property = fc.asyncProperty(batchOf(BATCH), async (batch) => {
    expect(await play(batch, tally)).toEqual([]);
  });
  // Longer when chance has left a route out.
  const isDone = () => tally.requests >= requests && (tally.gaps().length === 0 || tally.requests >= 4 * requests);
  for (let round = 0; !isDone(); round++) {
    await fc.assert(property, { seed: seed + round, numRuns: BATCHES, interruptAfterTimeLimit: ROUND_MS });
  }
  expect(Object.getOwnPropertyNames(Object.prototype).sort()).toEqual(inherited);
  vi.restoreAllMocks();
  console.log(`fuzz: ${tally.summary()}, seed ${seed}`);
  expect(tally.gaps()).toEqual([]);
});

it("when everything behind it fails, an answer still is an error object, and no log line tells a secret", async () => {
  isolate();
  const databases = [true, false].flatMap((livemode) => eventsDatabases(env, livemode).map(({ db }) => db));
  const prepared = [env.DB, ...databases].map((db) =>
    vi.spyOn(db, "prepare").mockImplementation(() => {
      throw new Error("D1_ERROR: Network connection lost.");
    }),
  );
  const statuses = new Set<number>();
  const property = fc.asyncProperty(batchOf(BATCH), async (batch) => {
    lines.length = 0;
    const exchanges = await Promise.all(batch.map((request) => send(request, worlds, authOf(request))));
    for (const { status } of exchanges) statuses.add(status);
    const wrong = exchanges.flatMap((exchange) =>
      exchange.status === 503 ? envelopeFaults(exchange) : faultsOf(exchange),
    );
    expect([...wrong, ...lines.flatMap((line) => logFaults(line, worlds, exchanges))]).toEqual([]);
    logged += lines.length;
  });
  let logged = 0;
  await fc.assert(property, { seed, numRuns: BATCHES, interruptAfterTimeLimit: ROUND_MS });
  for (const prepare of prepared.slice(0, 2)) expect(prepare).toHaveBeenCalled();
  expect(statuses).toContain(503);
  expect(logged).toBeGreaterThan(0);
});
