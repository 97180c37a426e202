// What `npm run export` writes, and how `npm run import` reads it.
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { ExportedEvent } from "../../scripts/export/file.ts";
import { exportEvents } from "../../scripts/export/run.ts";
import { Client } from "../../scripts/http.ts";
import { exportedColumns, exportedMapper, exportedName, inReceiptOrder } from "../../scripts/import/exported.ts";
import { openTable, type Row } from "../../scripts/import/rows.ts";
import { DAY_MS } from "../../src/domain/window.ts";
import { NOON } from "../support/builders.ts";
import { listen } from "../support/node/listen.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "edgemeter-export-"));
  return () => rm(folder, { recursive: true });
});

const UUID = "01234567-89ab-cdef-0123-456789abcdef";

const anEvent = (changes: Partial<ExportedEvent> = {}): ExportedEvent => ({
  ...{ id: "0event", customer: "cus_1", timestamp: NOON, identifier: UUID, value: 25, received: NOON + 1 },
  ...{ dimensions: null, payload: null, api_key: "key_1", cancelled: null, cancelled_by: null },
  ...changes,
});

const METERS = [
  { id: "mtr_3", event_name: "tokens", status: "active" },
  { id: "mtr_2", event_name: "tokens", status: "inactive" },
  { id: "mtr_1", event_name: "calls", status: "inactive" },
];

/** A client of a server that has pages of events of a meter; asked for another page than the next, it refuses. */
async function serve(pages: readonly (readonly ExportedEvent[])[], meter = "mtr_3"): Promise<Client> {
  const { url, close } = await listen(({ url }) => {
    const { pathname, searchParams } = new URL(url);
    if (pathname === "/v1/billing/meters") return Response.json({ data: METERS, has_more: false });
    const page = Number(searchParams.get("cursor"));
    const asked = Object.fromEntries(searchParams);
    const data = pages[page];
    if (data === undefined || asked.meter !== meter || asked.from !== "100" || asked.to !== "200") {
      return Response.json({ error: { message: `no ${searchParams}` } }, { status: 400 });
    }
    return Response.json({
      meter,
      event_name: "tokens",
      data,
      next: page + 1 < pages.length ? String(page + 1) : null,
    });
  });
  onTestFinished(close);
  return new Client({ url, key: "sk_test_0123456789" });
}

/** Exports pages to a file; gives its name and what is printed. */
async function exported(pages: readonly (readonly ExportedEvent[])[], name: string) {
  const out = path.join(folder, name);
  const lines: string[] = [];
  const what = { meter: "tokens", from: 100, to: 200, out };
  await exportEvents(await serve(pages), what, (line) => lines.push(line));
  expect(await readdir(folder)).toEqual([name]);
  return { out, lines };
}

/** What an import makes of a file. */
async function imported(file: string, now = NOON) {
  const { columns, rows } = await openTable(file);
  const toEvent = exportedMapper(exportedColumns(file, columns), 0, now);
  return (await Array.fromAsync(rows)).map(toEvent);
}

describe.each(["events.csv", "events.parquet"])("an export to %s", (name) => {
  it("has every event as it is, page after page, and prints their number and sum", async () => {
    const events = [
      anEvent({ customer: 'Ä "quoted", inc.', identifier: "line\nbreak", value: 999_999_999_999_999 }),
      anEvent({ id: "1event", dimensions: { region: "eu" }, payload: { model: "large", 7: "" }, value: 3 }),
      anEvent({ id: "2event", identifier: "x", cancelled: NOON + 2, cancelled_by: "key_2" }),
    ];
    const { out, lines } = await exported([events.slice(0, 2), [], events.slice(2)], name);
    expect(lines).toEqual([
      "exported 3 events, 1 of them cancelled; the values of the others add up to 1000000000000002",
    ]);
    const { columns, rows } = await openTable(out);
    const iso = (time: number) => new Date(time).toISOString();
    const columnOf = exportedColumns(out, columns);
    const found = await Array.fromAsync(rows);
    expect(found.map((row) => Object.fromEntries(columns.map((column) => [column, columnOf(row, column)])))).toEqual(
      events.map(({ dimensions, payload, cancelled, cancelled_by, ...event }) => ({
        ...event,
        ...{ event_name: "tokens", meter: "mtr_3", value: String(event.value), cancelled_by: cancelled_by ?? "" },
        ...{ timestamp: iso(NOON), received: iso(NOON + 1), cancelled: cancelled === null ? "" : iso(cancelled) },
        dimensions: dimensions === null ? "" : JSON.stringify(dimensions),
        payload: payload === null ? "" : JSON.stringify(payload),
      })),
    );
    expect(await exportedName(out, await openTable(out))).toBe("tokens");
    expect(found.at(-1)?.end).toBeGreaterThan(0);
  });

  it("may be empty", async () => {
    const { out } = await exported([[]], name);
    expect(await imported(out)).toEqual([]);
    expect(await exportedName(out, await openTable(out))).toBeUndefined();
  });

  it("is read in parts, each event once", async () => {
    const events = Array.from({ length: 12_000 }, (_, i) =>
      anEvent({ id: `${i}`, identifier: `order-${i}`, value: 1 }),
    );
    const { out } = await exported([events.slice(0, 9_000), events.slice(9_000)], name);
    const found = await imported(out);
    expect(found.map((row) => row.ok && row.value?.identifier)).toEqual(events.map(({ identifier }) => identifier));
  });

  it("leaves nothing behind when it fails", async () => {
    const out = path.join(folder, name);
    const what = { meter: "mtr_1", from: 100, to: 200, out };
    await expect(exportEvents(await serve([]), what, () => {})).rejects.toThrow("GET /v1/edgemeter/events: no meter");
    expect(await readdir(folder)).toEqual([]);
  });
});

