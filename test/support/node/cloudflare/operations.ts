import { vi } from "vitest";
import { aQueue, aVersion, aWorker } from "./account.ts";
import type { FakeCloudflare } from "./server.ts";

/** The fake answers at once, or not at all (ms). */
const PATIENCE_MS = 2_000;

/** What the commands do, in this process: many runs of them are quicker so. wrangler is a process of its own. */
export type Operations = {
  readonly deploy: () => Promise<unknown>;
  /** Deploys another configuration; gives what was said. */
  readonly deployFile: (file: string) => Promise<readonly string[]>;
  readonly preview: (branch: string) => Promise<unknown>;
  readonly removePreview: (branch: string) => Promise<unknown>;
  /** Puts a preview on the account without wrangler, as `preview` would have made it. */
  readonly plantPreview: (branch: string) => Promise<void>;
};

/** The commands, against a Cloudflare and with a folder for their temporary files. Sets the environment of this process. */
export async function operationsOn(cloudflare: FakeCloudflare, folder: string): Promise<Operations> {
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
  const optionsFor = (name: string) => ({
    log: () => {},
    url: cloudflare.addressOf(name),
    patienceMs: PATIENCE_MS,
    dryRun: false,
  });
  // Read once: somebody may be writing the sources meanwhile, and another fingerprint is another deployment.
  const production = await targetOf();
  const previews = new Map<string, typeof production>();
  const claimed = async (branch: string) => {
    const file = await writePreviewConfig(previewNames(branch, worker, environments));
    const target = previews.get(branch) ?? (await targetOf("", file));
    previews.set(branch, target);
    await claim(api, target, branch);
    return target;
  };

  return {
    deploy: () => deploy(api, production, optionsFor(worker)),
    deployFile: async (file) => {
      const target = await targetOf("", file);
      const said: string[] = [];
      await deploy(await connect(target.account), target, {
        ...optionsFor(target.worker),
        log: (line) => said.push(line),
      });
      return said;
    },
    preview: async (branch) => {
      const target = await claimed(branch);
      await deploy(api, target, optionsFor(target.worker));
    },
    removePreview: async (branch) => {
      const names = previewNames(branch, worker, environments);
      await removePreview(api, names, () => {});
      await removePreviewConfig(names);
    },
    plantPreview: async (branch) => {
      const target = await claimed(branch);
      const { workers, queues } = cloudflare.account;
      const versions = [aVersion({ [MARK]: branch })];
      workers.set(target.worker, aWorker(target.worker, { versions, isPublic: true }));
      for (const name of target.queues) queues.set(name, aQueue(name, target.worker));
    },
  };
}
