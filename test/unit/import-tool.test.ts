// The whole tool as a process of its own, against a small server that fails now and then.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { isDeepStrictEqual } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { Client } from "../../scripts/http.ts";
import { eventSender } from "../../scripts/import/client.ts";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { type Listening, listen } from "../support/node/listen.ts";

const EventBody = z.object({
  event_name: z.string(),
  identifier: z.string(),
  payload: z.record(z.string(), z.string()),
  timestamp: z.iso.datetime(),
});
type Event = z.output<typeof EventBody>;
const StreamBody = z.object({ events: z.array(EventBody).min(1).max(100) });

/** What a server does with an attempt instead of answering it properly. */
type Fault = "drop" | "accept and drop" | "expire" | 409 | 429 | 503;

/** As much of an edgemeter as an import needs. */
class FakeServer {
  /** In the order in which they were accepted. */
  readonly events = new Map<string, Event>();
  /** Customers of which two requests were under way at a time. */
  readonly overlaps = new Set<string>();
  meters = [aMeter("tokens")];
  /** Faults by the value of a request's first event and the attempt, from 1, of its Idempotency-Key. */
  fault: (value: number, attempt: number) => Fault | undefined = () => undefined;
  /** Awaited before a request is answered. */
  beforeAnswer: (events: readonly Event[]) => Promise<void> = async () => undefined;
  sessions = 0;
  readonly #attempts = new Map<string, number>();
  readonly #accepted = new Map<string, string>();
  readonly #busy = new Set<string>();

  get sum(): number {
    return [...this.events.values()].reduce((sum, { payload }) => sum + Number(payload.value), 0);
  }

  async answer(request: Request): Promise<Response | undefined> {
    const { pathname, searchParams } = new URL(request.url);
    const streams = pathname === "/v2/billing/meter_event_stream";
    const secret = streams ? `token_${this.sessions}` : LOCAL_KEYS.test;
    if (request.headers.get("authorization") !== `Bearer ${secret}`) {
      return refusal(401, streams ? EXPIRED : "unauthorized", "Invalid API Key provided.");
    }
    switch (`${request.method} ${pathname}`) {
      case "GET /v1/billing/meters":
        return Response.json(this.#page(searchParams.get("starting_after")));
      case "POST /v1/billing/meters":
        this.meters.push(aMeter(new URLSearchParams(await request.text()).get("event_name") ?? ""));
        return Response.json(this.meters.at(-1));
      case "POST /v2/billing/meter_event_session":
        return Response.json({ authentication_token: `token_${++this.sessions}` });
      case "POST /v2/billing/meter_event_stream":
        return this.#receive(StreamBody.parse(await request.json()).events, request.headers);
      default:
        return refusal(404, "not_found", "Unrecognized request URL.");
    }
  }

  /** A page of two meters, so that a third one is on the second page. */
  #page(after: string | null): object {
    const from = this.meters.findIndex(({ id }) => id === after) + 1;
    return { object: "list", data: this.meters.slice(from, from + 2), has_more: this.meters.length > from + 2 };
  }

