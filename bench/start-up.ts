// How long workerd takes from its start to the first response of a Worker that is alone in it, without bindings.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import type { Sample } from "./results.ts";

/** The workerd that Miniflare runs. */
const { default: workerd }: { default: string } = createRequire(import.meta.resolve("miniflare"))("workerd");

/** The file descriptor on which workerd says which port it was given. */
const CONTROL = 3;

/** Makes modules, of which the first is the Worker, something that workerd can be started with. */
export async function writeConfig(folder: string, modules: readonly string[], date: string): Promise<string> {
  const file = path.join(folder, "start-up.capnp");
  const embedded = modules.map((name) => `(name = "${name}", esModule = embed "${name}")`).join(", ");
  await writeFile(
    file,
    `using Workerd = import "/workerd/workerd.capnp";
    const config :Workerd.Config = (
      services = [(name = "worker", worker = (modules = [${embedded}], compatibilityDate = "${date}"))],
      sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "worker")],
    );`,
  );
  return file;
}

/** Starts workerd once, asks for `target` (method and path), and ends it: how long it took by the clock and of the processor (ms). */
export async function startUp(config: string, target: { method: string; path: string }): Promise<Sample> {
  const began = performance.now();
  const process = spawn(workerd, ["serve", config, `--control-fd=${CONTROL}`], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  try {
    const [line] = await once(createInterface(process.stdio[CONTROL] as Readable), "line");
    const response = await fetch(`http://127.0.0.1:${JSON.parse(line).port}${target.path}`, { method: target.method });
    await response.text();
    return { ms: performance.now() - began, cpu: await cpuMs(process.pid ?? 0) };
  } finally {
    process.kill("SIGKILL");
  }
}

/** Processor time of all threads of a process so far (ms), which the scheduler counts in ns; 0 where there is no /proc. */
async function cpuMs(pid: number): Promise<number> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const times = threads.map(async (thread) =>
    Number((await readFile(`/proc/${pid}/task/${thread}/schedstat`, "utf8")).split(" ")[0]),
  );
  return (await Promise.all(times)).reduce((total, ns) => total + ns / 1e6, 0);
}
