import { vi } from "vitest";
import { aQueue, aVersion, aWorker } from "./account.ts";
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
  const { claim } = await import("../../../../scripts/preview/claim.ts");
  const { MARK, removePreviewConfig, writePreviewConfig } = await import("../../../../scripts/preview/config.ts");
  const { previewNames } = await import("../../../../scripts/preview/names.ts");
  const { removePreview } = await import("../../../../scripts/preview/remove.ts");

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
  const previews = new Map<string, Target>();
  const claimed = async (branch: string) => {
    const file = await writePreviewConfig(previewNames(branch, worker, environments));
    const target = previews.get(branch) ?? (await targetOf("", file));
    previews.set(branch, target);
    await claim(api, target, branch);
    return target;
  };

  return {
    deploy: () => run(production),
    /** Deploys another configuration; gives what was said. */
    deployFile: async (file: string): Promise<readonly string[]> => {
      const said: string[] = [];
      await run(await targetOf("", file), (line) => said.push(line));
      return said;
    },
    preview: async (branch: string) => run(await claimed(branch)),
    removePreview: async (branch: string) => {
      const names = previewNames(branch, worker, environments);
      await removePreview(api, names, () => {});
      await removePreviewConfig(names);
    },
    /** Puts a preview on the account without wrangler, as `preview` would have made it. */
    plantPreview: async (branch: string) => {
      const target = await claimed(branch);
      const { workers, queues } = cloudflare.account;
      const versions = [aVersion({ [MARK]: branch })];
      workers.set(target.worker, aWorker(target.worker, { versions, isPublic: true }));
      for (const name of target.queues) queues.set(name, aQueue(name, target.worker));
    },
  };
}
