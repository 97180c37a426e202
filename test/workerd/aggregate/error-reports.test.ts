import { env, exports } from "cloudflare:workers";
import Stripe from "stripe";
import { afterEach, describe, expect, it, vi } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { applyEntries } from "../../../src/aggregate/apply.ts";
import type { Entries } from "../../../src/aggregate/entries.ts";
import { LIST_REPORTS, READ_REPORTS } from "../../../src/aggregate/sql/error-reports.ts";
import { DAY_MS, SECOND_MS } from "../../../src/domain/window.ts";
import worker from "../../../src/index.ts";
import type { LogRejection } from "../../../src/log/codec.ts";
import { deleteExpiredReports } from "../../../src/query/error-reports.ts";
import { aLogEntry, unique } from "../../support/builders.ts";
import { eventLines, rejectionLines, toEntries } from "../../support/shares.ts";
import { answerOf, createdMeter } from "../support.ts";

afterEach(() => vi.useRealTimers());

/** Each test has a day of its own, so that lists do not meet; a window begins with it (ms). */
let day = Date.UTC(2027, 0, 1);
const aDay = (): number => {
  day += 40 * DAY_MS;
  return day;
};

const aMeterId = (livemode = false): string => unique(livemode ? "mtr" : "mtr_test");

const aRejection = ({
  message = "Customer mapping key stripe_customer_id not found in payload.",
  identifier = unique("identifier"),
  ...changes
}: Partial<LogRejection> & { message?: string; identifier?: string } = {}): LogRejection => ({
  id: unique("rejection"),
  livemode: false,
  meter: "mtr_test_1",
  code: "meter_event_no_customer_defined",
  count: 1,
  samples: [[message, identifier]],
  received: day,
  ...changes,
});

const entriesOf = (...rejections: readonly (LogRejection | string)[]): Entries[] =>
  toEntries("rejections", rejectionLines(rejections));

/** Applies rejections of test mode at a time (ms). */
const apply = (now: number, ...rejections: readonly LogRejection[]) =>
  applyEntries(env.TEST_EVENTS, entriesOf(...rejections), now);

type CoreEvent = {
  id: string;
  type: string;
  created: string;
  related_object: { id: string } | null;
  data: { reason: { error_count: number; error_types: { code: string; error_count: number; sample_errors: [] }[] } };
};

type Page = { data: CoreEvent[]; next_page_url: string | null; previous_page_url: null };

/** A list of reports as a client sees it at a time (ms). */
async function listAt(now: number, query = "", key: string = LOCAL_KEYS.test): Promise<Page> {
  const { status, body } = await getAt(now, `/v2/core/events?${query}`, key);
  expect(body).not.toHaveProperty("error");
  expect(status).toBe(200);
  return body as Page;
}

function getAt(now: number, path: string, key: string = LOCAL_KEYS.test) {
  vi.useFakeTimers({ toFake: ["Date"], now });
  return answerOf(path, { key });
}

const countsOf = ({ data }: Page): number[] => data.map((report) => report.data.reason.error_count);

/** When the report of a window that begins at `start` is there (ms). */
const readable = (start: number): number => start + 15 * SECOND_MS;

