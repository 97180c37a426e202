import { COLUMNS } from "../../src/archive/file.ts";

/** The columns of an exported file: those of the archive's files, but for the number that is its database's own. */
export const EXPORT_COLUMNS: typeof COLUMNS = [
  { name: "event_name", type: "STRING" },
  ...COLUMNS.filter(({ name }) => name !== "series"),
];
