import { stat } from "node:fs/promises";
import { hashedTo } from "../../src/domain/identifiers.ts";
import type { Formula } from "../../src/domain/meter.ts";
import { CommandError } from "../command-error.ts";
import { Client } from "../http.ts";
import { BATCH_SIZE, eventSender, type Meter, type Outcome, requireMeter } from "./client.ts";
import { columnIndex, eventMapper, type ImportedEvent } from "./events.ts";
import { exportedColumns, exportedMapper, exportedName, inReceiptOrder } from "./exported.ts";
import { workInLanes } from "./lanes.ts";
import type { ImportOptions } from "./options.ts";
import { RejectedRows } from "./rejected.ts";
import { showProgress, type Tally } from "./report.ts";
import { openTable, type Row, type Table } from "./rows.ts";
import { newestTimestamp, shiftToNow } from "./timestamps.ts";

/** How long a row is tried: long enough for a server to be restarted (ms). */
const PATIENCE_MS = 120_000;

/** Batches held at a time for each request under way: enough for one lane not to hold up the others. */
const WINDOW_PER_REQUEST = 4;

/**
 * Replays a file, counting in `tally` as it goes. Ends early once `stop` is aborted. Throws a
 * `CommandError` when it cannot go on.
 */
export async function runImport(options: ImportOptions, tally: Tally, stop: AbortController): Promise<void> {
  const { file, concurrency, mapping } = options;
  const size = await sizeOf(file);
  const client = new Client({
    ...options,
    ...{ patienceMs: PATIENCE_MS, stop: stop.signal, onRetry: () => void tally.retries++ },
  });

  // What is wrong with the file or the meter is known before the first event is sent.
  const shift = options.shiftToNow ? await findShift(options, tally, stop.signal, size) : 0;
  if (stop.signal.aborted) return;
  const eventName = options.eventName ?? (await exportedName(file, await openTable(file)));
  // An exported file without events.
  if (eventName === undefined) return;
  const table = await openTable(file);
  const { columns } = table;
  const toEvent =
    mapping === undefined
      ? exportedMapper(exportedColumns(file, columns), shift, Date.now())
      : eventMapper(mapping, columns, shift);
  const meter = await requireMeter(client, eventName, options.createMeter);
  warnOfOtherFormula(meter, options.createMeter);
  const rows = mapping === undefined ? await inOrderFor(meter, file, table) : table.rows;
  const rejectedRows = new RejectedRows(file, columns);

  const count = (row: Row, outcome: Outcome | "cancelled"): void => {
    if (typeof outcome === "object") rejectedRows.add(row, outcome.error);
    tally[typeof outcome === "object" ? "rejected" : outcome]++;
    tally.bytes = Math.max(tally.bytes, row.end);
  };

  async function* events(): AsyncGenerator<ImportedEvent, void, undefined> {
    for await (const row of rows) {
      const event = toEvent(row);
      if (!event.ok) count(row, { error: event.error });
      else if (event.value === undefined) count(row, "cancelled");
      else yield event.value;
    }
  }

  const send = eventSender(client, meter);
  const work = async ({ events }: Batch): Promise<void> => {
    for (const [index, outcome] of (await send(events)).entries()) {
      const event = events[index];
      if (event !== undefined) count(event.row, outcome);
    }
  };

  const endProgress = showProgress("importing", tally, size);
  try {
    const batches = inBatches(events(), laneChooser(meter, concurrency));
    const window = concurrency * WINDOW_PER_REQUEST;
    await workInLanes(batches, { laneOf: ({ lane }) => lane, work, window, stop });
  } finally {
    endProgress();
  }
  if (tally.rejected > 0) console.error(`import: the rejected rows are in ${rejectedRows.file}`);
}

/**
 * The rows of an exported file in the order that its meter's sums need. Of meters that keep the last received event of a
 * window it is that of receipt, for which all rows are held in memory.
 */
async function inOrderFor(
  { eventTimeWindow }: Meter,
  file: string,
  { columns, rows }: Table,
): Promise<AsyncIterable<Row> | Iterable<Row>> {
  return eventTimeWindow === null ? rows : inReceiptOrder(rows, exportedColumns(file, columns));
}

/**
 * By which of some lanes an event goes. Where the meter keeps the last of some events, those of a customer go by
 * one, so that they stay in order. Elsewhere each batch goes by the next lane.
 */
function laneChooser({ formula, eventTimeWindow }: Meter, lanes: number): (event: ImportedEvent) => number {
  if (formula === "last" || eventTimeWindow !== null) return ({ customer }) => hashedTo(customer, lanes);
  let chosen = 0;
  return () => Math.floor(chosen++ / BATCH_SIZE) % lanes;
}

/** Events of one request, which go by one lane. */
type Batch = { readonly lane: number; readonly events: readonly ImportedEvent[] };

/** The events of each lane in batches, in their order. */
async function* inBatches(
  events: AsyncIterable<ImportedEvent>,
  laneOf: (event: ImportedEvent) => number,
): AsyncGenerator<Batch, void, undefined> {
  const begun = new Map<number, ImportedEvent[]>();
  for await (const event of events) {
    const lane = laneOf(event);
    const batch = begun.get(lane) ?? [];
    batch.push(event);
    if (batch.length < BATCH_SIZE) begun.set(lane, batch);
    else {
      begun.delete(lane);
      yield { lane, events: batch };
    }
  }
  for (const [lane, batch] of begun) yield { lane, events: batch };
}

/** Reads the file once for its newest timestamp; the shift in ms. */
async function findShift(options: ImportOptions, tally: Tally, stop: AbortSignal, size: number): Promise<number> {
  const { columns, rows } = await openTable(options.file);
  const column = columnIndex(columns, options.mapping?.timestampColumn ?? "timestamp");

  async function* watched(): AsyncGenerator<Row, void, undefined> {
    for await (const row of rows) {
      if (stop.aborted) return;
      tally.bytes = row.end;
      yield row;
    }
  }

  const endProgress = showProgress("looking for the newest timestamp", tally, size);
  try {
    return shiftToNow(await newestTimestamp(watched(), column), Date.now());
  } finally {
    endProgress();
    tally.bytes = 0;
  }
}

async function sizeOf(file: string): Promise<number> {
  const stats = await stat(file).catch(() => undefined);
  if (stats === undefined) throw new CommandError(`there is no file ${file}.`);
  if (!stats.isFile()) throw new CommandError(`${file} is not a file.`);
  return stats.size;
}

function warnOfOtherFormula({ formula }: { readonly formula: string }, asked: Formula | undefined): void {
  if (asked !== undefined && asked !== formula) {
    console.error(`import: the meter exists already, with formula ${formula} instead of ${asked}.`);
  }
}
