import { type NpmRun, npmRun } from "./npm-run.ts";

/** What a run of `npm run keys` came to. */
export type KeysRun = NpmRun & {
  /** The key that it printed, and its id. */
  readonly secret: string;
  readonly id: string;
};

/** Runs `npm run keys -- …` as a user does, on the data of a local server. */
export async function runKeys(
  stateDir: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  onStderr?: (printed: string) => void,
): Promise<KeysRun> {
  const run = await npmRun("keys", args, { ...env, STATE_DIR: stateDir }, onStderr);
  return {
    ...run,
    secret: /^key +(\S+)$/m.exec(run.stdout)?.[1] ?? "",
    id: /^id +(\S+)$/m.exec(run.stdout)?.[1] ?? "",
  };
}
