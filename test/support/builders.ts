import type { EventReport } from "../../src/domain/event.ts";
import { newEventId, placedAt } from "../../src/domain/identifiers.ts";
import { createMeter, type Meter, type NewMeter } from "../../src/domain/meter.ts";
import type { Result } from "../../src/domain/result.ts";
import type { LogEntry } from "../../src/log/codec.ts";

/** A fixed time of the tests: in the middle of an hour, of a day and of a minute (ms). */
export const NOON = Date.UTC(2026, 5, 15, 12, 34, 56, 789);

let made = 0;

/** A new word each time, so that tests of one file do not meet. */
export const unique = (prefix: string): string => `${prefix}_${++made}`;

/** An event id at a place in receipt order. */
export const anEventId = (order: number): string => placedAt(order, newEventId(NOON));

/** A sum meter in test mode, created at NOON. */
export function aMeter(changes: Partial<NewMeter & { livemode: boolean; now: number }> = {}): Meter {
  const { livemode = false, now = NOON, ...input } = changes;
  const created = createMeter(
    { displayName: "Tokens", eventName: "tokens", formula: "sum", eventTimeWindow: null, ...input },
    livemode,
    now,
  );
  if (!created.ok) throw new Error(JSON.stringify(created.error));
  return created.value;
}

/** A report of 25 tokens of cus_1, without identifier and timestamp. */
export const aReport = (changes: Partial<EventReport> = {}): EventReport => ({
  eventName: "tokens",
  payload: { stripe_customer_id: "cus_1", value: "25" },
  identifier: undefined,
  timestamp: undefined,
  ...changes,
});

/** An event as the log hands it to the aggregator: 25 for cus_1 at NOON. */
export function aLogEntry(changes: Partial<LogEntry> = {}): LogEntry {
  const id = newEventId(NOON);
  return {
    id,
    meter: "mtr_test_1",
    customer: "cus_1",
    value: 25,
    aggregation: "additive",
    timestamp: NOON,
    identifier: id,
    received: NOON,
    dimensions: "",
    payload: undefined,
    apiKey: 1,
    ...changes,
  };
}

/** What a rule yields for input that it takes. */
export function resultOf<T, E>(result: Result<T, E>): T {
  if (!result.ok) throw new Error(`expected a value, got the error ${JSON.stringify(result.error)}`);
  return result.value;
}

/** Why a rule refuses input. */
export function errorOf<T, E>(result: Result<T, E>): E {
  if (result.ok) throw new Error(`expected an error, got the value ${JSON.stringify(result.value)}`);
  return result.error;
}

/** Whether texts come in ascending order, none twice. */
export const isSorted = (texts: readonly string[]): boolean =>
  texts.every((text, i) => i === 0 || (texts[i - 1] ?? "") < text);
