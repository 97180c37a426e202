// A thousand rows in one call: one bound JSON text, which SQLite takes apart by itself. Nothing is
// faster: no parameter per value, no parsing in JavaScript, and keys that grow, so that rows are appended.

const ROWS = 1_000;

/** The rows of a call without its own part of their keys: about as long as an event is. */
export const BULK_ROWS: string = JSON.stringify(
  Array.from({ length: ROWS }, (_, i) => {
    const place = String(i).padStart(4, "0");
    return [place, `cus_${i}`, 1_790_000_000_000 + i, 25, `identifier-of-an-event-${place}`, "x".repeat(60)];
  }),
);

/** ?1 is what the keys of this call begin with, ?2 are the rows. */
export const INSERT_BULK = `
  INSERT INTO bulk (key, customer, timestamp, value, identifier, body)
  SELECT ?1 || (value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
  FROM json_each(?2)`;
