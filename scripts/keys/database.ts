import { CommandError } from "../command-error.ts";
import { connect } from "../deploy/cloudflare.ts";
import { findDatabase, runOn } from "../deploy/database.ts";
import { targetOf } from "../deploy/target.ts";
import { appliedTo, CONTROL, migrate, migrationsOf } from "../migrations.ts";
import type { RunSql } from "../sql.ts";
import { stateDir } from "../wrangler.ts";

/** Which keys: the local server's, or those of a deployment ("" for wrangler.toml's top level). */
export type Where = "local" | { readonly env: string };

/**
 * Gives `use` the database that holds the keys; one without tables is given them first. Throws a CommandError when
 * there is no such database, and with what refused a statement.
 */
export async function withKeys<T>(where: Where, use: (run: RunSql) => Promise<T>): Promise<T> {
  const useOnce = async (run: RunSql): Promise<T> => {
    if ((await appliedTo(run)).length === 0) await migrate(run, await migrationsOf(CONTROL));
    return use(run);
  };
  if (where === "local") {
    // It takes most of a second to load, and not every command gets here.
    const { withLocalDatabases } = await import("../local.ts");
    return withLocalDatabases(stateDir, ({ run }) => useOnce(run(CONTROL)));
  }
  const { account, databases } = await targetOf(where.env);
  const cloudflare = await connect(account);
  const [{ name }] = databases;
  const found = await findDatabase(cloudflare, name);
  if (found === undefined) throw new CommandError(`there is no database ${name} yet; npm run deploy makes it.`);
  return useOnce(runOn(cloudflare, found));
}
