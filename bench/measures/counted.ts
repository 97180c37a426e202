// What a million events cost: every billed operation counted, then priced.
import { awakeDollars, awakeSeconds, costLines, dollarsOf, MONTH_SECONDS, PRICES, PRICES_AS_OF } from "../cost.ts";
import { type CountedCase, type CountedLoad, runCase } from "../counted-case.ts";
import { type Edgemeter, IDENTITIES, type Identity, STREAM_EVENTS } from "../edgemeter.ts";
import { type Bench, type Figure, figure, type Measured, type Table } from "../results.ts";
import { extrapolate } from "../scale.ts";
import type { Side } from "../sides.ts";

const MILLION = 1_000_000;

/** Connections that sync events come by, and by which denser ones do. */
const CONNECTIONS = 32;
const MORE_CONNECTIONS = 128;

const sync = (identity?: Identity, customers?: number) => (edgemeter: Edgemeter) =>
  edgemeter.syncEvents(identity, customers);

const loads = (seconds: number): readonly CountedLoad[] => {
  const stream = { next: (edgemeter: Edgemeter) => edgemeter.streamEvents(), perRequest: STREAM_EVENTS };
  const [long, longer] = [{ seconds: 2 * seconds }, { seconds: 5 * seconds }];
  return [
    ...IDENTITIES.map(({ id, name, identity }) => ({
      id,
      name: `sync, ${name}`,
      next: sync(identity),
      pace: { connections: CONNECTIONS, ...long },
    })),
    { id: "trickle", name: "sync, one a second", next: sync(), pace: { perSecond: 1, ...longer } },
    { id: "skewed", name: "sync, 10 customers, 500 a second", next: sync({}, 10), pace: { perSecond: 500, ...long } },
    { id: "stream", name: `stream, ${STREAM_EVENTS} a request`, ...stream, pace: { connections: 8, ...long } },
    { id: "sparse-stream", name: `stream, ${STREAM_EVENTS} a second`, ...stream, pace: { perSecond: 1, ...longer } },
  ];
};

/** Sync events in denser traffic: more of them share a commit, and its two rows. */
const denserLoads = (seconds: number): readonly CountedLoad[] =>
  IDENTITIES.map(({ id, name, identity }) => ({
    id: `${id}-${MORE_CONNECTIONS}`,
    name: `sync, ${name}, ${MORE_CONNECTIONS} connections`,
    next: sync(identity),
    pace: { connections: MORE_CONNECTIONS, seconds: 2 * seconds },
  }));

/** What a case came to: dollars per million events, and rows written per event. */
type Priced = {
  readonly counted: CountedCase;
  readonly rows: number;
  /** Everything that is counted, by line. */
  readonly lines: readonly { readonly name: string; readonly amount: number; readonly dollars: number }[];
  readonly total: number;
  /** Estimates: CPU, and objects awake. */
  readonly cpu: number;
  readonly awake: number;
  /** With these. */
  readonly dollars: number;
};

export async function measureCounted({ sides, seconds, progress }: Bench): Promise<Measured> {
  const [present, base] = sides;
  const count = async (side: Side, these: readonly CountedLoad[]): Promise<Priced[]> => {
    const cases: Priced[] = [];
    for (const load of these) {
      progress(`${load.name}${side.base ? ", of the other commit" : ""}`);
      cases.push(price(await runCase(load, side), side));
    }
    return cases;
  };
  const [usual, denser] = [loads(seconds), denserLoads(seconds)];
  const cases = await count(present, usual);
  const denserCases = await count(present, denser);
  const baseCases = base && (await count(base, [...usual, ...denser]));
  const [sync, stream] = ["sync", "stream"].map((id) => cases.find(({ counted }) => counted.id === id));
  if (sync === undefined || stream === undefined) throw new Error("nothing was counted");
  return {
    figures: [
      ...[...cases, ...denserCases].flatMap((priced, i) => figuresOf(priced, baseCases?.[i])),
      scheduled(stream),
    ],
    tables: [costTable(cases), countsTable(cases), extrapolate([sync, stream], present.settings)],
  };
}

function price(counted: CountedCase, { settings }: Side): Priced {
  const { counts, events, cpuMs } = counted;
  const perMillion = MILLION / events;
  const lines = costLines(counts).map(({ name, amount, dollars }) => ({
    name,
    amount: amount / events,
    dollars: dollars * perMillion,
  }));
  const rows = (counts.objectRowsWritten + counts.databaseRowsWritten) / events;
  const total = dollarsOf(lines);
  const cpu = cpuMs * PRICES.workerCpuMs * perMillion;
  const awake = awakeDollars(awakeSeconds(counted, settings)) * perMillion;
  return { counted, rows, lines, total, cpu, awake, dollars: total + cpu + awake };
}

function figuresOf(priced: Priced, base: Priced | undefined): Figure[] {
  const { counted, dollars } = priced;
  const { id, name, events, counts } = counted;
  const of = (field: "rows" | "total") => ({ rounds: [priced[field]], base: base && [base[field]] });
  const note = `with CPU and awake objects, which are estimates: $${dollars.toFixed(2)}`;
  return [
    figure(`rows-${id}`, `rows written per event, ${name}`, "rows", of("rows"), {
      note: `${events} events, ${(events / counts.groups).toFixed(1)} in a commit`,
    }),
    figure(`cost-${id}`, `cost per million events, ${name}`, "$", of("total"), { note }),
  ];
}

/** What a month of the schedule costs, where events come each minute. */
function scheduled({ counted: { eachMinute: each } }: Priced): Figure {
  const dollars = dollarsOf(costLines(each)) + PRICES.workerRequest;
  const read = each.objectRowsRead + each.databaseRowsRead;
  const written = each.objectRowsWritten + each.databaseRowsWritten;
  const note = `a run: ${each.logCalls} Durable Object requests, ${read} rows read, ${written} written`;
  const month = { rounds: [(dollars * MONTH_SECONDS) / 60] };
  return figure("cost-scheduled", "what happens each minute, a month", "$", month, { note });
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
      ["all, with estimates", ({ dollars }) => dollars.toFixed(3)],
    ],
  ),
  notes: [
    "Counted: every operation until the events are aggregated, audited once and expired.",
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
    ["rows that a day's audit of sums reads, a stored event", per(({ rowsAudited }) => rowsAudited, 1)],
    ["bytes in the log", per(({ events, logBytes }) => logBytes / events, 0)],
    ["bytes in D1", per(({ events, databaseBytes }) => databaseBytes / events, 0)],
  ]);
}
