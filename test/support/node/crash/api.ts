// What the client reads, and sets up once.
import { LOCAL_KEYS } from "../../../../scripts/local-keys.ts";
import { DAY_MS, HOUR_MS, type TimeRange } from "../../../../src/domain/window.ts";
import type { Formula } from "./drawn.ts";
import { attempt } from "./http.ts";

/** The meters' ids; a meter's event name is its formula. */
export type Meters = Readonly<Record<Formula, string>>;

/** An event as GET /v1/billing/meter_events lists it. Times in unix seconds. */
export type StoredEvent = {
  readonly id: string;
  readonly identifier: string;
  readonly timestamp: number;
  readonly cancelled_at: number | null;
  readonly payload: { readonly ref?: string; readonly value?: string };
};

type Summary = { readonly id: string; readonly start_time: number; readonly aggregated_value: number | bigint };

type Page<T> = { readonly data: readonly T[]; readonly has_more: boolean };

/** Whole hours that hold every event of a load that began lately. */
export function everyHour(now: number): TimeRange {
  const end = Math.ceil(now / HOUR_MS) * HOUR_MS + HOUR_MS;
  return { start: end - 2 * DAY_MS, end };
}

/** Creates a meter of each formula. Throws when one was not. */
export async function createMeters(url: string): Promise<Meters> {
  const create = async (formula: Formula): Promise<string> => {
    const form = { display_name: formula, event_name: formula, "default_aggregation[formula]": formula };
    const answer = await attempt(url, {
      path: "/v1/billing/meters",
      headers: {
        authorization: `Bearer ${LOCAL_KEYS.test}`,
        "content-type": "application/x-www-form-urlencoded",
      },
      body: new URLSearchParams(form).toString(),
    });
    if (answer?.status !== 200) throw new Error(`no meter was created: ${answer?.text}`);
    return JSON.parse(answer.text).id;
  };
  const [sum, count, last] = await Promise.all([create("sum"), create("count"), create("last")]);
  return { sum, count, last };
}

/** All stored events of a customer on a meter. Throws when the server does not answer. */
export const storedEvents = (url: string, meter: string, customer: string): Promise<StoredEvent[]> =>
  list(url, `/v1/billing/meter_events?${new URLSearchParams({ meter, customer })}`);

/** One summary of a range, or one per hour; newest first. Throws when the server does not answer. */
export function summaries(
  url: string,
  meter: string,
  customer: string,
  range: TimeRange,
  grouping: "none" | "hour",
): Promise<Summary[]> {
  const query = new URLSearchParams({
    customer,
    start_time: String(range.start / 1_000),
    end_time: String(range.end / 1_000),
    ...(grouping === "none" ? {} : { value_grouping_window: grouping }),
  });
  return list(url, `/v1/billing/meters/${meter}/event_summaries?${query}`);
}

/** All pages of a list. */
async function list<T extends { readonly id: string }>(url: string, path: string): Promise<T[]> {
  const all: T[] = [];
  for (;;) {
    const last = all.at(-1);
    const cursor = last === undefined ? "" : `&starting_after=${last.id}`;
    const page = await read<Page<T>>(url, `${path}&limit=100${cursor}`);
    all.push(...page.data);
    if (!page.has_more) return all;
  }
}

/** The body of a GET; whole numbers past 2^53 keep their digits, as bigints. */
async function read<T>(url: string, path: string): Promise<T> {
  const answer = await attempt(url, { path, headers: { authorization: `Bearer ${LOCAL_KEYS.test}` } });
  if (answer?.status !== 200) throw new Error(`GET ${path}: ${answer?.status ?? "no answer"} ${answer?.text ?? ""}`);
  const exact = (_: string, value: unknown, { source = "" }: { source?: string } = {}): unknown =>
    typeof value === "number" && !Number.isSafeInteger(value) ? BigInt(source) : value;
  return JSON.parse(answer.text, exact);
}
