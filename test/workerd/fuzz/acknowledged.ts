import { identifierOfKey, uniqueKey } from "../../../src/domain/identifiers.ts";
import type { Exchange } from "./send.ts";
import type { Acknowledged } from "./state.ts";

/** What successful answers allow to be there, and want to be there. */
export function acknowledgedBy(exchanges: readonly Exchange[]): Acknowledged {
  const meters = new Map<string, Record<string, unknown>[]>();
  const answers = new Map<string, string[]>();
  const events = new Set<string>();
  const cancellations = new Set<string>();
  const prefixes: string[] = [];
  let operated = false;
  for (const { sent, status, answer, mode } of exchanges) {
    if (sent.method !== "POST" || mode === undefined) continue;
    const livemode = mode === "live";
    const key = sent.headers["idempotency-key"];
    // A claim outlives a refusal that follows it.
    if (key) prefixes.push(uniqueKey(livemode, identifierOfKey(livemode, key)));
    if (status >= 300) continue;
    const path = new URL(sent.url).pathname;
    const body: Record<string, unknown> = JSON.parse(answer);
    if (key) push(answers, `${livemode ? 1 : 0}:${key}`, answer);
    if (path.startsWith("/v1/edgemeter/")) operated = true;
    if (body.object === "billing.meter") push(meters, String(body.id), body);
    if (String(body.object).endsWith("billing.meter_event")) events.add(uniqueKey(livemode, String(body.identifier)));
    if (String(body.object).endsWith("billing.meter_event_adjustment")) {
      const cancelled = uniqueKey(livemode, String((body.cancel as { identifier: string }).identifier));
      cancellations.add(cancelled);
      if (key) prefixes.push(`cancelled:${cancelled}:`);
    }
    if (path === "/v2/billing/meter_event_stream") {
      // Each event of it, a name that the service gave, or a rejection.
      prefixes.push(`rejected:${mode}:`);
      prefixes.push(...identifiersOf(sent.text).map((identifier) => uniqueKey(livemode, identifier)));
      prefixes.push(uniqueKey(livemode, "em_"));
    }
  }
  const mayHold = (held: string): boolean => prefixes.some((prefix) => held.startsWith(prefix));
  return { meters, answers, events, cancellations, mayHold, operated };
}

function push<T>(map: Map<string, T[]>, key: string, value: T): void {
  map.set(key, [...(map.get(key) ?? []), value]);
}

/** The identifiers that a stream's request named. */
function identifiersOf(body: string | undefined): string[] {
  const { events = [] }: { events?: { identifier?: string }[] } = JSON.parse(body || "{}");
  return events.flatMap(({ identifier }) => (identifier === undefined ? [] : [identifier]));
}
