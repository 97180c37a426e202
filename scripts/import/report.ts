import { SingleBar } from "cli-progress";

/** What came of the rows so far. */
export type Tally = {
  accepted: number;
  duplicate: number;
  rejected: number;
  /** Attempts that had to be repeated. */
  retries: number;
  /** How far into the file the rows are done (bytes). */
  bytes: number;
};

export const newTally = (): Tally => ({ accepted: 0, duplicate: 0, rejected: 0, retries: 0, bytes: 0 });

const eventsOf = ({ accepted, duplicate, rejected }: Tally): number => accepted + duplicate + rejected;

/**
 * The last line of an import that took `elapsed` ms.
 *
 * @example "accepted 8819  duplicate 0  rejected 0  in 9.1 s (969/s)"
 */
export function summaryLine(tally: Tally, elapsed: number): string {
  const { accepted, duplicate, rejected } = tally;
  const rate = Math.round((eventsOf(tally) * 1_000) / Math.max(elapsed, 1));
  return `accepted ${accepted}  duplicate ${duplicate}  rejected ${rejected}  in ${(elapsed / 1_000).toFixed(1)} s (${rate}/s)`;
}

/** Between two looks at the tally: at a terminal, and in a log (ms). */
const BAR_MS = 250;
const LINE_MS = 5_000;

/** The rate is that of the last so many looks. */
const LOOKS = 20;

/** Shows on stderr how a tally grows: a bar at a terminal, a line now and then elsewhere. */
export class Progress {
  readonly #doing: string;
  readonly #tally: Tally;
  readonly #size: number;
  readonly #looks: { readonly at: number; readonly events: number; readonly bytes: number }[] = [];
  readonly #timer: NodeJS.Timeout;
  readonly #bar: SingleBar | undefined;

  /** Starts at once. `doing` says what goes on, `size` is that of the file (bytes). */
  constructor(doing: string, tally: Tally, size: number) {
    this.#doing = doing;
    this.#tally = tally;
    this.#size = size;
    this.#look();
    if (process.stderr.isTTY) {
      this.#bar = new SingleBar({
        format: "{bar} {text}",
        barsize: 24,
        barCompleteChar: "█",
        barIncompleteChar: "░",
        clearOnComplete: true,
        gracefulExit: false,
        stream: process.stderr,
      });
      this.#bar.start(size, 0, { text: this.#text() });
    }
    this.#timer = setInterval(() => this.#show(), this.#bar === undefined ? LINE_MS : BAR_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#bar?.stop();
  }

  #look(): void {
    this.#looks.push({ at: performance.now(), events: eventsOf(this.#tally), bytes: this.#tally.bytes });
    if (this.#looks.length > LOOKS) this.#looks.shift();
  }

  #show(): void {
    this.#look();
    if (this.#bar === undefined) console.error(this.#text());
    else this.#bar.update(Math.min(this.#tally.bytes, this.#size), { text: this.#text() });
  }

  #text(): string {
    const first = this.#looks[0];
    const last = this.#looks.at(-1);
    const seconds = first && last ? (last.at - first.at) / 1_000 : 0;
    const perSecond = (of: "events" | "bytes"): number =>
      first && last && seconds > 0 ? (last[of] - first[of]) / seconds : 0;

    const { bytes, retries } = this.#tally;
    const events = eventsOf(this.#tally);
    const left = (this.#size - bytes) / perSecond("bytes");
    return [
      this.#doing,
      `${Math.floor((Math.min(bytes, this.#size) * 100) / Math.max(this.#size, 1))}%`,
      ...(events > 0 ? [`${events} events`, `${Math.round(perSecond("events"))}/s`] : []),
      ...(Number.isFinite(left) ? [`${duration(left)} left`] : []),
      ...(retries > 0 ? [`${retries} retries`] : []),
    ].join("  ");
  }
}

/** Seconds for people: 47 s, 3 min 05 s, 2 h 10 min. */
function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (part: number): string => String(part).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3_600)} h ${two(Math.floor((whole % 3_600) / 60))} min`;
}
