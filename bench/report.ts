// What a run came to, as Markdown: for the terminal and for RESULTS.md.
import { type Aim, compared, type Judged, judge } from "./aims.ts";
import { type Figure, median, type Table } from "./results.ts";

export type Section = {
  readonly name: string;
  readonly title: string;
  readonly figures: readonly Figure[];
  readonly tables: readonly Table[];
  /** Why it was not measured. */
  readonly failed?: string;
};

export type Run = {
  readonly machine: Readonly<Record<string, string>>;
  /** The commit that the present is compared with. */
  readonly against?: string | undefined;
  readonly sections: readonly Section[];
};

export function toMarkdown({ machine, against = "commit", sections }: Run): string {
  const lines = [
    "# Results of the bench",
    "",
    "Made by `npm run bench`; [NOTES.md](NOTES.md) says how to read it.",
    "",
    ...Object.entries(machine).map(([name, value]) => `- ${name}: ${value}`),
  ];
  const aims = judged(sections);
  if (aims.length > 0) lines.push("", "## Aims", "", ...table(AIM_COLUMNS, aims.map(aimCells)));
  for (const { title, figures, tables, failed } of sections) {
    lines.push("", `## ${title}`, "");
    if (failed !== undefined) lines.push("Failed:", "", "```", failed, "```");
    else lines.push(...table(figureColumns(against), figures.map(figureCells)));
    for (const { title, columns, rows, notes = [] } of tables) {
      lines.push("", `### ${title}`, "", ...table(columns, rows));
      if (notes.length > 0) lines.push("", ...notes);
    }
  }
  return `${lines.join("\n")}\n`;
}

export const judged = (sections: readonly Section[]): Judged[] =>
  sections.flatMap(({ figures }) => figures).flatMap(judge);

const NOT_MEASURED = "not measured";

const AIM_COLUMNS = ["aim", "of", "bound", "figure", "reached"];

const aimCells = ({ name, of, at, bound, value, reached }: Judged): string[] => [
  name,
  of,
  `${at} ${format(bound)}`,
  value === null ? NOT_MEASURED : format(value),
  verdict(reached),
];

const verdict = (reached: boolean | null): string => (reached === null ? "" : reached ? "yes" : "NO");

const figureColumns = (against: string): string[] => [
  "figure",
  "value",
  "rounds",
  `at ${against}`,
  `÷ ${against}`,
  "rounds of ÷",
  "limit",
  "÷ limit",
  "aim",
  "reached",
  "note",
];

function figureCells(figure: Figure): string[] {
  const { name, rounds, base = [], unit, limit, note = "" } = figure;
  const value = median(rounds);
  const ratio = (of: Aim["of"]): readonly number[] => compared(figure, of);
  const aims = judge(figure);
  return [
    name.startsWith("  ") ? `… ${name.trim()}` : name,
    Number.isFinite(value) ? `${format(value)} ${unit}`.trim() : NOT_MEASURED,
    spread(rounds),
    ...[base, ratio("÷ commit")].map((values) => (values.length === 0 ? "" : format(median(values)))),
    spread(ratio("÷ commit")),
    limit === undefined ? "" : `${limit.name}: ${format(median(limit.rounds))}`,
    limit === undefined ? "" : format(median(ratio("÷ limit"))),
    aims.map(({ of, at, bound }) => `${of === "value" ? "" : `${of} `}${at} ${format(bound)}`).join(", "),
    aims.map(({ reached }) => verdict(reached)).join(", "),
    note,
  ];
}

/** The least and the most of the rounds, where there are several. */
const spread = (values: readonly number[]): string =>
  values.length < 2 ? "" : `${format(Math.min(...values))} to ${format(Math.max(...values))}`;

/** Three significant digits, without an exponent. */
function format(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** A Markdown table, aligned, without the columns in which nothing stands. */
function table(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): string[] {
  const used = columns.map((_, i) => i === 0 || rows.some((row) => row[i] !== ""));
  const cells = [columns, ...rows].map((row) =>
    row.filter((_, i) => used[i]).map((cell) => String(cell).replaceAll("|", "\\|")),
  );
  const widths = (cells[0] ?? []).map((_, i) => Math.max(3, ...cells.map((row) => row[i]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = cells;
  return [head, widths.map((width) => "-".repeat(width)), ...body].map(line);
}
