// `npm run import` in its default mode, as a user runs it, into a server that `npm start` started.
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { parse } from "csv-parse/sync";
import { npmRun } from "../../test/support/node/npm-run.ts";
import { newStateDir, removeStateDir, startServer } from "../../test/support/node/server.ts";
import { type Bench, figure, inTurn, type Measured } from "../results.ts";
import { scratch } from "../sides.ts";

/** As a published trace of an hour's requests to a language model has, spread over so many customers. */
const ROWS = 8_819;
const CUSTOMERS = 50;

/** Of so many rows one has no number, and one is older than events may be. */
const TWO_REJECTED_OF = 100;
const REASON = /value|past/;

const START = Date.UTC(2023, 10, 16, 18);
const OLD = Date.UTC(2023, 9, 1);

const FILE = path.join(scratch, "usage.csv");

export async function measureImport(bench: Bench): Promise<Measured> {
  const rows = Array.from({ length: ROWS }, (_, n) => rowOf(n));
  await writeFile(FILE, ["TIMESTAMP,ContextTokens,GeneratedTokens", ...rows].join("\n"));
  const stateDir = await newStateDir();
  const server = await startServer(stateDir);
  try {
    const taken = await inTurn(bench, {}, { import: () => imported(server.url) });
    const note = `${ROWS} rows, ${taken("import", "rejected").rounds[0]} of them rejected with their reasons; in test mode`;
    return { figures: [figure("import", "npm run import, default mode", "rows/s", taken("import", "rate"), { note })] };
  } finally {
    await server.stop();
    await removeStateDir(stateDir);
  }
}

function rowOf(n: number): string {
  const place = n % TWO_REJECTED_OF;
  const time = place === 50 ? OLD : START + Math.floor((n * 3_600_000) / ROWS);
  return `${new Date(time).toISOString()},${place === 75 ? "none" : 1 + ((n * 7_919) % 8_000)},${1 + (n % 700)}`;
}

let imports = 0;

/** Imports the file as from a new source, so that no row is a duplicate. Throws unless every row is accounted for. */
async function imported(url: string) {
  const columns = ["--event-name", "tokens", "--value-column", "ContextTokens", "--timestamp-column", "TIMESTAMP"];
  const others = ["--spread-customers", `${CUSTOMERS}`, "--shift-to-now", "--create-meter", "sum"];
  const args = [FILE, ...columns, ...others, "--source", `import-${imports++}`, "--url", url];
  const { stdout, stderr } = await npmRun("import", args);
  const summary = /accepted (\d+) +duplicate 0 +rejected (\d+) .*\((\d+)\/s\)/.exec(stdout)?.slice(1).map(Number);
  const [accepted = 0, rejected = 0, rate = 0] = summary ?? [];
  const refused = parse<{ error: string }>(await readFile(`${FILE}.rejected.csv`), { columns: true });
  const hasReasons = refused.length === rejected && refused.every(({ error }) => REASON.test(error));
  if (accepted + rejected !== ROWS || rejected === 0 || !hasReasons)
    throw new Error(`an import ended with ${stdout}${stderr}`);
  return { rate, rejected };
}
