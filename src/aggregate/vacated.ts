// A cancellation vacates the window whose survivor it cancels. Who stands for that window next may be in any slice.

import { type Entries, keepsSurvivors, packByBytes, STATEMENT_BYTES } from "./entries.ts";
import { forDatabase, withJsonEach } from "./json-each.ts";
import { holding, liveSlices } from "./sql/slices.ts";
import { FIND_VACATED, restoreFrom, SETTLE_VACATED, WINDOW_MS } from "./sql/survivors.ts";

type Window = {
  readonly series: number;
  readonly window_start: number;
  readonly aggregation: keyof typeof WINDOW_MS;
};

/**
 * Finds who stands for the windows that cancellations have vacated. It runs after their transaction and before their
 * group is confirmed, so that a crash in between repeats it. The slices are listed after the windows were vacated:
 * an event that is stored into a later one has competed for its window by itself.
 */
export async function restoreVacated(
  db: D1Database,
  entries: readonly Pick<Entries, "kind" | "entries">[],
): Promise<void> {
  const cancellations = entries.filter((each) => each.kind === "cancellations" && keepsSurvivors(each.entries));
  if (cancellations.length === 0) return;
  const texts = packByBytes(
    cancellations.map((each) => each.entries),
    STATEMENT_BYTES,
  );
  await withJsonEach(async () => {
    const find = texts.map((text) => db.prepare(forDatabase(FIND_VACATED)).bind(`[${text}]`));
    const found = await db.batch<Window>(find);
    await restoreWindows(
      db,
      found.flatMap(({ results }) => results),
    );
  });
}

/** Has the events of all slices compete for vacated windows. */
export async function restoreWindows(db: D1Database, windows: readonly Window[]): Promise<void> {
  if (windows.length === 0) return;
  const starts = windows.map(({ window_start }) => window_start);
  const ends = windows.map(({ window_start, aggregation }) => window_start + WINDOW_MS[aggregation]);
  const slices = holding(await liveSlices(db), { start: Math.min(...starts), end: Math.max(...ends) });
  const wanted = JSON.stringify(
    windows.map(({ series, window_start, aggregation }) => [series, window_start, aggregation]),
  );
  await db.batch([
    ...slices.map(({ slice }) => db.prepare(restoreFrom(slice)).bind(wanted)),
    ...SETTLE_VACATED.map((sql) => db.prepare(sql).bind(wanted)),
  ]);
}
