// How complete the databases are, for those who read them: up to which moment everything that the log has received is in
// them, and when all is that was received before a request.
import { FRESH_MS } from "../catalog/positive-cache.ts";
import type { Placement } from "../domain/placement.ts";
import { longerShards } from "../domain/shards.ts";
import { logError } from "../logger.ts";
import { withTimeout } from "../timeout.ts";
import type { LogContext, LogProgress } from "./entries.ts";
import { shardsOf } from "./shards.ts";

/**
 * By how much a receipt may be earlier than a moment that was named before it (ms). A shard stamps what it takes with its
 * own clock at the commit, and the moment is of the same clock, so neither the caller's nor the reader's clock matters.
 * What is left is that the clock may go back: when the shard is started anew, on a machine whose clock is behind; when
 * the log grows, since a new shard has a clock of its own and its first events may be unknown to those who ask the old
 * ones; and within one machine, where the runtime's clock stands still while code runs. Machines that keep time by NTP
 * differ by some ms, and what was received never goes back behind the newest group of its shard.
 */
const CLOCK_TOLERANCE_MS = 1_000;

/** What shards have said is used without a question for this long (ms); docs/wire-contract.md names it. */
const TOLD_MS = 1_000;

/** How long a shard is waited for (ms) before its last word is taken. */
const PATIENCE_MS = 1_000;

/** For so long its last word is taken at once (ms), so that reads do not wait for it one after another. */
const SILENCE_MS = 10_000;

/** The pauses of a wait (ms): the first, the longest, and how they grow. */
const PAUSE_MS = { first: 20, longest: 500, factor: 1.5 } as const;

/** Whom to ask. */
export type Sources = {
  /** What is recorded of the log. Throws when nobody says. */
  readonly context: () => Promise<LogContext>;
  /** Asks a shard; `isAwaited`: it shall send at once. */
  readonly ask: (shard: string, context: LogContext, isAwaited: boolean) => Promise<LogProgress>;
  /** When the oldest entry was received (ms) that waits in a database as a dead letter. */
  readonly oldestLetter: (place: number) => Promise<number | undefined>;
};

/** Which databases are read, by their places. */
export type PlacesRead = (placement: Placement) => readonly number[];

type Clock = { readonly now: () => number; readonly wait: (ms: number) => Promise<unknown> };

/** What the shards said at one time. */
type Round = {
  /** When the first of them was asked (ms). */
  readonly at: number;
  readonly context: LogContext;
  /** What each shard says, or said last; nothing for one that has not said anything yet. */
  readonly known: ReadonlyMap<string, LogProgress | undefined>;
  /** Those that did not answer this time. */
  readonly silent: ReadonlySet<string>;
  /** The moments of databases, as far as they were asked for. */
  readonly moments: Map<number, number>;
};

/**
 * What an isolate knows of a mode. Promises are not shared between requests, since the runtime ends a request's I/O with
 * it.
 */
export class Completeness {
  readonly #clock: Clock;
  #context: { readonly value: LogContext; readonly at: number } | undefined;
  /** What each shard said last. It stays true, so one that does not answer delays nothing but its own moment. */
  readonly #told = new Map<string, LogProgress>();
  /** When each shard did not answer (ms), unless it has since. */
  readonly #silentSince = new Map<string, number>();
  #round: Round | undefined;

  constructor(clock: Clock = { now: () => Date.now(), wait: (ms) => scheduler.wait(ms) }) {
    this.#clock = clock;
  }

