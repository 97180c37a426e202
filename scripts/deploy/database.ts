import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { RunSql } from "../sql.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { regionFor } from "./region.ts";
import type { Target } from "./target.ts";

const Database = z.object({
  uuid: z.string(),
  name: z.string(),
  running_in_region: z.string().nullish(),
  jurisdiction: z.string().nullish(),
  read_replication: z.object({ mode: z.string() }).nullish(),
});

/** A D1 database of the account. */
export type Database = Readonly<z.output<typeof Database>>;

const Rows = z.array(z.object({ results: z.array(z.record(z.string(), z.unknown())) }));

export const findDatabase = (cloudflare: Cloudflare, name: string): Promise<Database | undefined> =>
  cloudflare.find(`/d1/database/${encodeURIComponent(name)}`, Database);

/**
 * Makes a database where a target's are to be, or in the region of another one (as Cloudflare names it) when the
 * target leaves that open. Says where it is.
 */
export async function createDatabase(
  cloudflare: Cloudflare,
  { locationHint, jurisdiction }: Target,
  name: string,
  beside?: string | null,
): Promise<Database> {
  const region = regionFor(locationHint, beside);
  // With a jurisdiction Cloudflare ignores the hint.
  const place = jurisdiction === "" ? region && { primary_location_hint: region } : { jurisdiction };
  const created = await cloudflare.post("/d1/database", { name, ...place }, Database);
  // What is answered to the creation need not say where that was.
  return (await findDatabase(cloudflare, created.uuid)) ?? created;
}

/** Whether Cloudflare keeps read replicas of a database, which keys and meters are looked up at. */
export const isReplicated = ({ read_replication }: Database): boolean => read_replication?.mode === "auto";

export const replicate = (cloudflare: Cloudflare, { uuid }: Database): Promise<Database> =>
  cloudflare.put(`/d1/database/${uuid}`, { read_replication: { mode: "auto" } }, Database);

/** Deletes a database with everything in it. */
export const deleteDatabase = (cloudflare: Cloudflare, { uuid }: Database): Promise<void> =>
  cloudflare.remove(`/d1/database/${uuid}`);

/**
 * Runs statements on a database of the account. Not by an import, which would close the database to everybody else
 * for as long as it takes.
 */
export const runOn =
  (cloudflare: Cloudflare, { uuid }: Pick<Database, "uuid">): RunSql =>
  async (sql) => {
    const answered = await cloudflare.post(`/d1/database/${uuid}/query`, { sql }, Rows);
    return answered.map(({ results }) => results);
  };

/** Whether a database has `jsonb_each`, which is in no list of what D1 has; see src/aggregate/json-each.ts. */
export async function hasJsonbEach(run: RunSql): Promise<boolean> {
  try {
    await run("SELECT key FROM jsonb_each('[1]')");
    return true;
  } catch (error) {
    // Its own name is in what the database says of a function that it has not, and in no other failure.
    if (error instanceof CommandError && error.message.includes("jsonb_each")) return false;
    throw error;
  }
}

const Records = z.array(z.object({ name: z.string(), value: z.string() }));

/** What the control database records of a deployment, by name. */
export async function recordedIn(run: RunSql): Promise<ReadonlyMap<string, string>> {
  const [rows = []] = await run("SELECT name, value FROM deployment");
  return new Map(Records.parse(rows).map(({ name, value }) => [name, value]));
}
