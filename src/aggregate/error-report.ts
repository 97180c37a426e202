import { digest } from "../domain/identifiers.ts";
import { DAY_MS, floorTo, SECOND_MS, type TimeRange } from "../domain/window.ts";
import type { LogRejection } from "../log/codec.ts";

/** Refused events are reported per this much of the time they were received in (ms); docs/wire-contract.md, section 4. */
export const REPORT_WINDOW_MS = 10 * SECOND_MS;

/** How long after its window a report still takes what is on its way through log and queue (ms). */
const GRACE_MS = 2 * SECOND_MS;

/** How long a transaction that began while a report was open may take until readers see it (ms). */
const SETTLE_MS = 3 * SECOND_MS;

/** How long a report can be read (ms). */
export const REPORT_LIFETIME_MS = 30 * DAY_MS;

/** Characters of a report's time in its id: enough until the year 5188. */
const TIME_LENGTH = 9;

const REPORT_ID = /^evt_(test_)?([0-9a-z]{9})[\w-]{16}$/;

/**
 * The id of the report that tells of a rejection which reaches D1 at `applied` (ms): the report of
 * the window it was received in or, when that one may have been read already, a further one for what
 * came in the same 10 seconds too late for it. Which report that is needs no state: it follows from
 * the two times. The id begins with when the report is created, that is, can be read: when nothing
 * joins it any more.
 */
export function reportIdOf(
  { livemode, meter, received }: Pick<LogRejection, "livemode" | "meter" | "received">,
  applied: number,
): string {
  const window = floorTo(received, REPORT_WINDOW_MS);
  const onTime = window + REPORT_WINDOW_MS + GRACE_MS;
  const slot = applied < onTime ? undefined : floorTo(applied, REPORT_WINDOW_MS);
  const closed = slot === undefined ? onTime : slot + REPORT_WINDOW_MS;
  return firstIdOf(livemode, closed + SETTLE_MS) + digest(meter ?? "", String(window), String(slot ?? "on time"));
}

/** What the ids of a mode's reports created at `created` (ms) begin with; sorts before them, after all older ones. */
export const firstIdOf = (livemode: boolean, created: number): string =>
  `evt_${livemode ? "" : "test_"}${created.toString(36).padStart(TIME_LENGTH, "0")}`;

/** The mode of a report and when it was created (ms), by its id; nothing when it is no report's id. */
export function readReportId(id: string): { readonly livemode: boolean; readonly created: number } | undefined {
  const [, test, created] = REPORT_ID.exec(id) ?? [];
  return created === undefined ? undefined : { livemode: test === undefined, created: Number.parseInt(created, 36) };
}

/** When the reports that can be read at `now` were created (ms, half open). */
export const readableRange = (now: number): TimeRange => ({ start: now - REPORT_LIFETIME_MS, end: now + 1 });

/** A group's rejections with the report of each, for INSERT_REJECTIONS; `applied` is the current time (ms). */
export function withReports(entries: string, applied: number): string {
  return parse(entries)
    .map((rejection) => JSON.stringify({ ...rejection, report: reportIdOf(rejection, applied) }))
    .join(",");
}

function parse(entries: string): LogRejection[] {
  try {
    return JSON.parse(`[${entries}]`);
  } catch (cause) {
    // As SQLite says it of the other kinds, so that the group holds up no others.
    throw new Error("malformed JSON in a group of rejections", { cause });
  }
}
