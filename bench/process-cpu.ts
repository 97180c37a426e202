// What a process has taken of the processors, as Linux counts it.
import { readdir, readFile } from "node:fs/promises";

/** Linux counts in hundredths of a second, whatever its own clock does (USER_HZ). */
const TICK_MS = 10;

type Stat = { readonly command: string; readonly parent: number; readonly ticks: number };

/** User and system time of a process, all its threads, since it started (ms). */
export async function processCpuMs(pid: number): Promise<number> {
  const stat = await readStat(pid);
  return stat === undefined ? Number.NaN : stat.ticks * TICK_MS;
}

/** The workerd processes that this process started. None where there is no /proc. */
export async function workerdChildren(): Promise<number[]> {
  const entries = await readdir("/proc").catch(() => []);
  const pids = entries.map(Number).filter(Number.isInteger);
  const stats = await Promise.all(pids.map(readStat));
  return pids.filter((_, i) => stats[i]?.command === "workerd" && stats[i].parent === process.pid);
}

async function readStat(pid: number): Promise<Stat | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  // The command stands in brackets and may hold anything; the numbers follow the last one.
  const command = text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"));
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { command, parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) };
}
