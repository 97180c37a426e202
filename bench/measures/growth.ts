// How long events wait while the log grows under them, beside how long they waited before.

import { READ_SIZES, recordGrowth } from "../../scripts/growth.ts";
import { FRESH_MS } from "../../src/catalog/positive-cache.ts";
import { type Edgemeter, withEdgemeters } from "../edgemeter.ts";
import type { Database } from "../local-workerd.ts";
import { type Bench, figure, type Measured, ratio } from "../results.ts";

/** Shards, before and after. */
const FEW = 4;
const MANY = 8;

export async function measureGrowth({ rounds, seconds, sides: [present], progress }: Bench): Promise<Measured> {
  const side = { ...present, vars: { EVENT_LOG_SHARDS: String(FEW) } };
  const before: number[] = [];
  const during: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    progress(`round ${round} of ${rounds}`);
    // A log grows once.
    await withEdgemeters([side], [], async (edgemeterOf, workerd) => {
      const edgemeter = edgemeterOf(side);
      const next = edgemeter.syncEvents();
      const pace = await edgemeter.moderatePace(next);
      const load = async (seconds: number) => (await edgemeter.load(next, { ...pace, seconds })).p99;
      before.push(await load(seconds));
      await grow(await workerd.database(side, "DB"));
      // An isolate hears of it when what it knows is too old.
      during.push(await load(seconds + FRESH_MS / 1_000));
      await edgemeter.drained();
      await checkGrown(edgemeter);
    });
  }
  return {
    figures: [
      figure("growth-before", `p99 of sync events, with ${FEW} shards`, "ms", { rounds: before }),
      figure("growth-during", `  while it grows to ${MANY}`, "ms", { rounds: during }),
      figure("growth-latency", "  ÷ before", "×", ratio({ rounds: during }, { rounds: before })),
    ],
  };
}

/** As a deployment has it grow. */
async function grow(db: Database): Promise<void> {
  const { results } = await db.prepare(READ_SIZES).all<{ name: string; value: string }>();
  const name = "event_log_shards";
  const recorded = results.find((record) => record.name === name)?.value ?? "";
  await db.prepare(recordGrowth({ name, recorded, to: MANY }, Date.now())).run();
}

/** Throws unless new shards have asked those that their keys came from. */
async function checkGrown(edgemeter: Edgemeter): Promise<void> {
  const { shards }: { shards: { moving_until: number | null }[] } = await edgemeter.pipeline();
  const moving = shards.filter(({ moving_until }) => moving_until !== null).length;
  if (moving !== MANY - FEW) throw new Error(`${moving} shards of ${MANY - FEW} are new`);
}
