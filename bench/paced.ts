// An open loop: requests are sent by the clock, whether or not earlier ones were answered.
import { setTimeout as sleep } from "node:timers/promises";
import type { Edgemeter } from "./edgemeter.ts";
import type { Target } from "./targets.ts";

export type Paced = {
  /** 2xx a second. */
  readonly rate: number;
  /** 2xx. */
  readonly accepted: number;
  /** All other answers, and none. */
  readonly refused: number;
  /** How long each 2xx took from when its request was due (ms). */
  readonly latencies: readonly number[];
  readonly seconds: number;
};

/** Timers are no more exact than this (ms); what is due by then is sent together. */
const STEP_MS = 4;

/** Sends `rate` requests a second. */
export async function pacedLoad(edgemeter: Edgemeter, target: Target, rate: number, seconds: number): Promise<Paced> {
  const latencies: number[] = [];
  let refused = 0;
  const started = performance.now();
  const open: Promise<void>[] = [];
  for (let sent = 0; sent < rate * seconds; ) {
    const due = Math.min(rate * seconds, ((performance.now() - started) / 1_000) * rate);
    for (; sent < due; sent++) {
      const dueAt = started + (sent / rate) * 1_000;
      const answered = edgemeter.send(target()).then(
        ({ status }) => {
          if (status === 200) latencies.push(performance.now() - dueAt);
          else refused++;
        },
        () => {
          refused++;
        },
      );
      open.push(answered);
    }
    await sleep(STEP_MS);
  }
  await Promise.all(open);
  const elapsed = (performance.now() - started) / 1_000;
  return { rate: latencies.length / elapsed, accepted: latencies.length, refused, latencies, seconds: elapsed };
}