describe("a report", () => {
  it("says what was refused in ten seconds, by code, in the shape of docs/wire-contract.md, section 4", async () => {
    const start = aDay();
    const meter = aMeterId();
    await apply(
      start + 9_000,
      aRejection({ meter, received: start, identifier: "a" }),
      aRejection({ meter, received: start + 9_999, identifier: "b" }),
      aRejection({ meter, received: start + 5_000, identifier: "c", code: "timestamp_in_future", message: "Later." }),
      aRejection({ meter, received: start + 10_000 }),
    );
    const { data, ...page } = await listAt(readable(start));
    expect(page).toEqual({ next_page_url: null, previous_page_url: null });
    expect(data).toEqual([
      {
        id: expect.stringMatching(/^evt_test_[\w-]{25}$/),
        object: "v2.core.event",
        type: "v1.billing.meter.error_report_triggered",
        created: new Date(readable(start)).toISOString(),
        livemode: false,
        context: null,
        reason: null,
        related_object: { id: meter, type: "billing.meter", url: `/v1/billing/meters/${meter}` },
        changes: {},
        data: {
          developer_message_summary: "There are 3 invalid events",
          reason: {
            error_count: 3,
            error_types: [
              {
                code: "meter_event_no_customer_defined",
                error_count: 2,
                sample_errors: ["a", "b"].map((identifier) => ({
                  error_message: "Customer mapping key stripe_customer_id not found in payload.",
                  request: { identifier },
                })),
              },
              {
                code: "timestamp_in_future",
                error_count: 1,
                sample_errors: [{ error_message: "Later.", request: { identifier: "c" } }],
              },
            ],
          },
          validation_start: new Date(start).toISOString(),
          validation_end: new Date(start + 10_000).toISOString(),
        },
      },
    ]);
    expect((await getAt(readable(start), `/v2/core/events/${data[0]?.id}`)).body).toEqual(data[0]);
  });

  it("of a name without a meter is a no_meter_found about nothing", async () => {
    const start = aDay();
    await apply(start, aRejection({ meter: null, code: "no_meter", message: "No meter was found." }));
    const { data } = await listAt(readable(start));
    expect(data).toMatchObject([
      {
        type: "v1.billing.meter.no_meter_found",
        related_object: null,
        data: { developer_message_summary: "There is 1 invalid event" },
      },
    ]);
  });

  it("counts all and shows at most ten of each code, of however many commits of a log", async () => {
    const start = aDay();
    const [one, two] = ["archived_meter", "meter_event_invalid_value"];
    const samples = Array.from({ length: 10 }, (_, i) => ["Wrong.", `sample ${i}`] as const);
    await apply(
      start,
      ...Array.from({ length: 11 }, () => aRejection({ code: one })),
      ...[120, 3].map((count) => aRejection({ code: two, count, samples: samples.slice(0, count) })),
    );
    const [report] = (await listAt(readable(start))).data;
    expect(report?.data.reason.error_count).toBe(134);
    expect(report?.data.reason.error_types.map((type) => [type.error_count, type.sample_errors.length])).toEqual([
      [11, 10],
      [123, 10],
    ]);
  });

  it("is one per meter", async () => {
    const start = aDay();
    const [one, two] = [aMeterId(), aMeterId()];
    await apply(start, aRejection({ meter: one }), aRejection({ meter: two }), aRejection({ meter: null }));
    const { data } = await listAt(readable(start));
    expect(new Set(data.map((report) => report.related_object?.id))).toEqual(new Set([one, two, undefined]));
  });

  it("cannot be read before its time, and does not change after it", async () => {
    const start = aDay();
    const rejection = aRejection();
    await apply(start + 11_999, rejection);
    expect((await listAt(readable(start) - 1)).data).toEqual([]);
    const { data } = await listAt(readable(start));
    const path = `/v2/core/events/${data[0]?.id}`;
    expect((await getAt(readable(start) - 1, path)).status).toBe(404);
    expect((await getAt(readable(start), path)).status).toBe(200);
    await apply(start + 12_000, aRejection());
    expect((await getAt(start + DAY_MS, path)).body).toEqual(data[0]);
  });
});

