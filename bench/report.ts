// What a run came to, as Markdown: for the terminal and for RESULTS.md.
import { table } from "../scripts/table.ts";
import { compared, judge } from "./aims.ts";
import { type Figure, type Measured, median } from "./results.ts";

/** `failed` says why it was not measured. */
export type Section = Measured & { readonly title: string; readonly failed?: string };

export type Run = {
  readonly machine: Readonly<Record<string, string>>;
  /** The commit that the present is compared with. */
  readonly against?: string | undefined;
  readonly sections: readonly Section[];
};

export function toMarkdown({ machine, against, sections }: Run): string {
  const figures = sections.flatMap(({ figures }) => figures);
  const aims = judge(figures, against).map((aim) => aimRow(aim, against ?? "a commit"));
  const paragraphs = [
    "# Results of the bench",
    "Made by `npm run bench`; [NOTES.md](NOTES.md) says how to read it.",
    Object.entries(machine)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join("\n"),
  ];
  if (aims.length > 0)
    paragraphs.push("## Aims", markdown(["aim", "compared", "bound", "figure", "rounds", "reached"], aims));
  for (const { title, figures, tables = [], failed } of sections) {
    paragraphs.push(`## ${title}`);
    paragraphs.push(
      failed ? `Failed:\n\n\`\`\`\n${failed}\n\`\`\`` : markdown(columns(against), figures.map(figureRow)),
    );
    for (const { title, columns, rows, notes = [] } of tables) {
      paragraphs.push(`### ${title}`, markdown(columns, rows));
      if (notes.length > 0) paragraphs.push(notes.join("\n"));
    }
  }
  return `${paragraphs.join("\n\n")}\n`;
}

function aimRow({ figure, of, bound, rounds, reached }: ReturnType<typeof judge>[number], against: string): string[] {
  const compared = of === "÷ limit" ? `÷ ${figure.limit?.name}` : of.replace("commit", against);
  const verdict = reached === undefined ? "" : reached ? "yes" : "NO";
  return [figure.name.trim(), compared, bound, format(median(rounds)), spread(rounds), verdict];
}

const columns = (against = ""): string[] => [
  "figure",
  "value",
  "rounds",
  `at ${against}`,
  `÷ ${against}`,
  "rounds of ÷",
  "limit",
  "÷ limit",
  "note",
];

function figureRow(figure: Figure): string[] {
  const { name, rounds, base, unit, limit, note = "" } = figure;
  const toCommit = compared(figure, "÷ commit");
  return [
    name.replace(/^ {2}/, "… "),
    `${format(median(rounds))} ${unit}`,
    spread(rounds),
    base ? format(median(base)) : "",
    base && !Number.isNaN(median(toCommit)) ? format(median(toCommit)) : "",
    spread(toCommit),
    limit ? `${limit.name}: ${format(median(limit.rounds))}` : "",
    limit ? format(median(compared(figure, "÷ limit"))) : "",
    note,
  ];
}

/** The least and the most of the rounds, where there are several. */
const spread = (values: readonly number[]): string =>
  values.length < 2 ? "" : `${format(Math.min(...values))} to ${format(Math.max(...values))}`;

/** Three significant digits, without an exponent. */
function format(value: number): string {
  if (!Number.isFinite(value)) return "not measured";
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** A table without the columns in which nothing stands. */
function markdown(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const used = columns.map((_, i) => i === 0 || rows.some((row) => row[i] !== ""));
  const lines = [columns, columns.map(() => "---"), ...rows].map((row) => row.filter((_, i) => used[i]));
  return table(lines.map((row) => [...row.map((cell) => `| ${cell}`), "|"]));
}
