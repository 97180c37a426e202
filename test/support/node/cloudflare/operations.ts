import { vi } from "vitest";
import { aDatabase, aQueue, aVersion, aWorker } from "./account.ts";
import type { FakeCloudflare } from "./server.ts";

/** The fake answers at once, or not at all (ms). */
const PATIENCE_MS = 2_000;

/**
 * What the commands do, in this process: many runs of them are quicker so. wrangler is a process of its own, whose
 * temporary files lie in `folder`. Sets the environment of this process.
 */
export async function operationsOn(cloudflare: FakeCloudflare, folder: string) {
  const env = { ...cloudflare.env, STATE_DIR: folder, TMPDIR: folder, CLOUDFLARE_ENV: "" };
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  // Not before: what runs wrangler reads the environment once.
  const { connect } = await import("../../../../scripts/deploy/cloudflare.ts");
  const { deploy } = await import("../../../../scripts/deploy/deploy.ts");
  const { configuredNames, targetOf } = await import("../../../../scripts/deploy/target.ts");
  const { MARK, withPreview } = await import("../../../../scripts/preview/config.ts");
  const { previewNames } = await import("../../../../scripts/preview/names.ts");
  const { claim, removePreview } = await import("../../../../scripts/preview/resources.ts");

  const api = await connect(undefined);
  const { worker, environments } = await configuredNames();
  type Target = Awaited<ReturnType<typeof targetOf>>;
  const run = async (target: Target, log: (line: string) => void = () => {}) =>
    deploy(await connect(target.account), target, {
      log,
      url: cloudflare.addressOf(target.worker),
      patienceMs: PATIENCE_MS,
      dryRun: false,
    });
  // Read once: somebody may be writing the sources meanwhile, and another fingerprint is another deployment.
  const production = await targetOf();
  const fingerprints = new Map<string, string>();
  const claimed = <T>(branch: string, use: (target: Target) => Promise<T>): Promise<T> =>
    withPreview(previewNames(branch, worker, environments), async (read) => {
      const target = { ...read, fingerprint: fingerprints.get(branch) ?? read.fingerprint };
      fingerprints.set(branch, target.fingerprint);
      await claim(api, target, branch);
      return use(target);
    });

  return {
    deploy: () => run(production),
    /** Deploys another configuration; gives what was said. */
    deployFile: async (file: string): Promise<readonly string[]> => {
      const said: string[] = [];
      await run(await targetOf("", file), (line) => said.push(line));
      return said;
    },
    preview: (branch: string) => claimed(branch, run),
    removePreview: (branch: string) => removePreview(api, previewNames(branch, worker, environments), () => {}),
    /** Puts a preview on the account without wrangler, as `preview` would have made it. */
    plantPreview: (branch: string) =>
      claimed(branch, async ({ worker: name, databases: [, ...others], queues }) => {
        const { account } = cloudflare;
        account.workers.set(name, aWorker(name, { versions: [aVersion({ [MARK]: branch })], isPublic: true }));
        for (const database of others) account.databases.set(database.name, aDatabase(database.name));
        for (const queue of queues) account.queues.set(queue, aQueue(queue, name));
      }),
  };
}