describe("a rejection", () => {
  it("is counted once, however often and however late its group comes", async () => {
    const start = aDay();
    const rejections = [aRejection(), aRejection()];
    await apply(start, ...rejections, ...rejections);
    await Promise.all([1, 2].map(() => apply(start + 1, ...rejections)));
    await apply(start + DAY_MS, ...rejections);
    expect(countsOf(await listAt(start + 2 * DAY_MS))).toEqual([2]);
  });

  it("that comes with another for the first time is the only one that is added", async () => {
    const start = aDay();
    const rejection = aRejection();
    await apply(start, rejection);
    await apply(start + 60_000, rejection, aRejection());
    expect(countsOf(await listAt(start + DAY_MS))).toEqual([1, 1]);
  });

  it("that comes after its window was reported is in a further report, with what else comes in those ten seconds", async () => {
    const start = aDay();
    await apply(start + 5_000, aRejection());
    await apply(start + 12_000, aRejection());
    await apply(start + 19_999, aRejection());
    await apply(start + 20_000, aRejection());
    const { data } = await listAt(start + DAY_MS);
    expect(data.map((report) => [Date.parse(report.created) - start, report.data.reason.error_count])).toEqual([
      [33_000, 1],
      [23_000, 2],
      [15_000, 1],
    ]);
    for (const report of data) {
      expect(report.data).toMatchObject({ validation_start: new Date(start).toISOString() });
    }
    expect(countsOf(await listAt(start + 22_999))).toEqual([1]);
  });

  it("of an earlier window that comes late stays apart from those of the window it arrives in", async () => {
    const start = aDay();
    await apply(start + 20_000, aRejection(), aRejection({ received: start + 20_000 }));
    expect(countsOf(await listAt(start + DAY_MS))).toEqual([1, 1]);
  });

  it("received by a clock that is ahead is in the report of its window", async () => {
    const start = aDay();
    await apply(start - 30_000, aRejection({ received: start }));
    expect((await listAt(start + DAY_MS)).data.map(({ created }) => Date.parse(created))).toEqual([readable(start)]);
  });

  it("is stored with the events of its transaction or not at all", async () => {
    const start = aDay();
    const broken = toEntries("events", eventLines([{ ...aLogEntry(), identifier: null as never }]));
    const together = applyEntries(env.TEST_EVENTS, [...entriesOf(aRejection()), ...broken], start);
    await expect(together).rejects.toThrow("NOT NULL");
    expect((await listAt(start + DAY_MS)).data).toEqual([]);
  });

  it("keeps its texts, whatever they hold", async () => {
    const start = aDay();
    await apply(start, aRejection({ message: "No '\" \n 😀", identifier: "ü'" }));
    expect((await listAt(readable(start))).data[0]?.data.reason.error_types[0]?.sample_errors).toEqual([
      { error_message: "No '\" \n 😀", request: { identifier: "ü'" } },
    ]);
  });

  it("that cannot be read is the fault of its group's data", async () => {
    await expect(applyEntries(env.TEST_EVENTS, entriesOf("{"), aDay())).rejects.toThrow("malformed JSON");
  });

  it("may come with more others than fit one statement", async () => {
    const start = aDay();
    const message = "x".repeat(400);
    await apply(start, ...Array.from({ length: 4_000 }, () => aRejection({ message })));
    expect(countsOf(await listAt(readable(start)))).toEqual([4_000]);
  });
});

describe("modes", () => {
  it("never see each other's reports", async () => {
    const start = aDay();
    await apply(start, aRejection({ meter: null }));
    await applyEntries(env.EVENTS_0, entriesOf(aRejection({ livemode: true, meter: null })), start);
    const live = await listAt(readable(start), "", LOCAL_KEYS.live);
    const test = await listAt(readable(start));
    expect(live.data).toMatchObject([{ livemode: true, id: expect.stringMatching(/^evt_(?!test_)/) }]);
    expect(test.data).toMatchObject([{ livemode: false, id: expect.stringMatching(/^evt_test_/) }]);
    const liveId = live.data[0]?.id ?? "";
    const testId = test.data[0]?.id ?? "";
    expect((await getAt(readable(start), `/v2/core/events/${liveId}`)).status).toBe(404);
    expect((await getAt(readable(start), `/v2/core/events/${testId}`, LOCAL_KEYS.live)).status).toBe(404);
    expect((await getAt(readable(start), `/v2/core/events?page=${liveId}`)).status).toBe(400);
  });
});

