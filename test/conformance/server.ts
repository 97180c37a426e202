import { readFile } from "node:fs/promises";
import path from "node:path";
import { parseEnv } from "node:util";
import type { TestProject } from "vitest/node";
import { newStateDir, removeStateDir, startServer } from "../support/node/server.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Where the server under test listens. */
    url: string;
    /** Where it keeps its data. */
    stateDir: string;
    /** What it signs stream sessions with. */
    sessionSecret: string;
  }
}

/** One server for the whole suite, on a new state folder; gives the way to end it. */
export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const stateDir = await newStateDir();
  const server = await startServer(stateDir);
  provide("url", server.url);
  provide("stateDir", stateDir);
  const secrets = parseEnv(await readFile(path.join(stateDir, "secrets.env"), "utf8"));
  provide("sessionSecret", secrets.SESSION_SECRET ?? "");
  return async () => {
    await server.stop();
    await removeStateDir(stateDir);
  };
}
