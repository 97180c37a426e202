// Files that `npm run export` wrote, as events of another deployment.
import { fingerprint, OWN_PREFIX } from "../../src/domain/identifiers.ts";
import { TIMESTAMP_PAST_MS } from "../../src/domain/limits.ts";
import { err, ok, type Result } from "../../src/domain/result.ts";
import { CommandError } from "../command-error.ts";
import { EXPORT_COLUMNS } from "../export/columns.ts";
import type { ImportedEvent } from "./events.ts";
import type { Row, Table } from "./rows.ts";
import { parseTimestamp } from "./timestamps.ts";

/** Where the columns of a file are. */
type Places = ReadonlyMap<string, number>;

/** Reads a column of a row. Throws a `CommandError` when the columns are not those of an exported file. */
export function exportedColumns(file: string, columns: readonly string[]): (row: Row, name: string) => string {
  const places: Places = new Map(columns.map((name, place) => [name, place]));
  const missing = EXPORT_COLUMNS.filter(({ name }) => !places.has(name)).map(({ name }) => name);
  if (missing.length > 0) {
    throw new CommandError(
      `${file} is not of npm run export: it has no column ${missing.join(", ")}. Of another file, say --value-column, --timestamp-column and whose the rows are.`,
    );
  }
  return ({ fields }, name) => fields[places.get(name) ?? -1] ?? "";
}

/**
 * A mapper from exported rows to events; of cancelled ones to nothing, since they count nowhere. `shift` and `now` in
 * ms. Rows must come in the order of the file, or always in the same other one.
 */
export function exportedMapper(
  column: (row: Row, name: string) => string,
  shift: number,
  now: number,
): (row: Row) => Result<ImportedEvent | undefined, string> {
  const known = new SeenTexts();
  return (row) => {
    if (row.flaw !== undefined) return err(row.flaw);
    const time = parseTimestamp(column(row, "timestamp"));
    if (time === undefined) return err(`The timestamp cannot be read: '${column(row, "timestamp")}'.`);
    const identifier = legalIdentifier(column(row, "identifier"), column(row, "id"), known);
    if (column(row, "cancelled") !== "") return ok(undefined);
    const timestamp = time + shift;
    // The service would say so too, but months of such rows need not be sent for it.
    if (timestamp < now - TIMESTAMP_PAST_MS) return err("The timestamp is more than 35 days in the past.");
    const customer = column(row, "customer");
    if (customer === "") return err("The row has no customer.");
    const payload = payloadOf(column(row, "dimensions"), column(row, "payload"));
    if (payload === undefined) return err("The payload cannot be read.");
    return ok({ row, identifier, customer, value: column(row, "value"), timestamp, payload });
  };
}

/**
 * The identifier that an exported event is imported with: its own, unless callers may not report it, or an earlier
 * event of the file has it, which was received more than 24 hours before. Those get one made of the event's id. It is
 * the same in every import of the file, so that a repetition counts once.
 */
function legalIdentifier(identifier: string, id: string, known: SeenTexts): string {
  return identifier.startsWith(OWN_PREFIX) || known.add(identifier) ? `imp_${id}` : identifier;
}

function payloadOf(...parts: readonly string[]): Record<string, string> | undefined {
  try {
    return Object.assign({}, ...parts.map((part) => (part === "" ? {} : JSON.parse(part))));
  } catch {
    return undefined;
  }
}

/** Bits of the filter (64 MB), and how many of them a text sets. With 10 million texts it errs of one in 30,000. */
const BITS = 2 ** 29;
const HASHES = 4;

/**
 * Texts that came before, in memory that does not grow with them: a Bloom filter. It may take a new text for a known
 * one, but never the other way round.
 */
class SeenTexts {
  readonly #bits = new Uint32Array(BITS / 32);

  /** Adds a text; whether it was there before. */
  add(text: string): boolean {
    const hash = fingerprint(text);
    const [first, second] = [Number.parseInt(hash.slice(0, 8), 16), Number.parseInt(hash.slice(8), 16)];
    let wasKnown = true;
    for (let i = 0; i < HASHES; i++) {
      const bit = (first + i * second) % BITS;
      const [word, mask] = [bit >>> 5, 1 << (bit & 31)];
      const bits = this.#bits[word] ?? 0;
      if ((bits & mask) === 0) wasKnown = false;
      this.#bits[word] = bits | mask;
    }
    return wasKnown;
  }
}

/** The event name of an exported file, which all its rows have; nothing when it has no rows. */
export async function exportedName(file: string, { columns, rows }: Table): Promise<string | undefined> {
  const column = exportedColumns(file, columns);
  for await (const row of rows) return column(row, "event_name");
  return undefined;
}

/** Rows in the order in which their events were received, all in memory. */
export async function inReceiptOrder(
  rows: AsyncIterable<Row>,
  column: (row: Row, name: string) => string,
): Promise<readonly Row[]> {
  // Ids sort in receipt order.
  return (await Array.fromAsync(rows)).sort((a, b) => (column(a, "id") < column(b, "id") ? -1 : 1));
}
