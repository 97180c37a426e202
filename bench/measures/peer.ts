// What a team would write instead: Fastify and PostgreSQL, see bench/peer.
import { measurePeer } from "../peer/measure.ts";
import type { Bench, Figure, Measured } from "../results.ts";
import { CUSTOMERS } from "../targets.ts";

const CONNECTIONS = 32;

export async function measurePeers({ seconds, progress }: Bench): Promise<Measured> {
  const peer = await measurePeer({ seconds, connections: CONNECTIONS, customers: CUSTOMERS, onProgress: progress });
  const note = peer === undefined ? "PostgreSQL is not installed" : undefined;
  const figure = (id: string, name: string, value: number | undefined, unit: string): Figure => ({
    id: `peer-${id}`,
    name,
    value: value ?? Number.NaN,
    unit,
    ...(note === undefined ? {} : { note }),
  });
  const refused = peer === undefined ? undefined : 100 * peer.refusedShare409;
  const figures = [
    figure("sync", `events, ${CUSTOMERS} customers, ${CONNECTIONS} connections`, peer?.eventsPerSecond, "/s"),
    figure("p50", "  p50", peer?.p50, "ms"),
    figure("p95", "  p95", peer?.p95, "ms"),
    figure("p99", "  p99", peer?.p99, "ms"),
    figure("hot", "one hot customer, 409", refused, "%"),
    figure("stream", "requests of 100 events, until aggregated", peer?.batchEventsPerSecond, "events/s"),
    figure("freshness", "freshness, idle, p50", peer?.freshnessP50Ms, "ms"),
  ];
  if (peer === undefined) return { figures };
  const versions = Object.entries(peer.versions);
  return { figures, tables: [{ title: "Versions of the peer", columns: ["", "version"], rows: versions }] };
}
