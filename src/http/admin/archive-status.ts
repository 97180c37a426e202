// What the pipeline says of a database's archive.

import * as z from "zod";
import type { ArchivedDatabase } from "../../archive/archive.ts";
import { hindranceBy, isOver, overAfter, type Shard } from "../../archive/seal.ts";
import type { ArchiveStatus } from "../../archive/status.ts";
import { HOUR_MS } from "../../domain/window.ts";
import type { Env } from "../../env.ts";
import { toUnix } from "../fields.ts";

const OldestOpen = z.object({
  begins: z.int().meta({ description: "When the first event of the slice can have come." }),
  over: z.int().meta({ description: "From when on its events can no longer be cancelled, and it can be sealed." }),
  kept_open_by: z
    .enum(["no_bucket", "not_over", "shard_not_reachable", "shard_not_confirmed", "dead_letters"])
    .nullable()
    .meta({ description: "Null when nothing does: it is sealed within minutes." }),
  shard: z.string().nullable().meta({ description: "Which keeps it open." }),
});

export const ArchiveObject = z
  .object({
    status: z.enum(["archiving", "no_bucket", "not_archived"]).meta({
      description:
        "no_bucket: ARCHIVE is not bound, all events stay in the database, and it is full in days_left. not_archived: test mode's events are dropped when they are old; their sums stay.",
    }),
    archived_through: z.int().nullable().meta({
      description: "All that was received before it is in files that were compared with the database, or was dropped.",
    }),
    last_check: z.int().nullable().meta({ description: "When a slice was last found to equal its files." }),
    files: z.int(),
    bytes: z.int().meta({ description: "Of the files." }),
    failed_checks: z.array(z.int()).meta({
      description: "When the slices begin whose files differ from them; they stay in the database.",
    }),
    oldest_open: OldestOpen.nullable(),
  })
  .meta({ id: "Archive" });

/** `shards`: of the database's mode. `now` in ms. */
export function archiveToWire(
  env: Env,
  { livemode, place }: Pick<ArchivedDatabase, "livemode" | "place">,
  found: ArchiveStatus,
  shards: readonly Shard[],
  now: number,
): z.output<typeof ArchiveObject> {
  const status = livemode ? (env.ARCHIVE === undefined ? "no_bucket" : "archiving") : "not_archived";
  const { oldestOpen, archivedThrough, lastCheck } = found;
  return {
    status,
    archived_through: archivedThrough === undefined ? null : toUnix(archivedThrough),
    last_check: lastCheck === undefined ? null : toUnix(lastCheck),
    files: found.files,
    bytes: found.bytes,
    failed_checks: found.failed.map((slice) => toUnix(slice * HOUR_MS)),
    oldest_open: oldestOpen === undefined ? null : openToWire(oldestOpen, status === "no_bucket", shards, place, now),
  };
}

function openToWire(
  { slice, awaitsLetter }: NonNullable<ArchiveStatus["oldestOpen"]>,
  isWithoutBucket: boolean,
  shards: readonly Shard[],
  place: number,
  now: number,
): z.output<typeof OldestOpen> {
  const times = { begins: toUnix(slice * HOUR_MS), over: toUnix(overAfter(slice)) };
  if (isWithoutBucket) return { ...times, kept_open_by: "no_bucket", shard: null };
  if (!isOver(slice, now)) return { ...times, kept_open_by: "not_over", shard: null };
  const hindrance = hindranceBy(shards, place, slice);
  if (hindrance !== undefined) return { ...times, kept_open_by: hindrance.reason, shard: hindrance.shard };
  return { ...times, kept_open_by: awaitsLetter ? "dead_letters" : null, shard: null };
}