  async #receive(events: readonly Event[], headers: Headers): Promise<Response | undefined> {
    const customers = new Set(events.map(({ payload }) => payload.stripe_customer_id ?? payload.who ?? ""));
    for (const customer of customers.intersection(this.#busy)) this.overlaps.add(customer);
    for (const customer of customers) this.#busy.add(customer);
    await this.beforeAnswer(events);
    for (const customer of customers) this.#busy.delete(customer);

    const key = headers.get("idempotency-key") ?? "";
    const attempt = (this.#attempts.get(key) ?? 0) + 1;
    this.#attempts.set(key, attempt);
    const fault = this.fault(Number(events[0]?.payload.value), attempt);
    if (typeof fault === "number") return refusal(fault, "not_now", "Not now.");
    if (fault === "expire") {
      this.sessions++;
      return refusal(401, EXPIRED, "The session has expired.");
    }
    if (fault === "drop") return undefined;
    const misshapen = events.findIndex(({ identifier, payload }) => payload.value === "" || identifier.length > 100);
    if (misshapen >= 0) {
      return refusal(400, "invalid_fields", `Invalid events[${misshapen}][payload][value]: it cannot be empty.`);
    }
    const outcomes = events.map((event) => this.#take(event, key));
    if (fault !== undefined) return undefined;
    return Response.json(headers.get("edgemeter-outcomes") === "true" ? { outcomes } : {});
  }

  #take(event: Event, key: string): object {
    const { identifier, payload } = event;
    if (payload.value === "0") {
      return { outcome: "refused", code: "payload_invalid_value", message: 'The value must be "positive".' };
    }
    const holder = this.#accepted.get(identifier);
    if (holder !== undefined && holder !== key) {
      const isSame = isDeepStrictEqual(this.events.get(identifier), event);
      const message = "An event already exists.";
      if (!isSame) return { outcome: "refused", code: "duplicate_meter_event", message };
      return { outcome: "accepted_before", identifier };
    }
    this.#accepted.set(identifier, key);
    this.events.set(identifier, event);
    return { outcome: "accepted", identifier };
  }
}

const EXPIRED = "billing_meter_event_session_expired";

const aMeter = (eventName: string, changes: { formula?: string; window?: string; keys?: [string, string] } = {}) => {
  const { formula = "sum", window = null, keys: [customerKey, valueKey] = ["stripe_customer_id", "value"] } = changes;
  return {
    id: `mtr_${eventName}`,
    event_name: eventName,
    default_aggregation: { formula },
    customer_mapping: { type: "by_id", event_payload_key: customerKey },
    value_settings: { event_payload_key: valueKey },
    event_time_window: window,
  };
};

const refusal = (status: number, code: string, message: string): Response =>
  Response.json({ error: { code, message } }, { status });

let listening: Listening;
let server: FakeServer;
let folder: string;

beforeEach(async () => {
  server = new FakeServer();
  listening = await listen((request) => server.answer(request));
  folder = await mkdtemp(path.join(tmpdir(), "edgemeter-import-"));
});

afterEach(async () => {
  await listening.close();
  await rm(folder, { recursive: true });
});

/** A file of usage in the test's folder. */
async function aFile(content: string, name = "usage.csv"): Promise<string> {
  const file = path.join(folder, name);
  await writeFile(file, content);
  return file;
}

/** Rows of the columns time and tokens with the values 1, 2, 3, …, two of each second. */
const rows = (count: number): string =>
  `time,tokens\n${Array.from({ length: count }, (_, i) => `${1_700_000_000 + Math.floor(i / 2)},${i + 1}\n`).join("")}`;

const COLUMNS = ["--event-name", "tokens", "--value-column", "tokens", "--timestamp-column", "time"];
const SPREAD = [...COLUMNS, "--spread-customers", "5"];

function start(args: readonly string[]): ChildProcess & { readonly result: Promise<Result> } {
  const child = spawn(process.execPath, ["scripts/import.ts", "--url", listening.url, ...args], {
    cwd: path.join(import.meta.dirname, "../.."),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const result = Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]).then(
    ([stdout, stderr, [code]]) => ({ code: z.int().nullable().parse(code), counts: stdout.split("  in ")[0], stderr }),
  );
  return Object.assign(child, { result });
}

type Result = { readonly code: number | null; readonly counts: string | undefined; readonly stderr: string };

const runImport = (...args: string[]): Promise<Result> => start(args).result;

const existing = (file: string): Promise<string | undefined> => readFile(file, "utf8").catch(() => undefined);

describe("an import", () => {
  test("counts every row as accepted through lost connections and refusals that pass, then as duplicates", async () => {
    const file = await aFile(rows(1_130));
    const faults: readonly (Fault | undefined)[] = ["drop", "accept and drop", "expire", 409, 429, 503, undefined];
    // The first values of requests are 1, 101, 201, …
    server.fault = (value, attempt) => (attempt === 1 ? faults[((value - 1) / 100) % faults.length] : undefined);
    expect(await runImport(file, ...SPREAD)).toMatchObject({
      code: 0,
      counts: "accepted 1130  duplicate 0  rejected 0",
      stderr: "",
    });
    expect(server.events.size).toBe(1_130);
    expect(server.sum).toBe((1_130 * 1_131) / 2);

    // The same reports, and others under the same identifiers.
    for (const options of [[], ["--shift-to-now"]]) {
      expect(await runImport(file, ...SPREAD, ...options)).toMatchObject({
        code: 0,
        counts: "accepted 0  duplicate 1130  rejected 0",
      });
    }
    expect(server.events.size).toBe(1_130);
    expect(await existing(`${file}.rejected.csv`)).toBeUndefined();
  });

  test("has as many requests under way as it is told, of one customer too", async () => {
    const file = await aFile(rows(1_200));
    let underWay = 0;
    let most = 0;
    const all = Promise.withResolvers<void>();
    server.beforeAnswer = async () => {
      most = Math.max(most, ++underWay);
      // None is answered before there are four.
      if (most === 4) all.resolve();
      await all.promise;
      underWay--;
    };
    const result = await runImport(file, ...COLUMNS, "--customer", "acme", "--concurrency", "4");
    expect(result).toMatchObject({ code: 0, counts: "accepted 1200  duplicate 0  rejected 0" });
    expect(most).toBe(4);
    expect(server.sessions).toBe(1);
  });

  test.each([
    ["keeps the latest event", { formula: "last" }],
    ["keeps an event an hour", { window: "hour" }],
  ])("keeps each customer's rows in order for a meter that %s", async (_, changes) => {
    server.meters = [aMeter("tokens", changes)];
    server.fault = (value, attempt) => (attempt === 1 && value % 3 === 0 ? "accept and drop" : undefined);
    const file = await aFile(rows(2_000));
    const result = await runImport(file, ...COLUMNS, "--spread-customers", "7");
    expect(result).toMatchObject({ code: 0, counts: "accepted 2000  duplicate 0  rejected 0" });
    expect([...server.overlaps]).toEqual([]);
    for (const ofOne of Map.groupBy(server.events.values(), ({ payload }) => payload.stripe_customer_id).values()) {
      const values = ofOne.map(({ payload }) => Number(payload.value));
      expect(values).toEqual(values.toSorted((a, b) => a - b));
    }
  });

  test("rejects rows of a wrong shape, and no others of their requests", async () => {
    const lines = Array.from({ length: 250 }, (_, i) => `${1_700_000_000 + i},${i % 90 === 7 ? "" : i + 1}`);
    const file = await aFile(["time,tokens", ...lines].join("\n"));
    const result = await runImport(file, ...SPREAD);
    expect(result).toMatchObject({ code: 1, counts: "accepted 247  duplicate 0  rejected 3" });
    const rejected = (await existing(`${file}.rejected.csv`))?.trimEnd().split("\n").slice(1).sort();
    expect(rejected).toEqual(
      [8, 98, 188].map((row) => `${1_700_000_000 + row - 1},,${row},Invalid payload[value]: it cannot be empty.`),
    );
  });

  test("shifts all timestamps by as much, the newest to just before now", async () => {
    const before = Date.now();
    await runImport(await aFile(rows(4)), ...SPREAD, "--shift-to-now");
    const times = [...server.events.values()].map(({ timestamp }) => Date.parse(timestamp)).sort((a, b) => a - b);
    const newest = times.at(-1) ?? 0;
    expect(newest).toBeGreaterThanOrEqual(before - 1);
    expect(newest).toBeLessThan(Date.now());
    expect(times.map((time) => newest - time)).toEqual([1_000, 1_000, 0, 0]);
  });

  test("reads byte order mark, quotes, CRLF and empty lines, and writes down what was rejected", async () => {
    const lines = [
      '\uFEFF"time",who,tokens,"a, note"',
      '2023-11-16 18:17:03.9799600,acme,25,"said ""hi"""',
      '"2023-11-16T18:17:04Z","acme, inc",30,"two\r\nlines"',
      "",
      'noon,acme,25,"bad, time"',
      "2023-11-16T18:17:03Z,,25,no customer",
      "2023-11-16T18:17:03Z,acme,25",
      "2023-11-16T18:17:03Z,acme,25,x,y,z",
      "2023-11-16T18:17:03Z,acme,0,refused",
    ];
    const file = await aFile(lines.join("\r\n"));
    const result = await runImport(file, ...COLUMNS, "--customer-column", "who");
    expect(result).toMatchObject({ code: 1, counts: "accepted 2  duplicate 0  rejected 5" });
    expect([...server.events.values()].map(({ payload, timestamp }) => [payload, timestamp])).toEqual(
      expect.arrayContaining([
        [{ stripe_customer_id: "acme", value: "25" }, "2023-11-16T18:17:03.979Z"],
        [{ stripe_customer_id: "acme, inc", value: "30" }, "2023-11-16T18:17:04.000Z"],
      ]),
    );
    const rejected = (await existing(`${file}.rejected.csv`))?.trimEnd().split("\n");
    expect(rejected?.[0]).toBe('time,who,tokens,"a, note",row,error');
    expect(rejected?.slice(1).sort()).toEqual([
      "2023-11-16T18:17:03Z,,25,no customer,4,The row has no customer.",
      '2023-11-16T18:17:03Z,acme,0,refused,7,"The value must be ""positive""."',
      "2023-11-16T18:17:03Z,acme,25,,5,The row has 3 columns instead of 4.",
      '2023-11-16T18:17:03Z,acme,25,x,6,"The row has 6 columns instead of 4. Left over: y,z"',
      `noon,acme,25,"bad, time",3,The timestamp cannot be read: 'noon'.`,
    ]);
  });

  test("removes the rejected rows of an earlier run", async () => {
    const file = await aFile(rows(1));
    await aFile("old", "usage.csv.rejected.csv");
    expect(await runImport(file, ...SPREAD)).toMatchObject({ code: 0 });
    expect(await existing(`${file}.rejected.csv`)).toBeUndefined();
  });

  test("rejects a last row whose quote is left open", async () => {
    const file = await aFile(`${rows(3)}1700000000,"4`);
    expect(await runImport(file, ...SPREAD)).toMatchObject({
      code: 1,
      counts: "accepted 3  duplicate 0  rejected 1",
    });
    expect(await existing(`${file}.rejected.csv`)).toContain(",4,Quote Not Closed");
  });

  test("of a file without rows accepts nothing", async () => {
    const file = await aFile("time,tokens\n");
    const result = await runImport(file, ...SPREAD, "--shift-to-now");
    expect(result).toMatchObject({ code: 0, counts: "accepted 0  duplicate 0  rejected 0" });
  });

  test("takes the payload's keys from the meter, on whatever page of the list it is", async () => {
    server.meters = [
      aMeter("a"),
      aMeter("b"),
      aMeter("c"),
      aMeter("d"),
      aMeter("tokens", { keys: ["who", "how_many"] }),
    ];
    expect(await runImport(await aFile(rows(1)), ...COLUMNS, "--customer", "acme")).toMatchObject({ code: 0 });
    expect([...server.events.values()].map(({ payload }) => payload)).toEqual([{ who: "acme", how_many: "1" }]);
  });

  test("creates the meter when asked and there is none", async () => {
    server.meters = [];
    const file = await aFile(rows(2));
    for (const counts of ["accepted 2  duplicate 0  rejected 0", "accepted 0  duplicate 2  rejected 0"]) {
      expect(await runImport(file, ...SPREAD, "--create-meter", "sum")).toMatchObject({ code: 0, counts });
    }
    expect(server.meters.map(({ event_name }) => event_name)).toEqual(["tokens"]);
  });

  test("that is interrupted ends what is under way, says how far it came, and can be taken up again", async () => {
    const file = await aFile(rows(3_000));
    const gate = Promise.withResolvers<void>();
    server.beforeAnswer = async () => {
      if (server.events.size >= 300) await gate.promise;
    };
    server.fault = (value) => (value === 201 ? 503 : undefined);
    const child = start([file, ...SPREAD]);
    while (server.events.size < 300) await new Promise((resolve) => setImmediate(resolve));
    child.kill("SIGINT");
    child.kill("SIGINT");
    server.beforeAnswer = async () => undefined;
    gate.resolve();
    const { code, counts } = await child.result;
    const accepted = server.events.size;
    expect({ code, counts }).toEqual({ code: 130, counts: `accepted ${accepted}  duplicate 0  rejected 0` });
    expect(accepted).toBeLessThan(3_000);

    server.fault = () => undefined;
    const again = await runImport(file, ...SPREAD);
    expect(again.counts).toBe(`accepted ${3_000 - accepted}  duplicate ${accepted}  rejected 0`);
    expect(server.sum).toBe((3_000 * 3_001) / 2);
  });
});

describe("an import that cannot be done ends with code 2 and one line:", () => {
  test.each<[string, (file: string) => string[], string]>([
    ["no file", () => ["/nowhere/usage.csv", ...SPREAD], "there is no file /nowhere/usage.csv."],
    ["a folder", (file) => [path.dirname(file), ...SPREAD], "is not a file."],
    [
      "no column of the value",
      (file) => [file, ...SPREAD, "--value-column", "cost"],
      "column 'cost'. The columns are: time, tokens",
    ],
    ["no column of the time", (file) => [file, ...SPREAD, "--timestamp-column", "at"], "there is no column 'at'"],
    ["no column of customers", (file) => [file, ...COLUMNS, "--customer-column", "who"], "there is no column 'who'"],
    [
      "no meter",
      (file) => [file, ...SPREAD, "--event-name", "calls"],
      "there is no active meter for event name 'calls'",
    ],
    ["a wrong key", (file) => [file, ...SPREAD, "--key", "sk_test_wrong"], "the server refused the API key"],
    [
      "another server",
      (file) => [file, ...SPREAD, "--url", `${listening.url}/other`],
      "GET /v1/billing/meters: Unrecognized request URL.",
    ],
    ["no customers", (file) => [file, ...COLUMNS], "one of --customer-column, --customer and --spread-customers"],
    ["two kinds of customers", (file) => [file, ...SPREAD, "--customer", "acme"], "cannot be used with option"],
    [
      "no option for the value",
      (file) => [file, "--customer", "acme"],
      "--value-column, --timestamp-column and one of",
    ],
    [
      "no exported file",
      (file) => [file, "--event-name", "tokens"],
      "is not of npm run export: it has no column event_name",
    ],
    ["no concurrency", (file) => [file, ...SPREAD, "--concurrency", "0"], "It must be a positive integer."],
    ["an unknown option", (file) => [file, ...SPREAD, "--fast"], "unknown option '--fast'"],
  ])("%s", async (_, argsOf, message) => {
    const { code, stderr } = await runImport(...argsOf(await aFile(rows(1))));
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/^import: .*\n$/);
    expect(code).toBe(2);
  });

  test("no server", async () => {
    const { url, close } = await listen(() => undefined);
    await close();
    const { code, stderr } = await runImport(await aFile(rows(1)), ...SPREAD, "--url", url);
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringMatching(/^import: .*ECONNREFUSED.*\n$/) });
  });

