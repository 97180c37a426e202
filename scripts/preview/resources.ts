// What a branch's preview has on the account: making sure that it is the preview's own, and deleting it.
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Cloudflare } from "../deploy/cloudflare.ts";
import { createDatabase, type Database, deleteDatabase, findDatabase, runOn } from "../deploy/database.ts";
import { consumerOf, deleteConsumer, deleteQueue, findQueue } from "../deploy/queue.ts";
import type { Target } from "../deploy/target.ts";
import { deleteWorker, findVars } from "../deploy/worker.ts";
import { type RunSql, sqlText } from "../sql.ts";
import { MARK } from "./config.ts";
import type { PreviewNames } from "./names.ts";

/** What allows previews on the account of production: the environment variable PREVIEWS. */
const THIS_ACCOUNT = "this-account";

/**
 * Throws a CommandError when the account has production, whose name is `worker`, and nothing says that
 * previews may be there too: what deploys a branch can change everything else on its account.
 */
export async function allowPreviews(
  cloudflare: Cloudflare,
  worker: string,
  previews: string | undefined,
): Promise<void> {
  if (previews === THIS_ACCOUNT || (await findVars(cloudflare, worker)) === undefined) return;
  throw new CommandError(
    `account ${cloudflare.account} has production (${worker}), which a preview's token can change: use an account of its own, or set PREVIEWS=${THIS_ACCOUNT}.`,
  );
}

/**
 * Makes sure that every name of a preview is free or the preview's own, before anything is made, and
 * notes in its control database what will be. Throws a CommandError that names what is somebody else's.
 */
export async function claim(cloudflare: Cloudflare, target: Target, branch: string): Promise<Database> {
  const [{ name }, ...others] = target.databases;
  const resources = [
    ...target.queues.map((queue) => ({ kind: "queue" as const, name: queue })),
    ...others.map((database) => ({ kind: "database" as const, name: database.name })),
  ];
  const [found, existing] = await Promise.all([
    findDatabase(cloudflare, name),
    Promise.all(resources.map(async (resource) => ({ ...resource, exists: await isThere(cloudflare, resource) }))),
    isPreviewWorker(cloudflare, target.worker, branch),
  ]);
  const ledger = found && (await readLedger(runOn(cloudflare, found), name, branch));
  const isNoted = ({ kind, name: noted }: Resource): boolean =>
    ledger?.some((resource) => resource.kind === kind && resource.name === noted) ?? false;
  for (const resource of existing) {
    if (!resource.exists || isNoted(resource)) continue;
    throw new CommandError(`the ${resource.kind} ${resource.name} was not made by a preview: it is left alone.`);
  }
  const control = found ?? (await createDatabase(cloudflare, target, name));
  const unnoted = resources.filter((resource) => !isNoted(resource));
  if (ledger === undefined || unnoted.length > 0) await writeLedger(runOn(cloudflare, control), branch, unnoted);
  return control;
}

const isThere = async (cloudflare: Cloudflare, { kind, name }: Resource): Promise<boolean> =>
  (kind === "queue" ? await findQueue(cloudflare, name) : await findDatabase(cloudflare, name)) !== undefined;

/** Throws a CommandError when there is a Worker of the name that is no preview of the branch. Says whether there is one. */
async function isPreviewWorker(cloudflare: Cloudflare, worker: string, branch: string): Promise<boolean> {
  const vars = await findVars(cloudflare, worker);
  if (vars === undefined) return false;
  if (vars.get(MARK) === branch) return true;
  throw new CommandError(`the Worker ${worker} is no preview of '${branch}': it is left alone.`);
}

/**
 * Deletes a preview: its queues and events databases, as its control database notes them, its Worker, and the control
 * database last, so that what a failure leaves over is found by the next run. Everything is looked at before anything
 * is deleted. Throws a CommandError when anything of the names is not the preview's.
 */
export async function removePreview(
  cloudflare: Cloudflare,
  { branch, worker }: PreviewNames,
  log: (line: string) => void,
): Promise<void> {
  const [control, hasWorker] = await Promise.all([
    findDatabase(cloudflare, worker),
    isPreviewWorker(cloudflare, worker, branch),
  ]);
  const ledger = (control && (await readLedger(runOn(cloudflare, control), worker, branch))) ?? [];
  const found = <T>(kind: Resource["kind"], find: (cloudflare: Cloudflare, name: string) => Promise<T>) =>
    Promise.all(ledger.filter((noted) => noted.kind === kind).map(({ name }) => find(cloudflare, name)));
  const queues = (await found("queue", findQueue)).filter((queue) => queue !== undefined);
  const databases = [...(await found("database", findDatabase)), control].filter((database) => database !== undefined);

  // A queue's consumer holds the Worker, and the Worker's binding the queue.
  for (const queue of queues) {
    const consumer = consumerOf(queue, worker);
    if (consumer !== undefined) await deleteConsumer(cloudflare, queue, consumer.consumer_id);
  }
  if (hasWorker) {
    await deleteWorker(cloudflare, worker);
    log(`Worker    ${worker} is deleted`);
  }
  for (const queue of queues) {
    await deleteQueue(cloudflare, queue);
    log(`queue     ${queue.queue_name} is deleted`);
  }
  for (const database of databases) {
    await deleteDatabase(cloudflare, database);
    log(`database  ${database.name} is deleted`);
  }
  if (control === undefined && !hasWorker) log("There is nothing to delete.");
}

// A preview's control database says whose it is, and what else was made for it: queues can carry no mark of
// their own. It is the first thing that is made and the last that is deleted, so whatever fails in
// between is finished by the next run.

const LEDGER = "preview_resources";

const CREATE = `CREATE TABLE IF NOT EXISTS ${LEDGER} (kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID`;

/** The tables of a database, without SQLite's and D1's own. */
const TABLES =
  "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_cf\\_%' ESCAPE '\\'";

const Rows = z.array(z.object({ kind: z.enum(["branch", "queue", "database"]), name: z.string() }));

/** Something that was made for a preview, or was about to be. */
type Resource = z.output<typeof Rows>[number];

/**
 * What the control database `name` says of a branch's preview; `undefined` when it is still empty, as it is after a
 * run that failed right after making it. Throws a CommandError when it is anybody else's.
 */
async function readLedger(run: RunSql, name: string, branch: string): Promise<Resource[] | undefined> {
  const [tables = []] = await run(TABLES);
  if (tables.length === 0) return undefined;
  const isMarked = tables.some((table) => table.name === LEDGER);
  const [rows = []] = isMarked ? await run(`SELECT kind, name FROM ${LEDGER}`) : [];
  const noted = Rows.parse(rows);
  if (noted.length === 0 && isMarked && tables.length === 1) return undefined;
  if (noted.some((row) => row.kind === "branch" && row.name === branch)) return noted;
  throw new CommandError(`the database ${name} is no preview of '${branch}': it is left alone.`);
}

/** Notes whose a control database is, and what is about to be made. */
async function writeLedger(run: RunSql, branch: string, resources: readonly Resource[]): Promise<void> {
  const rows = [{ kind: "branch", name: branch }, ...resources];
  const values = rows.map(({ kind, name }) => `(${sqlText(kind)}, ${sqlText(name)})`).join(", ");
  await run(`${CREATE};\nINSERT INTO ${LEDGER} (kind, name) VALUES ${values} ON CONFLICT DO NOTHING;`);
}