it.each([
  ["its id", "mtr_2", "mtr_2"],
  ["the event name of the active meter", "tokens", "mtr_3"],
  ["the event name that one inactive meter has", "calls", "mtr_1"],
])("an export finds its meter by %s", async (_, meter, id) => {
  const client = await serve([[]], id);
  await exportEvents(client, { meter, from: 100, to: 200, out: path.join(folder, "events.csv") }, () => {});
});

describe("an exported event is imported", () => {
  const one = async (changes: Partial<ExportedEvent>) =>
    (await imported((await exported([[anEvent(changes)]], "events.csv")).out))[0];

  it.each<[string, Partial<ExportedEvent>, object | undefined]>([
    ["with its identifier and time", {}, { identifier: UUID, timestamp: NOON, customer: "cus_1", value: "25" }],
    ["with an identifier that may be reported", { identifier: "em_abc" }, { identifier: "imp_0event" }],
    [
      "with its dimensions and the rest of its payload",
      { dimensions: { region: "eu" }, payload: { model: "large" } },
      { payload: { region: "eu", model: "large" } },
    ],
    ["35 days later still", { timestamp: NOON - 35 * DAY_MS }, { timestamp: NOON - 35 * DAY_MS }],
    ["not when it is cancelled", { cancelled: NOON }, undefined],
    ["not when it is cancelled, however old", { cancelled: NOON, timestamp: 0 }, undefined],
  ])("%s", async (_, changes, expected) => {
    const event = await one(changes);
    expect(event).toMatchObject({ ok: true });
    if (expected === undefined) expect(event).toEqual({ ok: true, value: undefined });
    else expect(event).toMatchObject({ value: expected });
  });

  it.each<[string, Partial<ExportedEvent>, string]>([
    ["is too old", { timestamp: NOON - 35 * DAY_MS - 1 }, "The timestamp is more than 35 days in the past."],
    ["has no customer any more", { customer: "" }, "The row has no customer."],
  ])("as a rejected row when it %s", async (_, changes, error) => {
    expect(await one(changes)).toEqual({ ok: false, error });
  });

  it("with one of its own when its identifier came before, the same at every import", async () => {
    const days = [0, 1, 2].map((day) =>
      anEvent({ id: `${day}event`, identifier: day === 1 ? "other" : "daily", received: NOON + day * DAY_MS }),
    );
    const { out } = await exported([days], "events.parquet");
    for (const _ of [1, 2]) {
      const found = await imported(out);
      expect(found.map((row) => row.ok && row.value?.identifier)).toEqual(["daily", "other", "imp_2event"]);
    }
  });

  it("in receipt order where that decides", async () => {
    const events = ["b", "c", "a"].map((id) => anEvent({ id }));
    const { out } = await exported([events], "events.csv");
    const { columns, rows } = await openTable(out);
    const columnOf = exportedColumns(out, columns);
    const ordered: readonly Row[] = await inReceiptOrder(rows, columnOf);
    expect(ordered.map((row) => columnOf(row, "id"))).toEqual(["a", "b", "c"]);
  });
});
