/** How many events databases live mode had, and from when on (ms): oldest first, each with more than before. */
export type Placement = readonly { readonly databases: number; readonly since: number }[];

/** What a mode with one database for good has. */
export const ONE_DATABASE: Placement = [{ databases: 1, since: 0 }];

const newestOf = (placement: Placement): Placement[number] => placement.at(-1) ?? { databases: 0, since: 0 };

/** The placement that knows of more databases; of two that know of as many, the one that grew later, or `one`. */
export function longerOf(one: Placement, other: Placement): Placement {
  const [a, b] = [newestOf(one), newestOf(other)];
  return b.databases > a.databases || (b.databases === a.databases && b.since > a.since) ? other : one;
}

/** How many databases take new events at `now` (ms). */
export const databasesAt = (placement: Placement, now: number): number =>
  placement.findLast(({ since }) => since <= now)?.databases ?? placement[0]?.databases ?? 1;

/** Every database that live mode has had. */
export const allPlaces = (placement: Placement): number[] =>
  Array.from({ length: newestOf(placement).databases }, (_, place) => place);

/** Where the events of a customer on a meter may be: for each number of databases, one; each once, in ascending order. */
export function databasesOf(meter: string, customer: string, placement: Placement): number[] {
  const hash = hashOfPair(meter, customer);
  return [...new Set(placement.map(({ databases }) => jump(hash, databases)))].sort((a, b) => a - b);
}

/** Which of `databases` takes the events of a customer on a meter. With one more database, one pair in that many moves, and only to the new one. */
export const databaseOf = (meter: string, customer: string, databases: number): number =>
  databases === 1 ? 0 : jump(hashOfPair(meter, customer), databases);

/** Customers are dealt into so many lanes, each of which the aggregator can store by itself. */
export const LANES = 8;

/** The lane of a customer's events on a meter. It is one for all of them, so that their sum is written once. */
export const laneOf = (meter: string, customer: string): number => Number(hashOfPair(meter, customer) % BigInt(LANES));

/** FNV-1a, 64 bits in two halves, over the UTF-16 units of both. */
export function hashOfPair(meter: string, customer: string): bigint {
  const text = `${meter}\n${customer}`;
  let a = 0x811c9dc5;
  let b = 0xcbf29ce4;
  for (let i = 0; i < text.length; i++) {
    a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    b = Math.imul(b ^ (a >>> 15) ^ text.charCodeAt(i), 0x85ebca6b);
  }
  return (BigInt(a >>> 0) << 32n) | BigInt(b >>> 0);
}

/** Jump consistent hash (Lamping and Veach, 2014). */
function jump(hash: bigint, buckets: number): number {
  let key = hash;
  let bucket = -1;
  for (let next = 0; next < buckets; ) {
    bucket = next;
    key = BigInt.asUintN(64, key * 2_862_933_555_777_941_757n + 1n);
    next = Math.floor((bucket + 1) * (2 ** 31 / (Number(key >> 33n) + 1)));
  }
  return bucket;
}
