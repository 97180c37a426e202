// When the server is killed.
import { watch } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Moment } from "./drawn.ts";
import type { Load } from "./load.ts";

/** Where the databases of D1 and of the logs lie in the state folder. */
const FOLDERS = { d1: "v3/d1/miniflare-D1DatabaseObject", log: "v3/do/edgemeter-EventLog" } as const;

/** The longest that something is waited for, which the load may not bring (ms). */
const PATIENCE_MS = 4_000;

/** Settles at the moment; the load may pause from then on. */
export async function until(moment: Moment, stateDir: string, load: Load): Promise<unknown> {
  switch (moment.at) {
    case "time":
      return sleep(moment.ms);
    case "answer":
      return Promise.race([load.answers(moment.count), sleep(PATIENCE_MS)]);
    case "write":
      await sleep(moment.ms);
      return write(moment.by, stateDir, load);
  }
}

/**
 * Settles with the next write of the log or of the aggregator. A busy log appends, and D1 writes with
 * nearly every request: without requests it is the aggregator, and its confirmation is what the log writes.
 */
async function write(by: Extract<Moment, { at: "write" }>["by"], stateDir: string, load: Load): Promise<void> {
  if (by !== "append") await load.pause();
  await nextWrite(path.join(stateDir, by === "aggregator" ? FOLDERS.d1 : FOLDERS.log));
}

/**
 * Settles as soon as a database in this folder is written. Whoever waits for that write (the caller for
 * its 200, the log for D1's confirmation) hears of it a few milliseconds later, or never.
 */
async function nextWrite(folder: string): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = (): void => {
      watcher.close();
      clearTimeout(timer);
      resolve();
    };
    const watcher = watch(folder, (_, file) => {
      if (file?.endsWith(".sqlite-wal") && !file.startsWith("metadata")) end();
    });
    const timer = setTimeout(end, PATIENCE_MS);
  });
}
