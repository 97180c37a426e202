import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { root } from "../wrangler.ts";
import { ARCHIVE, type Target } from "./target.ts";

/** What the account decides of a deployment, and the configuration only names or leaves open. */
export type Found = {
  readonly account: string;
  /** The ids of the databases, by binding. */
  readonly databases: ReadonlyMap<string, string>;
  /** Variables whose value was derived. */
  readonly vars: Readonly<Record<string, string>>;
};

const Part = z.looseObject({
  vars: z.record(z.string(), z.unknown()),
  d1_databases: z.array(z.looseObject({ binding: z.string() })),
  r2_buckets: z.array(z.looseObject({ binding: z.string() })).optional(),
});

/** Gives a file with a configuration, for as long as it is used, where wrangler can read it and git does not. */
export async function withConfigFile<T>(name: string, config: object, use: (file: string) => Promise<T>): Promise<T> {
  const folder = path.join(root, ".wrangler/deployments");
  await mkdir(folder, { recursive: true });
  const own = await mkdtemp(path.join(folder, `${name}-`));
  try {
    const file = path.join(own, "wrangler.json");
    await writeFile(file, JSON.stringify(config, null, 2));
    return await use(file);
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

/**
 * A target's configuration with what was found. wrangler alone would keep a Worker bound to the databases that it is
 * bound to, also when those are gone, and would take an account_id of the file before that of CLOUDFLARE_ACCOUNT_ID.
 */
export async function configWith(target: Target, found: Found): Promise<object> {
  const { experimental_readRawConfig: readRawConfig } = await import("wrangler");
  const raw = z
    .looseObject({ main: z.string(), env: z.record(z.string(), z.unknown()).optional() })
    .parse(readRawConfig({ config: target.file }, { hideWarnings: true }).rawConfig);
  const config = { ...raw, $schema: undefined, main: fromRoot(target, raw.main) };
  return target.env === ""
    ? { ...config, ...withFound(target, config, found) }
    : { ...config, env: { [target.env]: withFound(target, raw.env?.[target.env], found) } };
}

const fromRoot = ({ file }: Target, main: string): string => path.resolve(path.dirname(file), main);

/** The account stands in the part itself: an environment's own would come before the top level's. */
function withFound({ bucket }: Target, part: unknown, { account, databases, vars }: Found): object {
  const { d1_databases, r2_buckets = [], ...parsed } = Part.parse(part);
  const within = bucket?.jurisdiction ? { jurisdiction: bucket.jurisdiction } : {};
  return {
    ...parsed,
    account_id: account,
    vars: { ...parsed.vars, ...vars },
    d1_databases: d1_databases.map((block) => ({ ...block, database_id: databases.get(block.binding) })),
    r2_buckets: r2_buckets.map((block) => (block.binding === ARCHIVE ? { ...block, ...within } : block)),
  };
}
