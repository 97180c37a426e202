import {
  bringSlicesForward,
  type Holding,
  isAboutShape,
  slicesHolding,
  sliceWithoutTable,
} from "../aggregate/sql/slices.ts";
import { eventsDatabase } from "../catalog/databases.ts";
import { currentPlacement } from "../catalog/deployment.ts";
import { looksLikeAlias } from "../domain/alias.ts";
import type { MeteringError } from "../domain/errors.ts";
import type { Meter } from "../domain/meter.ts";
import { allPlaces, databasesOf, ONE_DATABASE, type Placement } from "../domain/placement.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { TimeRange } from "../domain/window.ts";
import type { Env } from "../env.ts";

/**
 * The databases that may hold what a customer used on a meter: as many as its mode grew past it, at most; all of the
 * mode's without a customer. What each has is a part of the truth, so all of them must answer. Yields
 * `databases_changed`.
 */
export function sourcesOf(
  env: Env,
  { id, livemode }: Meter,
  customer: string | undefined,
): Promise<Result<D1Database[], MeteringError>> {
  return sourcesAt(env, livemode, (placement) => placesOf(placement, id, customer));
}

/** The places of those databases. */
export function placesOf(placement: Placement, meterId: string, customer: string | undefined): number[] {
  // What an alias has stayed where the erased customer's usage is, and who that was is not known any more.
  const isAnywhere = customer === undefined || looksLikeAlias(customer);
  return isAnywhere ? allPlaces(placement) : databasesOf(meterId, customer, placement);
}

/** All databases that may hold usage of a mode. Yields `databases_changed`. */
export const allSources = (env: Env, livemode: boolean): Promise<Result<D1Database[], MeteringError>> =>
  sourcesAt(env, livemode, allPlaces);

async function sourcesAt(
  env: Env,
  livemode: boolean,
  placesIn: (placement: Placement) => number[],
): Promise<Result<D1Database[], MeteringError>> {
  const placement = livemode ? await currentPlacement(env) : ok(ONE_DATABASE);
  if (!placement.ok) return err({ reason: "databases_changed", recorded: placement.error });
  return ok(placesIn(placement.value).map((place) => eventsDatabase(env, livemode, place)));
}

/**
 * Reads from the slices of a database that may hold timestamps of some ranges; once more, when one of them went or was
 * found too old meanwhile.
 */
export async function withSlices<T>(
  db: D1Database,
  ranges: readonly TimeRange[],
  read: (slices: readonly Holding[]) => Promise<T>,
): Promise<T> {
  try {
    return await read(await slicesHolding(db, ranges));
  } catch (error) {
    if (isAboutShape(error)) await bringSlicesForward(db);
    else if (sliceWithoutTable(error) === undefined) throw error;
    return read(await slicesHolding(db, ranges));
  }
}

/** Reads once more when events were gone: an erasure replaces files, so one that the manifest named may be gone since. */
export async function twiceIfDeleted<T>(
  read: () => Promise<Result<T, MeteringError>>,
): Promise<Result<T, MeteringError>> {
  const first = await read();
  return first.ok || first.error.reason !== "archived_range_deleted" ? first : read();
}
