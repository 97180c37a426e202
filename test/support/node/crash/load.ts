import { randomUUID } from "node:crypto";
import pRetry from "p-retry";
import { attempt, read, verdictOf } from "./client.ts";
import { type Action, type ActionOf, type DrawnEvent, type DrawnRequest, drawRequests } from "./drawn.ts";
import type { Claim, Ledger } from "./ledger.ts";
import * as operations from "./operations.ts";

/** Requests at a time: more than there are customers on a meter, so that some meet and get a 409. */
const LANES = 16;

/** From the first wait before a retry to the longest (ms); each is up to twice as long at random. */
const WAITS = { minTimeout: 25, maxTimeout: 200, randomize: true };

/** Events happen within so many seconds before the load began; `STRIDE` shares no factor with it. */
const PAST_SECONDS = 72_000;
const STRIDE = 7_919;

type Pause = { readonly quiet: () => void; readonly over: PromiseWithResolvers<void> };

/** Not settled by this attempt. */
class Unsettled extends Error {}

/**
 * The client: sends what was drawn, all the time, whether the server is there or not, and writes down
 * how it is answered.
 */
export class Load {
  readonly #url: string;
  readonly #ledger: Ledger;
  readonly #requests: Generator<DrawnRequest, never>;
  readonly #begin = Math.floor(Date.now() / 1_000);
  /** Every request so far. */
  readonly #operations: operations.Operation[] = [];
  /** Those of events whose identifier the service made from their key, and their claims. */
  readonly #keyed: { readonly operation: operations.Operation; readonly claim: Claim }[] = [];
  /** Claims in the order of their first report. */
  readonly #named: Claim[] = [];
  #token: string | undefined;
  #stopped = false;
  #made = 0;
  #lanes: Promise<unknown> = Promise.resolve();
  #pause: Pause | undefined;
  #resting = 0;
  #onAnswer: () => void = () => {};
  #failedAttempts = 0;
  /** Requests of which the client does not know what came. */
  abandoned = 0;

  constructor(url: string, ledger: Ledger, seed: number) {
    this.#url = url;
    this.#ledger = ledger;
    this.#requests = drawRequests(seed);
  }

  get retries(): number {
    return this.#failedAttempts - this.abandoned;
  }

  start(): void {
    this.#lanes = Promise.all(Array.from({ length: LANES }, () => this.#lane()));
  }

  /** The client is gone too: nothing new, and no retries. */
  stop(): void {
    this.#stopped = true;
  }

  /** Settles when the last request was answered or given up. */
  ended(): Promise<unknown> {
    return this.#lanes;
  }

