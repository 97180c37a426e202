/** What came of a run of the crash harness. */
export type CrashReport = {
  readonly seed: number;
  readonly kills: number;
  /** Events of which an answer said that they are stored. */
  readonly acknowledged: number;
  /** Events of which an answer said that they are cancelled. */
  readonly cancellations: number;
  readonly retries: number;
  /** Requests of which the client never heard what came. */
  readonly abandoned: number;
  /** Acknowledged events and cancellations that are not there in the end. */
  readonly lost: number;
  /** What was accepted or is stored more than once. */
  readonly doubled: number;
  /** What else is not as it should be: summaries, answers. */
  readonly wrong: number;
  /** Summaries that were compared. */
  readonly summaries: number;
  /** Events databases of its mode in the end. */
  readonly databases: number;
  /** Shards of its mode's log in the end. */
  readonly shards: number;
  /** From the last start until everything was right, or not waited for any more (s). */
  readonly convergence: number;
  readonly seconds: number;
  /** All that is wrong, lost and doubled included; a line each. */
  readonly problems: readonly string[];
};

/** One line for whoever ran it. */
export const lineOf = (report: CrashReport): string =>
  [
    `crash: ${report.acknowledged} events acknowledged, ${report.kills} kills, ${report.lost} lost, ${report.doubled} doubled, ${report.wrong} otherwise wrong`,
    `${report.cancellations} cancellations, ${report.retries} retries, ${report.abandoned} abandoned`,
    `${report.summaries} summaries compared, ${report.databases} databases, ${report.shards} shards, done ${report.convergence} s after the last start`,
    `seed ${report.seed}, ${report.seconds} s`,
  ].join("; ");
