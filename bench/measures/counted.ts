// What a million events cost: every billed operation counted, then priced.
import {
  awakeDollars,
  awakeSeconds,
  costLines,
  dollarsOf,
  logDollars,
  MONTH_SECONDS,
  PRICES,
  PRICES_AS_OF,
} from "../cost.ts";
import { type CountedCase, type CountedLoad, runCase } from "../counted-case.ts";
import { type Identity, STREAM_EVENTS } from "../edgemeter.ts";
import { type Bench, type Figure, figure, type Measured, type Table } from "../results.ts";
import { extrapolate } from "../scale.ts";
import type { Side } from "../sides.ts";

const MILLION = 1_000_000;

/** A log makes its tables anew so often. */
const PARTITIONS_A_MONTH = 60;

const syncLoad = (id: string, name: string, seconds: number, identity?: Identity): CountedLoad => ({
  id,
  name: `sync, ${name}`,
  load: (edgemeter) => edgemeter.load(edgemeter.syncEvents(identity), { connections: 32, seconds }),
});

const paced = (id: string, name: string, seconds: number, perSecond: number, customers?: number): CountedLoad => ({
  id,
  name,
  load: (edgemeter) => edgemeter.load(edgemeter.syncEvents({}, customers), { perSecond, seconds }),
});

/** The first three are those that a month's bill is made of. */
const loads = (seconds: number): readonly CountedLoad[] => [
  syncLoad("sync", "32 connections", 2 * seconds),
  paced("trickle", "one event a second", 5 * seconds, 1),
  {
    id: "stream",
    name: `stream, ${STREAM_EVENTS} a request`,
    load: async (edgemeter) => edgemeter.load(await edgemeter.streamEvents(), { connections: 8, seconds: 2 * seconds }),
  },
  {
    id: "sparse-stream",
    name: `stream, ${STREAM_EVENTS} a second`,
    load: async (edgemeter) => edgemeter.load(await edgemeter.streamEvents(), { perSecond: 1, seconds: 5 * seconds }),
  },
  syncLoad("sync-sdk-key", "an SDK's key", seconds, { key: "sdk" }),
  syncLoad("sync-key", "a caller's key, no identifier", seconds, { key: "caller", identifier: false }),
  syncLoad("sync-key-identifier", "a caller's key and an identifier", seconds, { key: "caller" }),
  paced("skewed", "sync, 10 customers, 500 a second", 2 * seconds, 500, 10),
];

/** What a case came to: dollars per million events, and rows written per event. */
type Priced = {
  readonly counted: CountedCase;
  readonly rows: number;
  /** Everything that is counted, by line; the last is what happens each minute, for as long as a million take. */
  readonly lines: readonly { readonly name: string; readonly amount: number; readonly dollars: number }[];
  readonly total: number;
  /** What happens each minute ($). */
  readonly minute: number;
  /** Estimates: CPU, and objects awake. */
  readonly cpu: number;
  readonly awake: number;
  /** Not to be paid: invocations are not logged. */
  readonly logs: number;
};

export async function measureCounted({ sides, seconds, progress }: Bench): Promise<Measured> {
  const [present, base] = sides;
  const count = async (side: Side): Promise<Priced[]> => {
    const cases: CountedCase[] = [];
    for (const load of loads(seconds)) {
      progress(`${load.name}${side.base ? ", of the other commit" : ""}`);
      cases.push(await runCase(load, side));
    }
    return cases.map((counted) => price(counted, side, minuteOf(cases)));
  };
  const cases = await count(present);
  const baseCases = base && (await count(base));
  const [sync, , stream] = cases;
  if (sync === undefined || stream === undefined) throw new Error("nothing was counted");
  const shape = (name: string, { counted, total, cpu, awake }: Priced, perRequest: number) => ({
    name,
    counted,
    perRequest,
    dollars: total + cpu + awake,
  });
  const shapes = [shape("sync", sync, 1), shape("stream", stream, STREAM_EVENTS)];
  return {
    figures: [...cases.flatMap((priced, i) => figuresOf(priced, baseCases?.[i])), ...constants(stream)],
    tables: [costTable(cases), countsTable(cases), ...extrapolate(shapes, present.settings)],
  };
}

/** What happens each minute ($): the stream's, since by then there is enough for the auditor's whole sample. */
function minuteOf(cases: readonly CountedCase[]): number {
  const stream = cases.find(({ id }) => id === "stream");
  return stream === undefined ? Number.NaN : dollarsOf(costLines(stream.eachMinute)) + PRICES.workerRequest;
}

function price(counted: CountedCase, { settings }: Side, minute: number): Priced {
  const { counts, events, seconds, cpuMs } = counted;
  const perMillion = MILLION / events;
  const minutes = seconds / 60;
  const lines = [
    ...costLines(counts),
    { name: "what happens each minute, at this rate", amount: minutes, dollars: minute * minutes },
  ].map(({ name, amount, dollars }) => ({ name, amount: amount / events, dollars: dollars * perMillion }));
  return {
    counted,
    rows: (counts.objectRowsWritten + counts.databaseRowsWritten) / events,
    lines,
    total: dollarsOf(lines),
    minute,
    cpu: cpuMs * PRICES.workerCpuMs * perMillion,
    awake: awakeDollars(awakeSeconds(counts, settings, seconds)) * perMillion,
    logs: logDollars(counts) * perMillion,
  };
}

