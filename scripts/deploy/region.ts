/** Where D1 can be asked to make a database. */
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

/** Where the database belongs, for a LOCATION_HINT: beside the locks and the logs. */
export const regionOf = (locationHint: string): Region | undefined => NEAREST[locationHint];

/** Where locks and logs belong, beside a database in a region as Cloudflare names it ("WEUR"); "" when that is unknown. */
export const hintBeside = (region: string | null | undefined): Region | "" =>
  NEAREST[region?.toLowerCase() ?? ""] ?? "";
