import { env } from "cloudflare:workers";
import { gunzipSync } from "node:zlib";
import { parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { eraseStep } from "../../../src/archive/erase.ts";
import { resultOf } from "../../support/builders.ts";

/** Takes every step of a customer's erasure; the alias. */
export async function erase(customer: string, livemode = true): Promise<string> {
  for (let cursor: string | undefined; ; ) {
    const { alias, next } = resultOf(await eraseStep(env, { livemode, customer, cursor }, Date.now()));
    if (next === undefined) return alias;
    cursor = next;
  }
}

/** What stands in a database's tables, and in the control database's responses: text as it is, bytes as text and in hex. */
async function storedTexts(db: D1Database): Promise<string[]> {
  const { results } = await db
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '_cf*' AND name NOT GLOB 'sqlite*'")
    .all<{ name: string }>();
  const rows = await Promise.all([
    ...results.map(({ name }) => db.prepare(`SELECT * FROM ${name}`).raw()),
    env.DB.prepare("SELECT * FROM idempotency_keys").raw(),
  ]);
  return rows.flat(2).flatMap((value) => {
    if (!Array.isArray(value)) return [String(value)];
    const bytes = Buffer.from(value);
    return [bytes.toString("latin1"), bytes.toString("hex")];
  });
}

/** The bytes of the archive's objects, and each of their columns inflated. */
async function archivedTexts(): Promise<string[]> {
  const texts: string[] = [];
  const { objects } = await env.ARCHIVE.list();
  for (const { key } of objects) {
    const bytes = (await (await env.ARCHIVE.get(key))?.arrayBuffer()) ?? new ArrayBuffer();
    texts.push(Buffer.from(bytes).toString("latin1"));
    await parquetReadObjects({
      file: bytes,
      metadata: await parquetMetadataAsync(bytes),
      compressors: {
        GZIP: (packed) => {
          const inflated = gunzipSync(packed);
          texts.push(inflated.toString("latin1"));
          return inflated;
        },
      },
    });
  }
  return texts;
}

/** Which of some words stand in a database, or in an object of the archive. */
export async function tracesOf(db: D1Database, ...words: string[]): Promise<string[]> {
  const texts = [...(await storedTexts(db)), ...(await archivedTexts())];
  return words.filter((word) => texts.some((text) => text.includes(word)));
}
