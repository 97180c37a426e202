// One customer on one meter takes one write at a time: how many get through, and how many are refused.
import { Edgemeter } from "../edgemeter.ts";
import { load, withoutFailures } from "../load.ts";
import { EDGEMETER, type WorkerSpec, withWorkerd } from "../local-workerd.ts";
import type { Bench, Figure, Measured } from "../results.ts";
import { quantile } from "../statistics.ts";
import { syncEvents } from "../targets.ts";

const CONNECTIONS = 32;
const WAIT_MS = 2_000;

const WAITING: WorkerSpec = { ...EDGEMETER, name: "waiting", vars: { CONFLICT_WAIT_MS: String(WAIT_MS) } };

export const measureHotCustomer = (bench: Bench): Promise<Measured> =>
  withWorkerd([EDGEMETER, WAITING], async ({ url, ...workerd }) => {
    const figures: Figure[] = [];
    for (const [worker, id, setting] of [
      [EDGEMETER, "hot", "CONFLICT_WAIT_MS 0"],
      [WAITING, "hot-waiting", `CONFLICT_WAIT_MS ${WAIT_MS}`],
    ] as const) {
      bench.progress(setting);
      const edgemeter = new Edgemeter({ url, ...workerd }, worker);
      await edgemeter.createMeter();
      await edgemeter.sendEvent();
      const loaded = withoutFailures(await load(url, syncEvents(worker, 1), CONNECTIONS, { seconds: bench.seconds }));
      await edgemeter.drained();
      const { rate, accepted, conflicts, latencies } = loaded;
      figures.push(
        { id, name: `one hot customer, ${CONNECTIONS} connections, ${setting}`, value: rate, unit: "/s" },
        { id: `${id}-refused`, name: "  409", value: (100 * conflicts) / (accepted + conflicts), unit: "%" },
        { id: `${id}-p50`, name: "  p50 of what was accepted", value: quantile(latencies, 0.5), unit: "ms" },
        { id: `${id}-p99`, name: "  p99", value: quantile(latencies, 0.99), unit: "ms" },
      );
    }
    return { figures };
  });