  /**
   * A moment (ms): every entry that the log received before it is in the databases read. Nothing when a shard has never
   * said anything to this isolate, or somebody else who must be asked does not answer. What is read must be read after.
   */
  async through(sources: Sources, placesRead: PlacesRead): Promise<number | undefined> {
    try {
      const round = this.#recentRound() ?? (await this.#askAll(sources));
      const moments = await Promise.all(
        placesRead(round.context.placement).map((place) => this.#momentOf(place, round, sources)),
      );
      return moments.includes(undefined) ? undefined : Math.min(...moments.filter((moment) => moment !== undefined));
    } catch (error) {
      logError("how complete a response is could not be said", error);
      return undefined;
    }
  }

  /**
   * Waits until all that the log has received is in the databases read; whether it is by the deadline (ms). No clocks are
   * compared: each shard says what its newest group is, and then how far it has got. Throws when the control database
   * does not answer.
   */
  async isIncluded(sources: Sources, placesRead: PlacesRead, deadline: number): Promise<boolean> {
    /** The newest receipt of each shard when it was first asked. */
    const targets = new Map<string, number>();
    for (let pause: number = PAUSE_MS.first; ; pause = Math.min(pause * PAUSE_MS.factor, PAUSE_MS.longest)) {
      const round = await this.#askAll(sources, targets.size === 0 ? "first" : "again");
      for (const [shard, progress] of round.known) {
        if (progress !== undefined && !round.silent.has(shard) && !targets.has(shard)) {
          targets.set(shard, progress.newest);
        }
      }
      if (await this.#has(targets, round, placesRead(round.context.placement), sources)) return true;
      const left = deadline - this.#clock.now();
      if (left <= 0) return false;
      await this.#clock.wait(Math.min(pause, left));
    }
  }

  /** Whether databases have what shards had received. What was taken back meanwhile counts as missing: it comes again. */
  async #has(
    targets: ReadonlyMap<string, number>,
    round: Round,
    places: readonly number[],
    { oldestLetter }: Sources,
  ): Promise<boolean> {
    if (round.silent.size > 0) return false;
    const isAhead = (oldest: number | undefined, target: number): boolean => oldest === undefined || oldest > target;
    for (const [shard, target] of targets) {
      const oldestOf = round.known.get(shard)?.oldestOf ?? {};
      if (!places.every((place) => isAhead(oldestOf[place], target))) return false;
    }
    // A log takes what was parked for confirmed, so letters are asked for after it.
    const letters = await Promise.all(places.map(oldestLetter));
    return letters.every((letter) => isAhead(letter, Math.max(...targets.values())));
  }

  #recentRound(): Round | undefined {
    if (this.#round === undefined) return undefined;
    const age = this.#clock.now() - this.#round.at;
    return age >= 0 && age < TOLD_MS ? this.#round : undefined;
  }

  /** Asks every shard, also those that an answer tells of. `wait`: for a request that waits, the first time or again. */
  async #askAll(sources: Sources, wait?: "first" | "again"): Promise<Round> {
    const at = this.#clock.now();
    const known = new Map<string, LogProgress | undefined>();
    const silent = new Set<string>();
    let context = await this.#contextOf(sources);
    const left = (): string[] => shardsOf(context).filter((shard) => !known.has(shard));
    for (let next = left(); next.length > 0; next = left()) {
      const answers = await Promise.allSettled(
        next.map(async (shard) => {
          if (wait === undefined && this.#isSilent(shard, at)) throw new Error("it has just not answered");
          return withTimeout(sources.ask(shard, context, wait === "first"), PATIENCE_MS);
        }),
      );
      for (const [i, answer] of answers.entries()) {
        const shard = next[i] ?? "";
        if (answer.status === "rejected") {
          silent.add(shard);
          if (!this.#isSilent(shard, at)) this.#silentSince.set(shard, at);
        } else {
          this.#silentSince.delete(shard);
          this.#told.set(shard, answer.value);
          context = { ...context, shards: longerShards(context.shards, answer.value.shards) };
        }
        known.set(shard, this.#told.get(shard));
      }
    }
    this.#context = { value: context, at: this.#context?.at ?? at };
    this.#round = { at, context, known, silent, moments: new Map() };
    return this.#round;
  }

  #isSilent(shard: string, now: number): boolean {
    const age = now - (this.#silentSince.get(shard) ?? Number.NEGATIVE_INFINITY);
    return age >= 0 && age < SILENCE_MS;
  }

  /** What is recorded of the log, and what shards have said beyond it. */
  async #contextOf({ context }: Sources): Promise<LogContext> {
    const at = this.#clock.now();
    const age = at - (this.#context?.at ?? Number.NEGATIVE_INFINITY);
    // Not the latest need it be: a log that has grown says so itself, and more databases are used only a quarter of an
    // hour after they are recorded.
    if (this.#context !== undefined && age >= 0 && age < FRESH_MS) return this.#context.value;
    const value = await context();
    this.#context = { value, at };
    return value;
  }

  async #momentOf(place: number, round: Round, { oldestLetter }: Sources): Promise<number | undefined> {
    const earlier = round.moments.get(place);
    if (earlier !== undefined) return earlier;
    const told = [...round.known.values()];
    if (told.includes(undefined)) return undefined;
    // A log takes what was parked for confirmed, so letters are asked for after it.
    const letter = (await oldestLetter(place)) ?? Number.POSITIVE_INFINITY;
    const moment = told
      .filter((progress) => progress !== undefined)
      .reduce((least, { now, oldestOf }) => Math.min(least, now - CLOCK_TOLERANCE_MS, oldestOf[place] ?? now), letter);
    round.moments.set(place, moment);
    return moment;
  }
}
