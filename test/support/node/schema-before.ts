import { readFileSync } from "node:fs";
import path from "node:path";

const schema = readFileSync(path.join(import.meta.dirname, "../../../schema.sql"), "utf8");

/** A schema that today's is reached from by adding: two tables and a column. */
export const BEFORE = schema
  .replace(/CREATE INDEX IF NOT EXISTS dead_letters_by_mode [^;]*;/, "")
  .replaceAll(/CREATE TABLE IF NOT EXISTS (dead_letters|audits) [\s\S]*?WITHOUT ROWID;/g, "")
  .replace(/,( --[^\n]*)\n {2}permissions TEXT[^\n]*/, "$1");
