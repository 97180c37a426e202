// What a run came to, as text: for the terminal, and as Markdown.
import { type Judged, judge } from "./aims.ts";
import type { Figure, Table } from "./results.ts";

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
  readonly seconds: number;
  readonly sections: readonly Section[];
};

type Cells = readonly (readonly string[])[];

/** Four significant digits, without an exponent. */
export function format(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

const NOT_MEASURED = "not measured";

export function toMarkdown(run: Run): string {
  const lines = [
    "# Results of the bench",
    "",
    "Made by `npm run bench`; [NOTES.md](NOTES.md) says how to read it.",
    "",
    ...Object.entries(run.machine).map(([name, value]) => `- ${name}: ${value}`),
    "",
    "## Aims",
    "",
    ...markdownTable(["aim", "", "figure", "reached"], aimCells(judged(run))),
  ];
  for (const section of run.sections) {
    lines.push("", `## ${section.title}`, "");
    if (section.failed !== undefined) lines.push(`Failed: ${section.failed}`);
    else lines.push(...markdownTable(FIGURE_COLUMNS, figureCells(section.figures)));
    for (const { title, columns, rows, notes = [] } of section.tables) {
      lines.push("", `### ${title}`, "", ...markdownTable(columns, rows.map(texts)));
      if (notes.length > 0) lines.push("", ...notes);
    }
  }
  return `${lines.join("\n")}\n`;
}

export function toText(run: Run): string {
  const lines: string[] = [];
  for (const { title, figures, tables, failed } of run.sections) {
    lines.push("", title, ...(failed === undefined ? [] : [`  failed: ${failed}`]));
    lines.push(...textTable(figureCells(figures)));
    for (const table of tables) lines.push("", table.title, ...textTable([table.columns, ...table.rows.map(texts)]));
  }
  lines.push("", "Aims", ...textTable(aimCells(judged(run))));
  return lines.join("\n");
}

export const judged = ({ sections }: Run): Judged[] => judge(sections.flatMap(({ figures }) => figures));

const FIGURE_COLUMNS = ["figure", "value", "", "beside", "ratio", "note"];

const figureCells = (figures: readonly Figure[]): Cells =>
  figures.map(({ name, value, unit, limit, note = "" }) => [
    name.startsWith("  ") ? `… ${name.trim()}` : name,
    Number.isFinite(value) ? format(value) : NOT_MEASURED,
    unit,
    limit === undefined ? "" : `${limit.name}: ${format(limit.value)}`,
    limit === undefined ? "" : format(limit.ratio),
    note,
  ]);

const aimCells = (aims: readonly Judged[]): Cells =>
  aims.map(({ aim, value, reached }) => [
    aim.name,
    `${aim.at === "least" ? "≥" : "≤"} ${format(aim.bound)}`,
    value === undefined ? NOT_MEASURED : format(value),
    reached === undefined ? "" : reached ? "yes" : "NO",
  ]);

const texts = (row: readonly (string | number)[]): string[] => row.map(String);

const markdownTable = (columns: readonly string[], cells: Cells): string[] =>
  [columns, columns.map(() => "---"), ...cells].map((row) => `| ${row.map(escaped).join(" | ")} |`);

const escaped = (cell: string): string => cell.replaceAll("|", "\\|");

function textTable(cells: Cells): string[] {
  const widths: number[] = [];
  for (const row of cells) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return cells.map((row) => `  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ")}`.trimEnd());
}