describe("lists", () => {
  /** Reports of six windows in a row, of two meters in turn; the third and the sixth of no meter. */
  async function sixReports(): Promise<{ start: number; meters: string[] }> {
    const start = aDay();
    const meters = [aMeterId(), aMeterId()];
    for (let i = 0; i < 6; i++) {
      const received = start + i * 10_000;
      await apply(received, aRejection({ received, meter: i % 3 === 2 ? null : (meters[i % 3] ?? null) }));
    }
    return { start, meters };
  }

  const createdOf = ({ data }: Page, start: number): number[] =>
    data.map(({ created }) => (Date.parse(created) - readable(start)) / 10_000);

  it("are newest first, and lead from page to page with their filters", async () => {
    const { start } = await sixReports();
    const seen: number[] = [];
    let url: string | null = `/v2/core/events?limit=2&created[lt]=${new Date(readable(start) + 50_000).toISOString()}`;
    let pages = 0;
    while (url !== null) {
      const page: Page = await listAt(start + DAY_MS, url.split("?")[1]);
      seen.push(...createdOf(page, start));
      url = page.next_page_url;
      pages++;
    }
    expect([seen, pages]).toEqual([[4, 3, 2, 1, 0], 3]);
  });

  it("keep every filter on the next page", async () => {
    const { start, meters } = await sixReports();
    const query = `limit=1&object_id=${meters[0]}&types[0]=v1.billing.meter.error_report_triggered&created[gte]=0`;
    const first = await listAt(start + DAY_MS, query);
    const second = await listAt(start + DAY_MS, first.next_page_url?.split("?")[1]);
    expect([createdOf(first, start), createdOf(second, start)]).toEqual([[3], [0]]);
    expect(second.next_page_url).toBeNull();
  });

  it("hold 20 reports unless told", async () => {
    const start = aDay();
    await apply(start, ...Array.from({ length: 21 }, () => aRejection({ meter: aMeterId() })));
    expect((await listAt(start + DAY_MS)).data).toHaveLength(20);
    expect((await listAt(start + DAY_MS, "limit=100")).data).toHaveLength(21);
  });

  it("filter by meter and by type, however types are written", async () => {
    const { start, meters } = await sixReports();
    const found = async (query: string) => createdOf(await listAt(start + DAY_MS, query), start);
    const [report, none] = ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"];
    expect(await found(`object_id=${meters[1]}`)).toEqual([4, 1]);
    expect(await found("object_id=mtr_test_unknown")).toEqual([]);
    expect(await found(`types[0]=${none}`)).toEqual([5, 2]);
    expect(await found(`types=${none}`)).toEqual([5, 2]);
    expect(await found(`types[]=${report}`)).toEqual([4, 3, 1, 0]);
    expect(await found(`types=${none}&types=${report}`)).toEqual([5, 4, 3, 2, 1, 0]);
    expect(await found(`types[0]=${none}&types[1]=${report}`)).toEqual([5, 4, 3, 2, 1, 0]);
    expect(await found("types[0]=v1.billing.meter.created")).toEqual([]);
    expect(await found(`types[0]=${none}&object_id=${meters[1]}`)).toEqual([]);
  });

  it("filter by creation, in RFC 3339 or in seconds", async () => {
    const { start } = await sixReports();
    const found = async (query: string) => createdOf(await listAt(start + DAY_MS, query), start);
    const at = readable(start) + 20_000;
    const [iso, seconds] = [new Date(at).toISOString(), at / 1_000];
    for (const time of [iso, String(seconds), iso.replace("Z", "%2B00:00")]) {
      expect(await found(`created[gt]=${time}`)).toEqual([5, 4, 3]);
      expect(await found(`created[gte]=${time}`)).toEqual([5, 4, 3, 2]);
      expect(await found(`created[lt]=${time}`)).toEqual([1, 0]);
      expect(await found(`created[lte]=${time}`)).toEqual([2, 1, 0]);
      expect(await found(`created[gte]=${time}&created[lte]=${time}`)).toEqual([2]);
      expect(await found(`created[gt]=${time}&created[lt]=${time}`)).toEqual([]);
    }
    expect(await found("created[gte]=999999999999")).toEqual([]);
    expect(await found("created[lt]=0")).toEqual([]);
    const far = await listAt(start + DAY_MS, "limit=5&created[lt]=999999999999");
    expect(createdOf(await listAt(start + DAY_MS, far.next_page_url?.split("?")[1]), start)).toEqual([0]);
  });
});

