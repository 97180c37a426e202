// The numbered migrations: what they add up to, and that they are applied as wrangler applies them.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { growTo } from "../../scripts/deploy/grow.ts";
import { READ_SIZES } from "../../scripts/growth.ts";
import { type LocalDatabases, prepareLocal, withLocalDatabases } from "../../scripts/local.ts";
import { appliedTo, CONTROL, migrate, migrationsOf } from "../../scripts/migrations.ts";
import type { RunSql } from "../../scripts/sql.ts";
import { root, runWrangler } from "../../scripts/wrangler.ts";
import { readSteps } from "../../src/catalog/deployment.ts";

const EVENTS = "EVENTS_0";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "edgemeter-migrations-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The rows of one statement. */
const rowsOf = async (run: RunSql, sql: string) => (await run(sql))[0];

describe("schema.sql", async () => {
  const [, control = "", events = ""] = (await readFile(path.join(root, "schema.sql"), "utf8")).split(/^-- ======== /m);

  /** Tables with their columns, keys and indexes, as SQLite understands them; no comments. */
  function shapeOf(script: string): object {
    const sql = new DatabaseSync(":memory:");
    sql.exec(script.replaceAll(/--.*$/gm, ""));
    const all = (query: string, ...names: string[]) => sql.prepare(query).all(...names);
    const tables = all("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main' ORDER BY name");
    return tables.map(({ name, ...kind }) => ({
      ...{ name, ...kind },
      columns: all(
        'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?) ORDER BY name',
        String(name),
      ),
      indexes: all(
        'SELECT i.name, i."unique", i.origin, i.partial, c.seqno, c.name AS part, c.desc, c.coll FROM pragma_index_list(?) i, pragma_index_xinfo(i.name) c ORDER BY i.name, c.seqno',
        String(name),
      ),
      conditions: all("SELECT sql FROM sqlite_master WHERE tbl_name = ? ORDER BY name", String(name)).flatMap(
        ({ sql: text }) => String(text).match(/\b(WHERE|CHECK|REFERENCES|COLLATE)\b[^,\n]*/gi) ?? [],
      ),
    }));
  }

  test.each([
    [CONTROL, control],
    [EVENTS, events],
  ])("is what the migrations of %s add up to", async (binding, part) => {
    const migrations = await migrationsOf(binding);
    expect(shapeOf(migrations.map(({ sql }) => sql).join("\n"))).toEqual(shapeOf(`-- ${part}`));
  });
});

/** What a database is made of, but for spaces, comments and quotes. */
async function objectsOf(run: RunSql): Promise<object> {
  const objects = await rowsOf(
    run,
    "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\' ORDER BY name",
  );
  return {
    objects: objects?.map(({ type, name, sql }) => ({ type, name, sql: plain(sql) })),
    applied: await appliedTo(run),
  };
}

const plain = (sql: unknown): string => String(sql).replaceAll(/--.*$|["\s;]/gm, "");

test("wrangler finds nothing left to apply, and by itself comes to the same", async () => {
  const [ours, wranglers] = [path.join(folder, "ours"), path.join(folder, "wranglers")];
  await prepareLocal(ours);
  for (const binding of [CONTROL, EVENTS]) {
    const wrangler = (command: string, stateDir: string) =>
      runWrangler(["d1", "migrations", command, binding, "--local", "--persist-to", stateDir]);
    const [listed, applied] = await Promise.all([wrangler("list", ours), wrangler("apply", wranglers)]);
    expect(listed).toMatchObject({ ok: true, stdout: expect.stringContaining("No migrations to apply") });
    expect(applied).toMatchObject({ ok: true });
    const found = (stateDir: string) => withLocalDatabases(stateDir, ({ run }) => objectsOf(run(binding)));
    expect(await found(wranglers)).toEqual(await found(ours));
  }
});

describe("a database with rows", () => {
  const stateDir = () => path.join(folder, "rows");
  const onEvents = <T>(use: (run: RunSql) => Promise<T>) =>
    withLocalDatabases(stateDir(), ({ run }) => use(run(EVENTS)));
  const first = migrationsOf(EVENTS);
  const SERIES = { id: 1, meter: "mtr_1", customer: "cus_1", dimensions: "" };

  /** A migration of the future. */
  const next = (sql: string) => ({ name: "9999_next.sql", file: "events/9999_next.sql", sql });

  beforeAll(() =>
    onEvents(async (run) => {
      await migrate(run, await first);
      await run("INSERT INTO series (id, meter, customer) VALUES (1, 'mtr_1', 'cus_1')");
    }),
  );

  test("is left as it was by a migration that fails", async () => {
    await onEvents(async (run) => {
      const before = await objectsOf(run);
      const broken = next("ALTER TABLE series ADD COLUMN note TEXT;\nINSERT INTO nowhere VALUES (1);");
      await expect(migrate(run, [...(await first), broken])).rejects.toThrow("no such table: nowhere");
      expect(await objectsOf(run)).toEqual(before);
    });
  });

  test("keeps them in a later migration, and takes older code after it", async () => {
    await onEvents(async (run) => {
      const later = next(
        "ALTER TABLE series ADD COLUMN note TEXT DEFAULT 'none';\nCREATE INDEX notes ON series (note);",
      );
      await migrate(run, [...(await first), later]);
      expect(await rowsOf(run, "SELECT * FROM series")).toEqual([{ ...SERIES, note: "none" }]);
      const after = await objectsOf(run);
      await migrate(run, await first);
      expect(await objectsOf(run)).toEqual(after);
      expect(await appliedTo(run)).toEqual([...(await first).map(({ name }) => name), "9999_next.sql"]);
    });
  });
});

test("a local server uses more databases and shards at once, and never fewer", async () => {
  const stateDir = path.join(folder, "grows");
  const [one, three] = [path.join(folder, "one.toml"), path.join(folder, "three.toml")];
  const config = await readFile(path.join(root, "wrangler.toml"), "utf8");
  await writeFile(one, config);
  await writeFile(three, config.replace(/^EVENT_LOG_SHARDS = "4"/m, 'EVENT_LOG_SHARDS = "8"'));
  await growTo(3, "", three);
  await prepareLocal(stateDir, one);
  await withLocalDatabases(stateDir, async ({ run }) => {
    expect(await rowsOf(run(CONTROL), READ_SIZES)).toEqual([]);
    // As the Worker does with its first event.
    const first = "('databases', '[[1,0]]'), ('event_log_shards', '[[4,0]]')";
    await run(CONTROL)(`INSERT INTO deployment (name, value) VALUES ${first}`);
  });
  await prepareLocal(stateDir, three);
  const use = async ({ run }: LocalDatabases): Promise<void> => {
    expect(await appliedTo(run("EVENTS_2"))).toEqual((await migrationsOf("EVENTS_2")).map(({ name }) => name));
    const rows = (await rowsOf(run(CONTROL), READ_SIZES)) ?? [];
    const recorded = rows.map(({ value }) => readSteps(String(value)));
    expect(recorded.map((steps) => steps.map(([count]) => count))).toEqual([
      [1, 3],
      [4, 8],
    ]);
    for (const steps of recorded) expect(steps.at(-1)?.[1]).toBeLessThanOrEqual(Date.now());
  };
  await withLocalDatabases(stateDir, use, three);
  await expect(prepareLocal(stateDir, one)).rejects.toThrow("events are in 3 databases, and wrangler.toml has 1");
});
