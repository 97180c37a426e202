import type { StoredKey } from "./keys.ts";

const COLUMNS = ["id", "name", "mode", "may", "created", "revoked"] as const;

/** Keys as a table with a head, for people and for `grep`: one line each. */
export function keyTable(keys: readonly StoredKey[]): string {
  const rows = [COLUMNS, ...keys.map(cellsOf)];
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const cellsOf = ({ id, name, livemode, permissions, created, revoked }: StoredKey): readonly string[] => [
  id,
  // Whoever wrote it into the database may not have been this tool: nothing of it drives the terminal.
  name.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu, "\u{fffd}"),
  livemode ? "live" : "test",
  permissions,
  time(created),
  revoked === undefined ? "" : time(revoked),
];

/** To the second. */
const time = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
