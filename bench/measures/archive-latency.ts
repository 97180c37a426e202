// How long events wait while the auditors and the archive work, one minute's run after the other, beside how long they
// wait without that.
import { MINUTE_MS } from "../../src/domain/window.ts";
import { type Edgemeter, withEdgemeters } from "../edgemeter.ts";
import { type Bench, figure, type Measured } from "../results.ts";
import { Archive, EVENTS, fillSlice, OLD_MS, OVER_MS } from "./archive.ts";

/** What is done with the events of a slice, and how much later than they came (ms). */
const WORKS = [
  { id: "audit", name: "the auditors compare", ahead: 5 * MINUTE_MS },
  { id: "export", name: "the archive exports and checks", ahead: OVER_MS, state: "checked" },
  { id: "drop", name: "the archive recounts and drops", ahead: OLD_MS, state: "archived" },
];

export async function measureArchiveLatency({ rounds, seconds, sides, progress }: Bench): Promise<Measured> {
  const side = { ...sides[0], counted: true };
  const taken = WORKS.map((work) => ({ ...work, quiet: [] as number[], busy: [] as number[] }));
  for (let round = 1; round <= rounds; round++) {
    await withEdgemeters([side], [], async (edgemeterOf, workerd) => {
      const edgemeter = edgemeterOf(side);
      progress(`round ${round} of ${rounds}: events`);
      await fillSlice(edgemeter);
      const archive = new Archive(edgemeter, await workerd.database(side, "EVENTS_0"));
      const next = edgemeter.syncEvents();
      for (const { name, ahead, state, quiet, busy } of taken) {
        progress(`round ${round} of ${rounds}: ${name}`);
        await edgemeter.call(`/counted/clock?ahead=${ahead}`);
        const pace = await edgemeter.moderatePace(next);
        quiet.push((await edgemeter.load(next, { ...pace, seconds })).p99);
        let goesOn = true;
        const work = state ? archive.minutesTo(state, 0) : archive.minutesUntil(() => isAudited(edgemeter), 0);
        const ended = work.finally(() => {
          goesOn = false;
        });
        const [loaded] = await Promise.all([edgemeter.load(next, { ...pace, goesOn: () => goesOn }), ended]);
        busy.push(loaded.p99);
        await edgemeter.drained();
      }
    });
  }
  return {
    figures: taken.map(({ id, name, quiet, busy }) => {
      const limit = { name: "without that", rounds: quiet };
      return figure(`archive-latency-${id}`, `p99 of sync events while ${name}`, "ms", { rounds: busy }, { limit });
    }),
  };
}

/** Whether the events of the slice have been compared with what the logs have. */
async function isAudited(edgemeter: Edgemeter): Promise<boolean> {
  const { audits }: { audits: { name: string; checked: number }[] } = await edgemeter.pipeline();
  const checked = audits
    .filter(({ name }) => name.startsWith("log live"))
    .reduce((sum, audit) => sum + audit.checked, 0);
  return checked >= EVENTS;
}
