// How a new schema.sql reaches a database that has rows: on SQLite itself, which D1 is.
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { describe, expect, inject, test } from "vitest";
import { CommandError } from "../../scripts/command-error.ts";
import { objectsOfScript } from "../../scripts/schema/desired.ts";
import { READ_OBJECTS, toObjects } from "../../scripts/schema/objects.ts";
import { type Step, stepsTo } from "../../scripts/schema/steps.ts";

const databaseOf = (sql: string): DatabaseSync => {
  const database = new DatabaseSync(":memory:");
  database.exec(sql);
  return database;
};

/** What a database lacks of a script. */
const stepsOf = async (database: DatabaseSync, script: string): Promise<Step[]> =>
  stepsTo(await objectsOfScript(script), toObjects(database.prepare(READ_OBJECTS).all()));

const names = (steps: readonly Step[]): string[] => steps.map(({ makes }) => makes);

const apply = (database: DatabaseSync, steps: readonly Step[]): void => {
  for (const { sql } of steps) database.exec(sql);
};

const TABLE = "CREATE TABLE t (id TEXT PRIMARY KEY, a INTEGER NOT NULL, b TEXT) WITHOUT ROWID;";

describe("a change that only adds", () => {
  test.each([
    ["a column", "c TEXT"],
    ["a column with a default", "c INTEGER NOT NULL DEFAULT 7"],
    ["a column with a comma, a bracket and a comment in its default", "c TEXT DEFAULT 'x, (y' /* ), */ -- z,\n"],
    ["a column whose default looks like SQL", "c TEXT NOT NULL DEFAULT 'it''s not null'"],
    ["a computed column", "c INTEGER AS (a + length(b))"],
    ["a checked column", "c INTEGER CHECK (c IS NULL OR c IN (1, 2))"],
  ])("%s, reaches a table with rows", async (_, column) => {
    const database = databaseOf(`${TABLE} INSERT INTO t VALUES ('1', 2, '3');`);
    const wanted = TABLE.replace("b TEXT", `b TEXT, ${column}`);
    apply(database, await stepsOf(database, wanted));
    expect(database.prepare("SELECT id, a, b FROM t WHERE c IS NULL OR true").all()).toEqual([
      { id: "1", a: 2, b: "3" },
    ]);
    expect(await stepsOf(database, wanted)).toEqual([]);
  });

  test("an index may stand on a column that comes with it", async () => {
    const database = databaseOf(`${TABLE} INSERT INTO t VALUES ('1', 2, '3'), ('2', 2, '3');`);
    const wanted = `${TABLE.replace("b TEXT", "b TEXT, c TEXT")} CREATE UNIQUE INDEX by_c ON t (c); CREATE INDEX by_b ON t (b);`;
    const steps = await stepsOf(database, wanted);
    expect(names(steps)).toEqual(["column t.c", "index by_c", "index by_b"]);
    apply(database, steps);
    expect(await stepsOf(database, wanted)).toEqual([]);
  });

  test("spaces, comments, case and quotes are no change", async () => {
    const database = databaseOf(TABLE.replace("a INTEGER", `"A"  integer -- the first\n`));
    expect(await stepsOf(database, TABLE)).toEqual([]);
  });

  test("tables, columns and indexes that the schema lacks are left alone", async () => {
    const extra = "CREATE TABLE u (x); CREATE INDEX by_b ON t (b);";
    const database = databaseOf(`${TABLE.replace("b TEXT", "b TEXT, old TEXT NOT NULL DEFAULT 'x'")} ${extra}`);
    expect(await stepsOf(database, TABLE)).toEqual([]);
  });
});