function figuresOf(priced: Priced, base: Priced | undefined): Figure[] {
  const { counted, total, cpu, awake } = priced;
  const { id, name, events } = counted;
  const of = (field: "rows" | "total") => ({ rounds: [priced[field]], base: base && [base[field]] });
  const note = `with CPU and awake objects, which are estimates: $${(total + cpu + awake).toFixed(2)}`;
  return [
    figure(`rows-${id}`, `rows written per event, ${name}`, "rows", of("rows"), { note: `${events} events` }),
    figure(`cost-${id}`, `cost per million events, ${name}`, "$", of("total"), { note }),
  ];
}

/** What a deployment costs that gets no events at all. */
function constants({ counted, minute }: Priced): Figure[] {
  const { eachMinute: each, partitionRows, expiry } = counted;
  const read = each.objectRowsRead + each.databaseRowsRead;
  const written = each.objectRowsWritten + each.databaseRowsWritten;
  const month = { rounds: [(minute * MONTH_SECONDS) / 60] };
  const partitions = { rounds: [partitionRows * PARTITIONS_A_MONTH * PRICES.objectRowWritten] };
  const dropped = { rounds: [expiry.objectRowsWritten + expiry.tableRowsWritten] };
  return [
    figure("cost-scheduled", "what happens each minute, a month", "$", month, {
      note: `a run: ${each.logCalls} Durable Object requests, ${read} rows read, ${written} written`,
    }),
    figure("cost-partitions", "the logs' tables, made and dropped, a month", "$", partitions, {
      note: `${partitionRows} rows written each time, for all shards`,
    }),
    figure("expiry-rows", "rows written by dropping what has expired", "rows", dropped, {
      note: `and ${expiry.objectRowsRead} read, whatever the number of events`,
    }),
  ];
}

/** One column a case; `lines` are what is billed. */
function casesTable(
  title: string,
  cases: readonly Priced[],
  line: (line: Priced["lines"][number]) => string,
  more: readonly (readonly [name: string, cell: (priced: Priced) => string])[],
): Table {
  const lines = (cases[0]?.lines ?? []).map(({ name }, i) => [
    name,
    ...cases.map(({ lines }) => lines[i]).map((it) => (it === undefined ? "" : line(it))),
  ]);
  const rows = more.map(([name, cell]) => [name, ...cases.map(cell)]);
  return { title, columns: ["", ...cases.map(({ counted }) => counted.name)], rows: [...lines, ...rows] };
}

const costTable = (cases: readonly Priced[]): Table => ({
  ...casesTable(
    `Cost of a million events ($, beyond what the plan includes, prices of ${PRICES_AS_OF})`,
    cases,
    ({ dollars }) => dollars.toFixed(3),
    [
      ["all that is counted", ({ total }) => total.toFixed(3)],
      ["estimate: CPU", ({ cpu }) => cpu.toFixed(3)],
      ["estimate: objects awake", ({ awake }) => awake.toFixed(3)],
      ["Workers Logs, if invocations were logged", ({ logs }) => logs.toFixed(3)],
      ["all, with estimates", ({ total, cpu, awake }) => (total + cpu + awake).toFixed(3)],
    ],
  ),
  notes: [
    "Counted: every operation until the events are aggregated, audited once and expired.",
    "Workers Logs are in no sum: only errors and warnings are logged (`invocation_logs = false`).",
    "CPU is an estimate: that of the whole local process, which also plays Cloudflare's part.",
    "Objects awake is an estimate: the wall time of their calls here (calls of one object that overlap count once), and of the logs' timers; a call to a log on Cloudflare's network takes longer, and its wait is billed.",
  ],
});

function countsTable(cases: readonly Priced[]): Table {
  const per =
    (amount: (counted: CountedCase) => number, digits = 4) =>
    ({ counted }: Priced) =>
      amount(counted).toFixed(digits);
  return casesTable("Operations per event, as counted", cases, ({ amount }) => amount.toFixed(4), [
    ["events", per(({ events }) => events, 0)],
    ["events in a commit", per(({ events, counts }) => events / counts.groups)],
    ["groups in a message", per(({ counts }) => counts.groups / counts.messages)],
    ["alarms set", per(({ events, counts }) => counts.alarmsSet / events)],
    ["ms in the log's transactions", per(({ events, counts }) => counts.commitMs / events)],
    ["ms in D1's statements", per(({ events, counts }) => counts.databaseMs / events)],
    ["bytes in the log", per(({ events, logBytes }) => logBytes / events, 0)],
    ["bytes in D1", per(({ events, databaseBytes }) => databaseBytes / events, 0)],
  ]);
}