  /** Settles in the very turn in which the next responses, so many, have come. */
  answers(count: number): Promise<void> {
    return new Promise((resolve) => {
      let left = count;
      this.#onAnswer = () => {
        if (--left <= 0) resolve();
      };
    });
  }

  /** Begins nothing new, and settles when every request has ended. */
  pause(): Promise<void> {
    const quiet = Promise.withResolvers<void>();
    this.#pause = { quiet: quiet.resolve, over: Promise.withResolvers() };
    return quiet.promise;
  }

  /** Ends a pause, if there is one. */
  resume(): void {
    this.#pause?.over.resolve();
    this.#pause = undefined;
  }

  async #lane(): Promise<void> {
    for (;;) {
      if (this.#pause !== undefined) await this.#rest(this.#pause);
      if (this.#stopped) return;
      const { action, givesUp } = this.#requests.next().value;
      const operation = this.#plan(action);
      if (operation !== undefined) await this.#perform(operation, givesUp);
    }
  }

  /** A lane waits for the end of the pause. */
  async #rest({ quiet, over }: Pause): Promise<void> {
    if (++this.#resting === LANES) quiet();
    await over.promise;
    this.#resting--;
  }

  /** Sends until there is a final response, or until the client gives up. */
  async #perform(operation: operations.Operation, givesUp: boolean): Promise<void> {
    operation.runs++;
    try {
      await pRetry(() => this.#attempt(operation), {
        ...WAITS,
        retries: Number.POSITIVE_INFINITY,
        shouldRetry: ({ error }) =>
          error instanceof Unsettled && !this.#stopped && !(givesUp && operation.unanswered > 0),
        onFailedAttempt: () => void this.#failedAttempts++,
      });
    } catch (error) {
      if (!(error instanceof Unsettled)) throw error;
      this.abandoned++;
    }
  }

  async #attempt(operation: operations.Operation): Promise<void> {
    const isStream = operation.path === operations.STREAM;
    if (isStream) this.#token ??= await this.#newToken();
    const answer = await attempt(this.#url, { ...operation, token: isStream ? this.#token : undefined });
    const verdict = verdictOf(answer);
    if (verdict === "session_expired") this.#token = undefined;
    if (verdict === "unanswered") operation.unanswered++;
    if (answer === undefined || verdict === "unanswered" || verdict === "later" || verdict === "session_expired") {
      throw new Unsettled(verdict);
    }
    operation.settle(verdict, answer, operation);
    operation.first ??= answer;
    this.#onAnswer();
  }

  async #newToken(): Promise<string> {
    const session = { path: "/v2/billing/meter_event_session", body: {} };
    const opened = read<{ authentication_token: string }>(this.#url, session);
    return opened.then(
      ({ authentication_token }) => authentication_token,
      () => Promise.reject(new Unsettled("no session")),
    );
  }

  /** The request that was drawn; nothing when it looks back and there is nothing yet. */
  #plan(action: Action): operations.Operation | undefined {
    const operation = this.#planned(action);
    if (operation !== undefined && action.is !== "again" && action.is !== "reused_key")
      this.#operations.push(operation);
    return operation;
  }

  #planned(action: Action): operations.Operation | undefined {
    switch (action.is) {
      case "event":
        return this.#event(action);
      case "stream":
        return this.#stream(action);
      case "again":
        return at(this.#operations, action.back);
      case "rival": {
        const [sending] = this.#rivals([action]);
        const { version, hasKey } = action;
        return sending && operations.eventOperation(this.#ledger, version, sending, operations.newKey(hasKey));
      }
      case "reused_key":
        return this.#reusedKey(action);
      case "cancel": {
        const claim = at(this.#ledger.cancellable, action.back);
        const { version, hasKey } = action;
        return claim && operations.cancelOperation(this.#ledger, version, claim, operations.newKey(hasKey));
      }
    }
  }

  #event({ version, naming, ...drawn }: ActionOf<"event">): operations.Operation {
    const key = operations.newKey(naming !== "identifier");
    const sending = naming === "key" ? this.#underKey(drawn, `${key}`) : this.#underIdentifier(drawn);
    const operation = operations.eventOperation(this.#ledger, version, sending, key);
    if (naming === "key") this.#keyed.push({ operation, claim: sending.claim });
    return operation;
  }

  #stream({ hasKey, events, rivals }: ActionOf<"stream">): operations.Operation {
    const key = operations.newKey(hasKey);
    const sendings = events.map((drawn, place) =>
      hasKey && !drawn.hasIdentifier ? this.#underKey(drawn, `${key}#${place}`) : this.#underIdentifier(drawn),
    );
    // At the end, since the place of an event is part of the identifier that its key gives it.
    return operations.streamOperation(this.#ledger, [...sendings, ...this.#rivals(rivals)], key);
  }

  #reusedKey({ back, event }: ActionOf<"reused_key">): operations.Operation | undefined {
    const answered = this.#keyed.filter(({ claim }) => claim.holder !== undefined);
    const earlier = at(answered, back);
    if (earlier === undefined) return undefined;
    const { operation, claim } = earlier;
    const version = operation.path.startsWith("/v1/") ? "v1" : "v2";
    const sending = this.#sending(event, claim, undefined);
    return operations.reusedKeyOperation(this.#ledger, version, sending, operation.key ?? "");
  }

  /** Other events under identifiers that were sent before. */
  #rivals(drawn: readonly (DrawnEvent & { back: number })[]): operations.Sending[] {
    return drawn.flatMap((event) => {
      const claim = at(this.#named, event.back);
      return claim === undefined ? [] : [this.#sending(event, claim, claim.identifier)];
    });
  }

  #underIdentifier(drawn: DrawnEvent): operations.Sending {
    const identifier = `id_${randomUUID()}`;
    const claim = this.#ledger.claim(identifier, identifier);
    this.#named.push(claim);
    return this.#sending(drawn, claim, identifier);
  }

  #underKey(drawn: DrawnEvent, name: string): operations.Sending {
    return this.#sending(drawn, this.#ledger.claim(name, undefined), undefined);
  }

  #sending(drawn: DrawnEvent, claim: Claim, identifier: string | undefined): operations.Sending {
    const { formula, customer, value, hasTimestamp } = drawn;
    const number = this.#made++;
    // `last` goes by timestamps, so no two may be the same.
    const timestamp =
      hasTimestamp || formula === "last" ? (this.#begin - ((number * STRIDE) % PAST_SECONDS)) * 1_000 : undefined;
    const report = { ref: `ref_${number}`, formula, customer, value: formula === "count" ? 1 : value, timestamp };
    claim.reports.push(report);
    return { claim, report, identifier };
  }
}

/** The element so far from the end of a list, or as far as it goes. */
const at = <T>(list: readonly T[], back: number): T | undefined => list.at(-1 - (back % Math.max(1, list.length)));
