// What a million events cost: every billed operation counted, then priced.
import { awakeDollars, awakeSeconds, type CostLine, costLines, dollarsOf, logDollars } from "../cost.ts";
import { type CountedCase, type Load, runCase } from "../counted-case.ts";
import { load, withoutFailures } from "../load.ts";
import { pacedLoad } from "../paced.ts";
import { MONTH_SECONDS, PRICES, PRICES_AS_OF } from "../prices.ts";
import type { Bench, Figure, Measured, Table } from "../results.ts";
import { extrapolate } from "../scale.ts";
import type { Settings } from "../settings.ts";
import { CUSTOMERS, STREAM_EVENTS, streamEvents, syncEvents } from "../targets.ts";

const MILLION = 1_000_000;
const CONNECTIONS = 32;
const STREAM_CONNECTIONS = 8;
const MINUTES_A_MONTH = MONTH_SECONDS / 60;

/** A log makes its tables anew so often. */
const SLICES_A_MONTH = 60;

/** A case in dollars per million events, and in amounts per event. */
type Priced = {
  readonly counted: CountedCase;
  readonly lines: readonly CostLine[];
  /** The minutes that a million events take at this rate. */
  readonly minutes: number;
  /** Everything that is counted, the minutes too. */
  readonly total: number;
  /** Estimates: CPU, and objects awake. */
  readonly cpu: number;
  readonly awake: number;
  /** Not to be paid: invocations are not logged. */
  readonly logs: number;
  readonly rowsWritten: number;
};

export async function measureCounted(bench: Bench): Promise<Measured> {
  const { settings, seconds, progress } = bench;
  const everyCustomer: Load = async (_, worker, { url }) => {
    await load(url, syncEvents(worker), CONNECTIONS, { requests: CUSTOMERS });
  };
  progress("sync");
  const sync = await runCase(
    `sync, ${CONNECTIONS} connections`,
    settings.shards,
    everyCustomer,
    async (_, worker, { url }) => {
      withoutFailures(await load(url, syncEvents(worker), CONNECTIONS, { seconds: 2 * seconds }));
    },
  );
  progress("a trickle");
  const oneEach: Load = async (edgemeter) => {
    for (let i = 0; i < 4 * settings.shards; i++) await edgemeter.sendEvent();
  };
  const trickle = await runCase("one event a second", settings.shards, oneEach, async (edgemeter, worker) => {
    await pacedLoad(edgemeter, syncEvents(worker), 1, 5 * seconds);
  });
  progress("streams");
  const stream = await runCase(
    `stream, ${STREAM_EVENTS} a request`,
    settings.shards,
    everyCustomer,
    async (edgemeter, worker, { url }) => {
      const token = await edgemeter.openSession();
      withoutFailures(await load(url, streamEvents(worker, token), STREAM_CONNECTIONS, { seconds: 2 * seconds }));
    },
  );
  progress("streams, one request a second");
  const sparse = await runCase(
    `stream, ${STREAM_EVENTS} a second`,
    settings.shards,
    oneEach,
    async (edgemeter, worker) => {
      await pacedLoad(edgemeter, streamEvents(worker, await edgemeter.openSession()), 1, 5 * seconds);
    },
  );
  // The stream's minutes, since by then there is enough for the auditor's whole sample.
  const minute = dollarsOf(costLines(stream.eachMinute)) + PRICES.workerRequest;
  const priced = [sync, trickle, stream, sparse].map((counted) => price(counted, settings, minute));
  const ids = ["sync", "trickle", "stream", "sparse-stream"];
  return {
    figures: [...priced.flatMap((counted, i) => figuresOf(ids[i] ?? "", counted)), ...constants(stream, minute)],
    tables: [costTable(priced), countsTable(priced), ...extrapolate({ sync, stream, settings })],
  };
}

/** `minute`: what happens each minute ($). */
function price(counted: CountedCase, { shards, ...timers }: Settings, minute: number): Priced {
  const { counts, events, seconds, cpuMs } = counted;
  const perMillion = MILLION / events;
  const lines = costLines(counts).map(({ name, amount, dollars }) => ({
    name,
    amount: amount / events,
    dollars: dollars * perMillion,
  }));
  const minutes = ((minute * seconds) / 60) * perMillion;
  return {
    counted,
    lines,
    minutes,
    total: dollarsOf(lines) + minutes,
    cpu: cpuMs * PRICES.workerCpuMs * perMillion,
    awake: awakeDollars(awakeSeconds(counts, timers, seconds, shards)) * perMillion,
    logs: logDollars(counts) * perMillion,
    rowsWritten: (counts.objectRowsWritten + counts.databaseRowsWritten) / events,
  };
}

