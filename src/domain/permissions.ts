/**
 * What API keys may do: report and cancel events, make every GET, change meters and whatever else a POST
 * changes, and act on the deployment (`POST /v1/edgemeter/*`).
 */
const PERMISSIONS = ["ingest", "read", "manage", "operate"] as const;
export type Permission = (typeof PERMISSIONS)[number];

/** What a key may do; stored as its words in one text. */
export type Permissions = ReadonlySet<Permission>;

/** What an unrestricted key (`sk_…`) may do. Operating a deployment is given to a key by name alone. */
export const UNRESTRICTED: Permissions = new Set(["ingest", "read", "manage"]);

/** What a key is made for, by the words of `npm run keys -- create --permission`. */
export const GRANTS = {
  ingest: new Set(["ingest"]),
  read: new Set(["read"]),
  operate: new Set(["read", "operate"]),
} as const satisfies Record<string, Permissions>;

/** What an API key's prefix tells. */
type Kind = { readonly livemode: boolean; readonly permissions: Permissions };

/** What a key's secret begins with: `rk` when it lacks what an unrestricted one may do. */
export const prefixOf = ({ livemode, permissions }: Kind): string =>
  `${permissions.isSupersetOf(UNRESTRICTED) ? "sk" : "rk"}_${livemode ? "live" : "test"}_`;

/** Permissions as they are stored. */
export const writePermissions = (permissions: Permissions): string => [...permissions].join(" ");

/** Stored permissions; nothing when one of them is not known to this version, or none is there. */
export function readPermissions(text: string): Permissions | undefined {
  const words = text.split(" ");
  return words.every(isPermission) ? new Set(words) : undefined;
}

const isPermission = (word: string): word is Permission => PERMISSIONS.some((permission) => permission === word);
