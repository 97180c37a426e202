// `npm run audit -- --archive`: files against the manifest, and what files and slices hold against the sums.
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { auditArchive } from "../../../scripts/operate/audit-archive.ts";
import { tableOf } from "../../../src/aggregate/sql/events.ts";
import { filesOf } from "../../../src/archive/manifest.ts";
import {
  archivedDays,
  archivedStory,
  BEGIN,
  CLIENT,
  NEXT,
  OLD,
  restore,
  SLICE,
  usageIn,
} from "../archive/restore-support.ts";
import { empty } from "../archive/support.ts";

const db = env.EVENTS_0;

beforeEach(async () => {
  await empty(db);
  await empty(env.EVENTS_1);
  vi.useFakeTimers({ toFake: ["Date"], now: BEGIN });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** What the command says of all days that there are files of, and whether it is content. */
async function audited(): Promise<{ isContent: boolean; lines: string[] }> {
  const lines: string[] = [];
  const isContent = await auditArchive(CLIENT, await archivedDays(), (line) => lines.push(...line.split("\n")));
  return { isContent, lines };
}

const run = (sql: string) => () => db.prepare(sql).run();

const aFile = async () => (await filesOf(db, SLICE))[0]?.key ?? "";

/** What is damaged, and what is said of it. */
const DAMAGES: Readonly<Record<string, { damage: () => Promise<unknown>; says: RegExp }>> = {
  "a file whose bytes are others": {
    damage: async () => {
      const key = await aFile();
      const bytes = new Uint8Array((await (await env.ARCHIVE.get(key))?.arrayBuffer()) ?? new ArrayBuffer());
      bytes[bytes.length >> 1] = 1 ^ (bytes[bytes.length >> 1] ?? 0);
      await env.ARCHIVE.put(key, bytes);
    },
    says: /parquet: its bytes are others/,
  },
  "a file that is gone": {
    damage: async () => env.ARCHIVE.delete(await aFile()),
    says: /parquet: it is not there/,
  },
  "a file that the manifest says other things of": {
    damage: run("UPDATE archive_files SET checksum = '0123456789abcdef' WHERE file = 0"),
    says: /parquet: it is not what the manifest says/,
  },
  "a file that the manifest does not name": {
    damage: run(`DELETE FROM archive_files WHERE slice = ${SLICE} AND file = 0`),
    says: /Z: events make .*; sums say/,
  },
  "a sum that says more": {
    damage: run("UPDATE sums SET sum_low = sum_low + 1 WHERE series = (SELECT MIN(series) FROM sums WHERE count > 0)"),
    says: /Z: events make .*; sums say/,
  },
  "sums of two series that are exchanged": {
    damage: run(
      `UPDATE sums SET sum_low = sum_low + IIF(series = (SELECT MIN(series) FROM sums), 1, -1)
       WHERE series IN (SELECT DISTINCT series FROM sums ORDER BY series LIMIT 2)
         AND quarter_hour = (SELECT MAX(quarter_hour) FROM sums)`,
    ),
    says: /, of other series$/,
  },
  "a survivor that is not the greatest": {
    damage: run("UPDATE survivors SET rank = rank - 1, id = '-' WHERE id = (SELECT MAX(id) FROM survivors)"),
    says: /^EVENTS_0 {2}a survivor is not the greatest/,
  },
  "a survivor with another value": {
    damage: run("UPDATE survivors SET value = value + 1 WHERE id = (SELECT MAX(id) FROM survivors)"),
    says: /Z: events make .* survivors; sums say/,
  },
  "an event of a slice that has its table": {
    damage: run(`DELETE FROM ${tableOf(NEXT)} WHERE id = (SELECT MAX(id) FROM ${tableOf(NEXT)})`),
    says: /Z: events make .*; sums say/,
  },
};

describe("an audit of the archive", () => {
  it("has nothing to say of files and slices that are right, whose events it counts once", async () => {
    const { entries } = await archivedStory(OLD);
    await restore({ slice: String(NEXT), database: "EVENTS_0" });
    const { isContent, lines } = await audited();
    const counted = (await usageIn(db)).sums.reduce((sum: number, row) => sum + (row as { count: number }).count, 0);
    expect(counted).toBeGreaterThan(entries.length / 5);
    expect(lines.at(-1)).toBe("no difference");
    expect(lines.find((line) => line.startsWith("EVENTS_0"))?.split(/ +/)).toEqual([
      ...[
        "EVENTS_0",
        String((await filesOf(db, SLICE)).length + (await filesOf(db, NEXT)).length),
        String(counted),
        "0",
      ],
    ]);
    expect(isContent).toBe(true);
  });

  it.each(Object.entries(DAMAGES))("finds %s, and changes nothing", async (_, { damage, says }) => {
    await archivedStory(OLD);
    await restore({ slice: String(NEXT), database: "EVENTS_0" });
    expect((await audited()).isContent).toBe(true);
    await damage();
    const kept = async () =>
      db.batch(["sums", "survivors", "slices", "archive_files"].map((name) => db.prepare(`SELECT * FROM ${name}`)));
    const before = (await kept()).map(({ results }) => results);
    const { isContent, lines } = await audited();
    expect(lines).toContainEqual(expect.stringMatching(says));
    expect(isContent).toBe(false);
    expect((await kept()).map(({ results }) => results)).toEqual(before);
  });
});
