import { CommandError } from "../command-error.ts";
import { isSame, type Piece, pieceOf, tableDefinitionOf } from "./definition.ts";
import type { StoredObject } from "./objects.ts";

/** A statement that brings a database forward, and what it makes. */
export type Step = { readonly makes: string; readonly sql: string };

/**
 * The statements that a database lacks of the schema: its missing tables, columns and indexes, none when
 * it has everything. They only add. The code that runs meanwhile, and the code of before, go on working
 * with what they know; what they have and the schema has not is left alone. Throws a CommandError that
 * names all that differs and cannot be added, so that nothing is changed when not everything can be.
 */
export function stepsTo(desired: readonly StoredObject[], live: readonly StoredObject[]): Step[] {
  const existing = new Map(live.map((object) => [idOf(object), object]));
  const problems: string[] = [];
  const tables: Step[] = [];
  const others: Step[] = [];
  const addedTo = new Map<string, readonly string[]>();

  for (const object of desired.filter(isTable)) {
    const found = existing.get(idOf(object));
    if (found === undefined) tables.push(creation(object));
    else {
      const { steps, refusals, columns } = compareTables(object, found);
      tables.push(...steps);
      problems.push(...refusals);
      addedTo.set(object.name.toLowerCase(), columns);
    }
  }
  for (const object of desired.filter((other) => !isTable(other))) {
    const found = existing.get(idOf(object));
    if (found !== undefined) {
      if (!isSame(pieceOf(found.sql), pieceOf(object.sql))) problems.push(changed(object, found));
    } else if (narrows(object, addedTo)) {
      problems.push(
        `${object.type} ${object.name} would forbid rows that other code may write into ${object.table}: make it by hand when no such code runs any more`,
      );
    } else others.push(creation(object));
  }
  if (problems.length > 0) throw refusal(problems);
  return [...tables, ...others];
}

const isTable = ({ type }: StoredObject): boolean => type === "table";

const idOf = ({ type, name }: StoredObject): string => `${type} ${name.toLowerCase()}`;

const creation = (object: StoredObject): Step => ({
  makes: `${object.type} ${object.name}`,
  sql: object.sql.replace(/^CREATE (TABLE|UNIQUE INDEX|INDEX|VIEW|TRIGGER) /i, "CREATE $1 IF NOT EXISTS "),
});

type Comparison = { readonly steps: Step[]; readonly refusals: string[]; readonly columns: string[] };

function compareTables(desired: StoredObject, live: StoredObject): Comparison {
  const wanted = tableDefinitionOf(desired.sql);
  const found = tableDefinitionOf(live.sql);
  const steps: Step[] = [];
  const refusals: string[] = [];
  const columns: string[] = [];
  const { name } = desired;

  if (wanted.rest.join("\n") !== found.rest.join("\n")) {
    refusals.push(
      `table ${name} has other keys or constraints: '${found.rest.join(" ")}', not '${wanted.rest.join(" ")}'`,
    );
  }
  for (const [column, piece] of wanted.columns) {
    const existing = found.columns.get(column);
    if (existing === undefined) {
      const reason = whyNotAdded(piece);
      if (reason !== undefined) refusals.push(`column ${name}.${column} cannot be added, as ${reason}`);
      columns.push(column);
      steps.push({ makes: `column ${name}.${column}`, sql: `ALTER TABLE ${name} ADD COLUMN ${piece.sql}` });
    } else if (!isSame(existing, piece)) {
      refusals.push(`column ${name}.${column} is '${existing.sql}', not '${piece.sql}'`);
    }
  }
  for (const [column, piece] of found.columns) {
    if (!wanted.columns.has(column) && mustBeGiven(piece)) {
      refusals.push(
        `column ${name}.${column} ('${piece.sql}') is not in the schema, and no row can be written without it`,
      );
    }
  }
  return { steps, refusals, columns };
}

/** Why SQLite, or the code of before, cannot do with a column that a table of rows is given. */
function whyNotAdded({ words }: Piece): string | undefined {
  if (words.includes("primary") || words.includes("unique")) return "the rows that are there would all have the same";
  if (/\bdefault (\(|current_)/.test(words.join(" "))) return "its default is not a constant";
  if (words.includes("stored")) return "a stored value of rows that are there cannot be added";
  if (mustBeGiven({ words })) return "the rows that are there, and the code of before, have nothing to put there";
  return undefined;
}

/** Whether no row can be written without a value for it. */
function mustBeGiven({ words }: Pick<Piece, "words">): boolean {
  const text = words.join(" ");
  return /\bnot null\b/.test(text) && !/\bdefault (?!null\b)/.test(text) && !/\bas \(/.test(text);
}

/** Whether an index forbids what the code of before may do: unless it stands on a column that only the new one knows. */
function narrows({ table, sql }: StoredObject, addedTo: ReadonlyMap<string, readonly string[]>): boolean {
  const { words } = pieceOf(sql);
  const added = addedTo.get(table.toLowerCase());
  return words[1] === "unique" && added !== undefined && !added.some((column) => words.includes(column));
}

const changed = ({ type, name, sql }: StoredObject, live: StoredObject): string =>
  `${type} ${name} is '${pieceOf(live.sql).sql}', not '${pieceOf(sql).sql}': give the new one another name`;

const refusal = (problems: readonly string[]): CommandError =>
  new CommandError(
    `schema.sql differs from the database by more than additions, and nothing was changed.\n${problems.map((problem) => `  ${problem}`).join("\n")}\nOPERATIONS.md says how such a change is split in two deployments.`,
  );