  test.each<[string, string, () => Response, string]>([
    [
      "a server that knows no outcomes",
      "/v2/billing/meter_event_stream",
      () => Response.json({}),
      "the response to POST /v2/billing/meter_event_stream is not understood. Is it another version?",
    ],
    [
      "a server without sessions",
      "/v2/billing/meter_event_session",
      () => {
        const headers = { "stripe-should-retry": "false" };
        return Response.json({ error: { message: "It needs SESSION_SECRET." } }, { status: 503, headers });
      },
      "POST /v2/billing/meter_event_session: It needs SESSION_SECRET.",
    ],
  ])("%s", async (_, where, respond, message) => {
    const { url, close } = await listen((request) =>
      request.url.endsWith(where) ? respond() : server.answer(request),
    );
    const { code, stderr } = await runImport(await aFile(rows(1)), ...SPREAD, "--url", url);
    await close();
    expect(stderr).toContain(message);
    expect({ code, lines: stderr.split("\n").length }).toEqual({ code: 2, lines: 2 });
  });

  test("an empty file", async () => {
    const { code, stderr } = await runImport(await aFile(""), ...SPREAD);
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringMatching(/^import: .* is empty.*\n$/) });
  });

  test("a quote left open in the middle of a large file, after the rows before it", async () => {
    const file = await aFile(`time,tokens\n1700000000,"1\n${rows(20_000)}`);
    const { code, stderr } = await runImport(file, ...SPREAD);
    expect({ code, stderr }).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^import: .*Is a quote left open\?\n$/),
    });
  });
});

test("a server that never comes back is given up when patience ends", async () => {
  server.fault = () => 503;
  const stop = new AbortController().signal;
  const meter = {
    id: "mtr_1",
    eventName: "tokens",
    formula: "sum",
    eventTimeWindow: null,
    customerKey: "stripe_customer_id",
    valueKey: "value",
  };
  const client = new Client({ url: listening.url, key: LOCAL_KEYS.test, stop, patienceMs: 300 });
  const send = eventSender(client, meter);
  const row = { number: 1, fields: [], end: 0 };
  const event = { row, identifier: "imp_1", customer: "acme", value: "1", timestamp: 0 };
  await expect(send([event])).rejects.toThrow(/^gave up on .*: Not now\.$/);
});
