/**
 * What an API key may do: everything (`sk_…`), or as a restricted key (`rk_…`) only report and cancel
 * events, or only read.
 */
export type Permission = "all" | "ingest" | "read";

/** What an API key's prefix tells. */
type Kind = { readonly livemode: boolean; readonly permission: Permission };

/** What a key's secret begins with. */
export const prefixOf = ({ livemode, permission }: Kind): string =>
  `${permission === "all" ? "sk" : "rk"}_${livemode ? "live" : "test"}_`;

/** Whether a key may make a call that needs `needed`. */
export const permits = ({ permission }: Pick<Kind, "permission">, needed: Permission): boolean =>
  permission === "all" || permission === needed;
