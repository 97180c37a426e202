// How the log writes an entry: as a JSON array in a fixed order, which is a third shorter than an object and which
// D1 reads faster. `src/aggregate/sql/entries.ts` reads the same places. An entry's version is its message's.
import type { AdmittedEvent, Payload } from "../domain/event.ts";
import { OWN_PREFIX, uuidOf } from "../domain/identifiers.ts";
import type { Aggregation } from "../domain/meter.ts";

/** An event as the log keeps it and the queue carries it to the aggregator. Times in ms. */
export type LogEntry = Omit<AdmittedEvent, "timestamp"> & {
  readonly id: string;
  readonly identifier: string;
  readonly timestamp: number;
  /** When the log accepted it; within a shard it never goes back. */
  readonly received: number;
  /** The number of the API key that reported it. */
  readonly apiKey: number;
};

/**
 * An event that was cancelled, whole, so that it does not matter whether it or its cancellation
 * reaches D1 first.
 */
export type LogCancellation = LogEntry & {
  /** When it was cancelled (ms). */
  readonly cancelled: number;
  /** The number of the API key that cancelled it. */
  readonly cancelledBy: number;
};

/** Events of streams that were refused for one reason in one commit, on their way to an error report. */
export type LogRejection = {
  readonly id: string;
  readonly livemode: boolean;
  /** The meter they were for; null when there is none of that name. */
  readonly meter: string | null;
  /** Why: one of the error report's codes. */
  readonly code: string;
  /** How many. */
  readonly count: number;
  /** The first of them, each with its message and its identifier. */
  readonly samples: readonly (readonly [message: string, identifier: string])[];
  /** ms */
  readonly received: number;
};

type EventArray = [
  meter: string,
  customer: string,
  dimensions: string,
  timestamp: number,
  id: string,
  /** null for a canonical UUID, which follows as its bytes in hex: D1 keeps those. */
  identifier: string | null,
  uuid: string | null,
  value: number,
  received: number,
  payload: Payload | null,
  apiKey: number,
  aggregation: Aggregation,
];

type CancellationArray = [...EventArray, cancelled: number, cancelledBy: number];

/** A canonical UUID, which is the same as its bytes. */
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

function toArray(entry: LogEntry): EventArray {
  const { identifier } = entry;
  const uuid = UUID.test(identifier) ? identifier.replaceAll("-", "") : null;
  return [
    entry.meter,
    entry.customer,
    entry.dimensions,
    entry.timestamp,
    entry.id,
    uuid === null ? identifier : null,
    uuid,
    entry.value,
    entry.received,
    entry.payload ?? null,
    entry.apiKey,
    entry.aggregation,
  ];
}

export const writeEvent = (entry: LogEntry): string => JSON.stringify(toArray(entry));

export const writeCancellation = (entry: LogCancellation): string =>
  JSON.stringify([...toArray(entry), entry.cancelled, entry.cancelledBy] satisfies CancellationArray);

export const writeRejection = (entry: LogRejection): string => JSON.stringify(entry);

/** An event or cancellation for another customer, without its payload, and with its own id for an identifier. */
export function withoutCustomer(entry: string, alias: string): string {
  const [meter, _customer, dimensions, timestamp, id, _identifier, _uuid, value, received, _payload, ...rest] =
    JSON.parse(entry) as EventArray | CancellationArray;
  return JSON.stringify([
    meter,
    alias,
    dimensions,
    timestamp,
    id,
    OWN_PREFIX + id,
    null,
    value,
    received,
    null,
    ...rest,
  ]);
}

/** The events of a line of a group. */
export const readEvents = (entries: string): LogEntry[] => (JSON.parse(`[${entries}]`) as EventArray[]).map(toEntry);

function toEntry(array: EventArray): LogEntry {
  const [meter, customer, dimensions, timestamp, id, identifier, uuid, value, received, payload, apiKey, aggregation] =
    array;
  return {
    meter,
    customer,
    dimensions,
    timestamp,
    id,
    identifier: identifier ?? uuidOf(uuid ?? ""),
    value,
    received,
    payload: payload ?? undefined,
    apiKey,
    aggregation,
  };
}
