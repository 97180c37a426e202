import type { KeyNames } from "../catalog/api-keys.ts";
import type { EventsDatabase } from "../catalog/databases.ts";
import type { Env } from "../env.ts";

/** What the archive of one database works with. */
export type Work = EventsDatabase & {
  readonly env: Env;
  readonly livemode: boolean;
  /** The database's place among those of its mode. */
  readonly place: number;
  /** Nothing for test mode, whose events are dropped without an archive. */
  readonly bucket: R2Bucket | undefined;
  readonly keys: () => Promise<KeyNames>;
  /** What is awaited between parts of long work, so that others of the isolate get their turns. */
  readonly pause: () => Promise<void>;
};

/** The same of a database that has an archive. */
export type ArchiveWork = Work & { readonly bucket: R2Bucket };
