// A queue message: shares of one shard, as bytes.
import * as z from "zod";
import { GROUP_KINDS, kindAt, type Share } from "./groups.ts";
import { isShardName } from "./shard-name.ts";

/** The most a message may hold (bytes). The queue takes 128,000 with its own metadata. */
export const MESSAGE_BYTES = 120_000;

/** The most that its entries may take once they are inflated (bytes): what the aggregator holds of a message. */
export const MESSAGE_INFLATED_BYTES = 1_500_000;

/** Room for what a message says of a share, and of each of its lines (bytes); and of itself. */
const SHARE_BYTES = 64;
const LINE_BYTES = 48;
export const MESSAGE_HEADER_BYTES = 64;

/** Bytes that a share takes in a message, at most. */
export const sizeOf = ({ lines, packed }: Pick<Share, "lines" | "packed">): number =>
  SHARE_BYTES + lines.length * LINE_BYTES + packed.length;

/** The layout of a message, of the bodies in it and of their entries. */
const VERSION = 2;

const LENGTH_BYTES = 4;

const int = z.int();
const Header = z.tuple([
  z.literal(VERSION),
  z.string().refine(isShardName),
  z.array(
    z.tuple([
      int, // group
      z
        .int()
        .min(0)
        .max(GROUP_KINDS.length - 1), // kind
      int.min(0), // database
      z.union([z.literal(0), z.literal(1)]), // alone
      int.min(0), // size
      int.min(1), // bytes
      z.array(z.tuple([int, int, int, int.min(1)])).min(1), // slice, from, to, count of each line
    ]),
  ),
]);

/** A message: the length of its header, the header as JSON, and the bodies one after the other. All shares are of one shard. */
export function encodeMessage(shares: readonly Share[]): Uint8Array {
  const header: z.input<typeof Header> = [
    VERSION,
    shares[0]?.shard ?? "",
    shares.map(({ group, kind, database, alone, size, packed, lines }) => [
      group,
      GROUP_KINDS.indexOf(kind),
      database,
      alone ? 1 : 0,
      size,
      packed.length,
      lines.map(({ slice, from, to, count }) => [slice, from, to, count]),
    ]),
  ];
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32BE(text.length);
  return new Uint8Array(Buffer.concat([length, text, ...shares.map(({ packed }) => packed)]));
}

/** Throws on anything that `encodeMessage` did not write. */
export function decodeMessage(message: unknown): Share[] {
  const bytes = toBytes(message);
  const start = LENGTH_BYTES + (bytes.length < LENGTH_BYTES ? 0 : bytes.readUInt32BE());
  const header = Header.safeParse(parse(bytes.subarray(LENGTH_BYTES, start).toString()));
  if (!header.success) throw new Error(UNREADABLE);
  const [, shard, shares] = header.data;
  let at = start;
  const decoded = shares.map(([group, kind, database, alone, size, length, lines]): Share => {
    const packed = new Uint8Array(bytes.subarray(at, at + length));
    at += length;
    return {
      shard,
      group,
      kind: kindAt(kind),
      database,
      alone: alone === 1,
      size,
      packed,
      lines: lines.map(([slice, from, to, count]) => ({ slice, from, to, count })),
    };
  });
  if (at !== bytes.length) throw new Error(UNREADABLE);
  return decoded;
}

const UNREADABLE = "a message that is not shares of a log's groups";

function toBytes(message: unknown): Buffer {
  if (message instanceof ArrayBuffer) return Buffer.from(message);
  if (message instanceof Uint8Array) return Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  throw new Error(UNREADABLE);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own words quote what it was given, and errors go to the logger.
    return undefined;
  }
}
