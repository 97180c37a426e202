/** Where D1 can be asked to make a database, and R2 a bucket. */
export type Region = "wnam" | "enam" | "weur" | "eeur" | "apac" | "oc";

/** Durable Objects know more places than D1; these take the nearest. */
const NEAREST: Readonly<Record<string, Region>> = {
  wnam: "wnam",
  enam: "enam",
  sam: "enam",
  weur: "weur",
  eeur: "eeur",
  apac: "apac",
  oc: "oc",
  afr: "weur",
  me: "eeur",
};

/** Where Durable Objects can be asked to be made. */
export const HINTS: readonly string[] = Object.keys(NEAREST);

/** Where databases and the bucket belong, for a LOCATION_HINT: beside the locks and the logs. */
export const regionOf = (locationHint: string): Region | undefined => NEAREST[locationHint];

/** The same; without a hint, the region of a database as Cloudflare names it ("WEUR"). */
export const regionFor = (locationHint: string, beside: string | null | undefined): Region | undefined =>
  regionOf(locationHint || (beside ?? "").toLowerCase());

/** Where locks and logs belong, beside a database in a region as Cloudflare names it ("WEUR"); "" when that is unknown. */
export const hintBeside = (region: string | null | undefined): Region | "" =>
  NEAREST[region?.toLowerCase() ?? ""] ?? "";