describe("a change that does more than add is refused, and says what it is:", () => {
  test.each<[string, string, string, string]>([
    ["another type", "a INTEGER", "a TEXT", "column t.a is 'a INTEGER NOT NULL', not 'a TEXT NOT NULL'"],
    ["a column that may not be empty any more", "b TEXT", "b TEXT NOT NULL", "column t.b is 'b TEXT'"],
    ["another default", "b TEXT", "b TEXT DEFAULT 'X'", "column t.b"],
    [
      "another key",
      "id TEXT PRIMARY KEY, a INTEGER NOT NULL",
      "id TEXT, a INTEGER NOT NULL PRIMARY KEY",
      "column t.id",
    ],
    ["a key of more columns", "b TEXT", "b TEXT, UNIQUE (a, b)", "table t has other keys or constraints"],
    ["another kind of table", " WITHOUT ROWID", "", "table t has other keys or constraints"],
    ["a new column that must be given", "b TEXT", "b TEXT, c TEXT NOT NULL", "column t.c cannot be added, as the rows"],
    ["one with the default NULL", "b TEXT", "b TEXT, c TEXT NOT NULL DEFAULT NULL", "column t.c cannot be added"],
    ["one that the clock fills", "b TEXT", "b TEXT, c TEXT DEFAULT CURRENT_TIMESTAMP", "its default is not a constant"],
    ["one that an expression fills", "b TEXT", "b TEXT, c TEXT DEFAULT (random())", "its default is not a constant"],
    ["a unique column", "b TEXT", "b TEXT, c TEXT UNIQUE", "would all have the same"],
    ["a stored computed column", "b TEXT", "b TEXT, c TEXT AS (a) STORED", "stored"],
    ["a column gone that must be given", "a INTEGER NOT NULL, ", "", "no row can be written without it"],
  ])("%s", async (_, from, to, message) => {
    const problem = stepsOf(databaseOf(TABLE), TABLE.replace(from, to));
    await expect(problem).rejects.toThrow(CommandError);
    await expect(problem).rejects.toThrow(message);
  });

  test("a text in other letters, which no name is", async () => {
    const withDefault = (text: string): string => TABLE.replace("b TEXT", `b TEXT DEFAULT '${text}'`);
    await expect(stepsOf(databaseOf(withDefault("x")), withDefault("X"))).rejects.toThrow("column t.b");
  });

  test("another index of the same name", async () => {
    const database = databaseOf(`${TABLE} CREATE INDEX i ON t (a);`);
    await expect(stepsOf(database, `${TABLE} CREATE INDEX i ON t (a, b);`)).rejects.toThrow("another name");
  });

  test("a unique index over what older code writes", async () => {
    const wanted = `${TABLE} CREATE UNIQUE INDEX i ON t (a);`;
    await expect(stepsOf(databaseOf(TABLE), wanted)).rejects.toThrow("would forbid rows");
  });

  test("every difference at once", async () => {
    const wanted = TABLE.replace("a INTEGER", "a TEXT").replace("b TEXT", "b INTEGER");
    await expect(stepsOf(databaseOf(TABLE), wanted)).rejects.toThrow(/t\.a is[\s\S]*t\.b is/);
  });
});

/** A table of a random schema: a key, and columns that may be added to any table. */
const randomTable = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom("a", "b", '"c d"', "e", "f"),
    type: fc.constantFrom(
      "TEXT",
      "INTEGER",
      "",
      "TEXT DEFAULT 'x, ('",
      "INTEGER NOT NULL DEFAULT -1",
      "TEXT COLLATE NOCASE",
    ),
    /** Whether the database of before has it. */
    isOld: fc.boolean(),
    isIndexed: fc.boolean(),
  }),
  { selector: ({ name }) => name },
);
const randomSchema = fc.uniqueArray(
  fc.record({ name: fc.constantFrom("t", "u", "v"), columns: randomTable, isOld: fc.boolean(), rowid: fc.boolean() }),
  { selector: ({ name }) => name },
);

type RandomSchema = typeof randomSchema extends fc.Arbitrary<infer Schema> ? Schema : never;

test("every schema is reached from every part of it, with all rows in place", async () => {
  const scriptOf = (schema: RandomSchema, onlyOld: boolean): string =>
    schema
      .filter(({ isOld }) => isOld || !onlyOld)
      .map(({ name, columns, rowid }) => {
        const there = columns.filter(({ isOld }) => isOld || !onlyOld);
        const defined = there.map((column) => `, ${column.name} ${column.type}`).join("");
        const indexes = columns.filter(({ isOld, isIndexed }) => isIndexed && (isOld || !onlyOld));
        return `CREATE TABLE ${name} (id TEXT NOT NULL${defined}, PRIMARY KEY (id)) ${rowid ? "" : "WITHOUT ROWID"};
          ${onlyOld ? "" : indexes.map((column, i) => `CREATE INDEX ${name}_${i} ON ${name} (${column.name});`).join("\n")}`;
      })
      .join("\n");
  await fc.assert(
    fc.asyncProperty(randomSchema, async (schema) => {
      const database = databaseOf(scriptOf(schema, true));
      const old = schema.filter(({ isOld }) => isOld);
      for (const { name } of old) database.exec(`INSERT INTO ${name} (id) VALUES ('1'), ('2')`);
      const rows = () => old.map(({ name }) => database.prepare(`SELECT * FROM ${name} ORDER BY id`).all());
      const before = rows();
      const wanted = scriptOf(schema, false);
      apply(database, await stepsOf(database, wanted));
      expect(await stepsOf(database, wanted)).toEqual([]);
      expect(rows()).toMatchObject(before);
      // What the code of before writes is still taken.
      for (const { name } of old) database.exec(`INSERT INTO ${name} (id) VALUES ('3')`);
    }),
    { seed: inject("seed"), numRuns: 200 },
  );
});
