import { z } from "zod";
import type { Cloudflare } from "./cloudflare.ts";
import type { Region } from "./region.ts";

const Database = z.object({
  uuid: z.string(),
  name: z.string(),
  running_in_region: z.string().nullish(),
  read_replication: z.object({ mode: z.string() }).nullish(),
});

/** A D1 database of the account. */
export type Database = Readonly<z.output<typeof Database>>;

const Rows = z.array(z.object({ results: z.array(z.record(z.string(), z.unknown())) }));

export const findDatabase = (cloudflare: Cloudflare, name: string): Promise<Database | undefined> =>
  cloudflare.find(`/d1/database/${encodeURIComponent(name)}`, Database);

export const createDatabase = (cloudflare: Cloudflare, name: string, region: Region | undefined): Promise<Database> =>
  cloudflare.post("/d1/database", { name, ...(region && { primary_location_hint: region }) }, Database);

/** Whether Cloudflare keeps read replicas of a database, which keys and meters are looked up at. */
export const isReplicated = ({ read_replication }: Database): boolean => read_replication?.mode === "auto";

export const replicate = (cloudflare: Cloudflare, { uuid }: Database): Promise<Database> =>
  cloudflare.put(`/d1/database/${uuid}`, { read_replication: { mode: "auto" } }, Database);

/** Deletes a database with everything in it. */
export const deleteDatabase = (cloudflare: Cloudflare, { uuid }: Database): Promise<void> =>
  cloudflare.remove(`/d1/database/${uuid}`);

/**
 * Runs statements, and gives the rows of each. Not by an import, which would close the database to
 * everybody else for as long as it takes.
 */
export async function query(
  cloudflare: Cloudflare,
  { uuid }: Database,
  sql: string,
): Promise<readonly (readonly Readonly<Record<string, unknown>>[])[]> {
  const answered = await cloudflare.post(`/d1/database/${uuid}/query`, { sql }, Rows);
  return answered.map(({ results }) => results);
}
