// SQL as far as it is needed to see whether two statements make the same: words, strings and brackets.

const TOKEN =
  /(?<space>(?:\s|--[^\n]*|\/\*[\s\S]*?\*\/)+)|(?<text>[xX]?'(?:[^']|'')*')|(?<name>"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])|[\w$\u0080-\uffff]+|[\s\S]/g;

type Token = { readonly text: string; readonly kind: "space" | "text" | "name" | "other" };

function tokensOf(sql: string): Token[] {
  return [...sql.matchAll(TOKEN)].map(({ 0: text, groups }) => {
    if (groups?.space !== undefined) return { text: " ", kind: "space" };
    if (groups?.text !== undefined) return { text, kind: "text" };
    return { text, kind: groups?.name === undefined ? "other" : "name" };
  });
}

/** A piece of SQL without its comments. */
export type Piece = {
  /** As it was written. */
  readonly sql: string;
  /** Equal for pieces that differ in nothing but spaces, quotes around names, and upper and lower case. */
  readonly words: readonly string[];
};

export const pieceOf = (sql: string): Piece => toPiece(tokensOf(sql));

const toPiece = (tokens: readonly Token[]): Piece => ({
  sql: tokens
    .map(({ text }) => text)
    .join("")
    .trim(),
  words: tokens.filter(({ kind }) => kind !== "space").map(wordOf),
});

const wordOf = ({ text, kind }: Token): string =>
  kind === "text" ? text : (kind === "name" ? text.slice(1, -1) : text).toLowerCase();

export const isSame = (one: Piece, other: Piece): boolean => one.words.join("\n") === other.words.join("\n");

/** What a table is made of. */
export type TableDefinition = {
  /** By their names in lower case. */
  readonly columns: ReadonlyMap<string, Piece>;
  /** All that is not a column: the constraints of the whole table, and what stands behind the bracket. */
  readonly rest: readonly string[];
};

const CONSTRAINTS = new Set(["constraint", "primary", "unique", "check", "foreign"]);

/** Reads a CREATE TABLE as sqlite_master has it. */
export function tableDefinitionOf(sql: string): TableDefinition {
  const { parts, options } = split(tokensOf(sql));
  const pieces = parts.map(toPiece);
  const isConstraint = ({ words }: Piece): boolean => CONSTRAINTS.has(words[0] ?? "");
  return {
    columns: new Map(pieces.filter((piece) => !isConstraint(piece)).map((piece) => [piece.words[0] ?? "", piece])),
    rest: [...pieces.filter(isConstraint), toPiece(options)].map(({ words }) => words.join(" ")).sort(),
  };
}

/** What stands between the commas of the outermost brackets, and what behind them. */
function split(tokens: readonly Token[]): { parts: Token[][]; options: Token[] } {
  const parts: Token[][] = [[]];
  let depth = 0;
  for (const [index, token] of tokens.entries()) {
    const { text } = token;
    if (text === "(" && depth++ === 0) continue;
    if (text === ")" && --depth === 0) return { parts, options: tokens.slice(index + 1) };
    if (depth === 0) continue;
    if (text === "," && depth === 1) parts.push([]);
    else parts.at(-1)?.push(token);
  }
  return { parts, options: [] };
}
