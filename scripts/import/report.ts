import { SingleBar } from "cli-progress";

/** What came of the rows so far. */
export type Tally = {
  accepted: number;
  duplicate: number;
  rejected: number;
  /** Cancelled events of an exported file, which are left out. */
  cancelled: number;
  /** Attempts that had to be repeated. */
  retries: number;
  /** How far into the file the rows are done (bytes). */
  bytes: number;
};

export const newTally = (): Tally => ({ accepted: 0, duplicate: 0, rejected: 0, cancelled: 0, retries: 0, bytes: 0 });

const eventsOf = ({ accepted, duplicate, rejected, cancelled }: Tally): number =>
  accepted + duplicate + rejected + cancelled;

const perSecond = (events: number, elapsed: number): number => Math.round((events * 1_000) / Math.max(elapsed, 1));

/**
 * The last line of an import that took `elapsed` ms.
 *
 * @example "accepted 8819  duplicate 0  rejected 0  in 9.1 s (969/s)"
 * @example "accepted 8819  duplicate 0  rejected 0  left out as cancelled 2  in 9.1 s (969/s)"
 */
export function summaryLine(tally: Tally, elapsed: number): string {
  const { accepted, duplicate, rejected, cancelled } = tally;
  const leftOut = cancelled > 0 ? `  left out as cancelled ${cancelled}` : "";
  const rate = perSecond(eventsOf(tally), elapsed);
  return `accepted ${accepted}  duplicate ${duplicate}  rejected ${rejected}${leftOut}  in ${(elapsed / 1_000).toFixed(1)} s (${rate}/s)`;
}

/** Between two looks at the tally: at a terminal, and in a log (ms). */
const BAR_MS = 250;
const LINE_MS = 5_000;

/**
 * Shows on stderr how a tally grows, until the returned function is called: a bar at a terminal, a line
 * now and then in a log. `doing` says what is under way, `size` is that of the file (bytes).
 */
export function showProgress(doing: string, tally: Tally, size: number): () => void {
  const started = performance.now();
  const percent = (): number => Math.floor((Math.min(tally.bytes, size) * 100) / Math.max(size, 1));
  const text = (): string => {
    const events = eventsOf(tally);
    const rate = perSecond(events, performance.now() - started);
    const retries = tally.retries > 0 ? `  ${tally.retries} retries` : "";
    return `${doing}  ${percent()}%${events > 0 ? `  ${events} events  ${rate}/s` : ""}${retries}`;
  };
  if (!process.stderr.isTTY) {
    const timer = setInterval(() => console.error(text()), LINE_MS).unref();
    return () => clearInterval(timer);
  }
  const format = "{bar} {text}  {eta_formatted} left";
  const bar = new SingleBar({
    format,
    barsize: 24,
    clearOnComplete: true,
    gracefulExit: false,
    stream: process.stderr,
  });
  bar.start(size, 0, { text: text() });
  const timer = setInterval(() => bar.update(Math.min(tally.bytes, size), { text: text() }), BAR_MS).unref();
  return () => {
    clearInterval(timer);
    bar.stop();
  };
}