describe("after 30 days", () => {
  const left = (meter: string, db: D1Database = env.TEST_EVENTS) =>
    db.prepare("SELECT COUNT(*) AS n FROM error_reports WHERE meter = ?").bind(meter).first("n");

  it("a report cannot be read, and the scheduled handler deletes it, in either mode", async () => {
    const start = aDay();
    const meter = aMeterId();
    await apply(start, aRejection({ meter }));
    await applyEntries(env.EVENTS_0, entriesOf(aRejection({ meter, livemode: true })), start);
    await apply(start + 60_000, aRejection({ meter, received: start + 60_000 }));
    const [newer, older] = (await listAt(start + DAY_MS)).data;
    const end = readable(start) + 30 * DAY_MS;
    expect((await listAt(end)).data).toHaveLength(2);
    await worker.scheduled({} as ScheduledController, env);
    expect([await left(meter), await left(meter, env.EVENTS_0)]).toEqual([2, 1]);
    expect((await listAt(end + 1)).data).toEqual([newer]);
    expect((await getAt(end + 1, `/v2/core/events/${older?.id}`)).status).toBe(404);
    await worker.scheduled({} as ScheduledController, env);
    expect([await left(meter), await left(meter, env.EVENTS_0)]).toEqual([1, 0]);
  });

  it("more rows go than one statement deletes", async () => {
    const start = aDay();
    const meter = aMeterId();
    await apply(start, ...Array.from({ length: 5_500 }, () => aRejection({ meter })));
    await deleteExpiredReports(env.TEST_EVENTS, false, start + 31 * DAY_MS);
    expect(await left(meter)).toBe(0);
  });
});

describe("what the database does", () => {
  const planOf = async (sql: string, ...values: unknown[]): Promise<string> => {
    const { results } = await env.TEST_EVENTS.prepare(`EXPLAIN QUERY PLAN ${sql}`)
      .bind(...values)
      .all<{ detail: string }>();
    return results.map(({ detail }) => detail).join("\n");
  };

  it("lists by the index of reports alone, and stops at the end of the page", async () => {
    const plan = await planOf(LIST_REPORTS, "evt_", "evt_1", 1, 20);
    expect(plan).toContain("SEARCH error_reports USING COVERING INDEX error_reports_by_report (report>? AND report<?)");
    expect(plan).not.toContain("TEMP B-TREE");
  });

  it("reads a report by its index", async () => {
    expect(await planOf(READ_REPORTS, "[]", 10)).toContain("USING INDEX error_reports_by_report (report=?)");
  });
});

describe("the official SDK", () => {
  it("retrieves a report with its meter, and pages through lists with their filters", async () => {
    const start = aDay();
    const meter = await createdMeter();
    for (const received of [start, start + 10_000, start + 20_000]) {
      await apply(received, aRejection({ received, meter: meter.id }), aRejection({ received, meter: null }));
    }
    vi.useFakeTimers({ toFake: ["Date"], now: start + DAY_MS });
    const viaWorker = (input: RequestInfo | URL, { cf: _, ...init }: RequestInit = {}) =>
      exports.default.fetch(String(input), init);
    const httpClient = Stripe.createFetchHttpClient(viaWorker);
    const stripe = new Stripe(LOCAL_KEYS.test, { httpClient });

    const list = stripe.v2.core.events.list({ limit: 2, object_id: meter.id, created: { gt: 0 } });
    const events = await list.autoPagingToArray({ limit: 10 });
    expect(events.map(({ created }) => Date.parse(created))).toEqual(
      [20_000, 10_000, 0].map((ms) => readable(start + ms)),
    );
    const event = await stripe.v2.core.events.retrieve(events[0]?.id ?? "");
    if (event.type !== "v1.billing.meter.error_report_triggered") throw new Error(event.type);
    expect(event.data.reason.error_count).toBe(1);
    expect((await event.fetchRelatedObject()).event_name).toBe(meter.event_name);
  });
});
