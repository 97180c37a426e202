import { DatabaseSync } from "node:sqlite";
import type { Account, Database } from "./account.ts";
import { ApiFailure, newId, type Route } from "./route.ts";

/** D1, with real SQL. */
export const DATABASE_ROUTES: readonly Route[] = [
  ["GET", "/d1/database", ({ account }) => [...account.databases.values()].map(described)],
  ["GET", "/d1/database/*", ({ account, params }) => described(databaseOf(account, params[0]))],
  [
    "POST",
    "/d1/database",
    ({ account, json }) => {
      const { name, primary_location_hint: hint, jurisdiction } = json();
      if (typeof name !== "string") throw new ApiFailure(400, 7400, "name is required");
      if (account.databases.has(name)) throw new ApiFailure(400, 7502, "A database with that name already exists");
      // Without a hint it is made near whoever asks: in Western Europe, here.
      const location = typeof hint === "string" ? hint : "weur";
      const database: Database = {
        ...{ uuid: newId(), name, location, replicated: false, sql: new DatabaseSync(":memory:") },
        jurisdiction: typeof jurisdiction === "string" ? jurisdiction : undefined,
      };
      account.databases.set(name, database);
      // Where it runs is not in this answer.
      return { uuid: database.uuid, name };
    },
  ],
  [
    "PUT",
    "/d1/database/*",
    ({ account, params, json }) => {
      const database = databaseOf(account, params[0]);
      const { read_replication: replication } = json();
      if (JSON.stringify(replication) !== '{"mode":"auto"}') throw new ApiFailure(400, 7400, "an unknown setting");
      database.replicated = true;
      return described(database);
    },
  ],
  [
    "DELETE",
    "/d1/database/*",
    ({ account, params }) => {
      account.databases.delete(databaseOf(account, params[0]).name);
      return null;
    },
  ],
  [
    "POST",
    "/d1/database/*/query",
    ({ account, params, json }) => run(databaseOf(account, params[0]), String(json().sql)),
  ],
];

const described = ({ uuid, name, location, jurisdiction, replicated }: Database): object => ({
  uuid,
  name,
  read_replication: { mode: replicated ? "auto" : "disabled" },
  jurisdiction: jurisdiction ?? null,
  running_in_region: location?.toUpperCase(),
});

function databaseOf({ databases }: Account, idOrName: string | undefined): Database {
  const found = [...databases.values()].find(({ uuid, name }) => uuid === idOrName || name === idOrName);
  if (found === undefined) throw new ApiFailure(404, 7404, `The database ${idOrName} could not be found`);
  return found;
}

/** All statements or none. */
function run({ sql, lacks = [] }: Database, text: string): object[] {
  const missing = lacks.find((name) => text.includes(`${name}(`));
  if (missing !== undefined) throw new ApiFailure(400, 7500, `no such table: ${missing}: SQLITE_ERROR`);
  sql.exec("BEGIN");
  try {
    const results = statementsOf(text).map((statement) => ({
      results: sql.prepare(statement).all(),
      success: true,
      meta: { duration: 1 },
    }));
    sql.exec("COMMIT");
    return results;
  } catch (error) {
    sql.exec("ROLLBACK");
    throw new ApiFailure(400, 7500, error instanceof Error ? error.message : String(error));
  }
}

/** The statements of a script whose lines end where a statement does. */
const statementsOf = (script: string): string[] =>
  script.split(/;[ \t]*(?:\n|$)/).filter((part) => part.replaceAll(/--.*$/gm, "").trim() !== "");