function figuresOf(id: string, { counted, total, cpu, awake, rowsWritten }: Priced): Figure[] {
  return [
    {
      id: `rows-${id}`,
      name: `rows written per event, ${counted.name}`,
      value: rowsWritten,
      unit: "rows",
      note: `${counted.events} events`,
    },
    {
      id: `cost-${id}`,
      name: `cost per million events, ${counted.name}`,
      value: total,
      unit: "$",
      note: `with CPU and awake objects, which are estimates: $${(total + cpu + awake).toFixed(2)}`,
    },
  ];
}

/** What a deployment costs that gets no events at all. */
function constants({ eachMinute, sliceRows, expiry }: CountedCase, minute: number): Figure[] {
  return [
    {
      id: "cost-scheduled",
      name: "what happens each minute, a month",
      value: minute * MINUTES_A_MONTH,
      unit: "$",
      note: `a run: ${eachMinute.logCalls} Durable Object requests, ${eachMinute.objectRowsRead + eachMinute.databaseRowsRead} rows read, ${eachMinute.objectRowsWritten + eachMinute.databaseRowsWritten} written`,
    },
    {
      id: "cost-slices",
      name: "the logs' tables, made and dropped, a month",
      value: sliceRows * SLICES_A_MONTH * PRICES.objectRowWritten,
      unit: "$",
      note: `${sliceRows} rows written each time, for all shards`,
    },
    {
      id: "expiry-rows",
      name: "rows written by dropping what has expired",
      value: expiry.objectRowsWritten + expiry.tableRowsWritten,
      unit: "rows",
      note: `and ${expiry.objectRowsRead} read, whatever the number of events`,
    },
  ];
}

function costTable(cases: readonly Priced[]): Table {
  const names = cases[0]?.lines.map(({ name }) => name) ?? [];
  const dollars = (value: number): string => value.toFixed(3);
  const line = (name: string): string[] =>
    cases.map(({ lines }) => dollars(lines.find((line) => line.name === name)?.dollars ?? 0));
  return {
    title: `Cost of a million events ($, beyond what the plan includes, prices of ${PRICES_AS_OF})`,
    columns: ["", ...cases.map(({ counted }) => counted.name)],
    rows: [
      ...names.map((name) => [name, ...line(name)]),
      ["what happens each minute, at this rate", ...cases.map(({ minutes }) => dollars(minutes))],
      ["all that is counted", ...cases.map(({ total }) => dollars(total))],
      ["estimate: CPU", ...cases.map(({ cpu }) => dollars(cpu))],
      ["estimate: objects awake", ...cases.map(({ awake }) => dollars(awake))],
      ["Workers Logs, if invocations were logged", ...cases.map(({ logs }) => dollars(logs))],
      ["all, with estimates", ...cases.map(({ total, cpu, awake }) => dollars(total + cpu + awake))],
    ],
    notes: [
      "Counted: every operation until the events are aggregated, audited once and expired.",
      "Workers Logs are in no sum: only errors and warnings are logged (`invocation_logs = false`).",
      "CPU is an estimate: that of the whole local process, which also plays Cloudflare's part.",
      "Objects awake is an estimate: the wall time of their calls here (calls of one object that overlap count once), and of the logs' timers; a call to a log on Cloudflare's network takes longer, and its wait is billed.",
    ],
  };
}

function countsTable(cases: readonly Priced[]): Table {
  const names = cases[0]?.lines.map(({ name }) => name) ?? [];
  const amount = (value: number): string => value.toFixed(4);
  return {
    title: "Operations per event, as counted",
    columns: ["", ...cases.map(({ counted }) => counted.name)],
    rows: [
      ["events", ...cases.map(({ counted }) => counted.events)],
      ...names.map((name) => [
        name,
        ...cases.map((c) => amount(c.lines.find((line) => line.name === name)?.amount ?? 0)),
      ]),
      ["events in a commit", ...cases.map(({ counted: { events, counts } }) => amount(events / counts.groups))],
      ["groups in a message", ...cases.map(({ counted: { counts } }) => amount(counts.groups / counts.messages))],
      ["alarms set", ...cases.map(({ counted: { events, counts } }) => amount(counts.alarmsSet / events))],
      ["ms in the log's transactions", ...cases.map(({ counted: c }) => amount(c.counts.commitMs / c.events))],
      ["ms in D1's statements", ...cases.map(({ counted: c }) => amount(c.counts.databaseMs / c.events))],
      ["bytes in the log", ...cases.map(({ counted: c }) => Math.round(c.logBytes / c.events))],
      ["bytes in D1", ...cases.map(({ counted: c }) => Math.round(c.databaseBytes / c.events))],
    ],
  };
}
