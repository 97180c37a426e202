import { randomUUID } from "node:crypto";
import pRetry from "p-retry";
import { LOCAL_KEYS } from "../../../../scripts/local-keys.ts";
import { type Action, type ActionOf, type DrawnEvent, type DrawnRequest, drawRequests } from "./drawn.ts";
import { type Answer, attempt, verdictOf } from "./http.ts";
import type { Claim, Ledger } from "./ledger.ts";
import {
  cancelOperation,
  eventOperation,
  newKey,
  type Operation,
  reusedKeyOperation,
  type Sending,
  streamOperation,
  toHttp,
} from "./operations.ts";

/** Requests at a time: more than there are customers on a meter, so that some meet and get a 409. */
const LANES = 16;

/** The first wait before a retry, and the longest (ms); each is up to twice as long at random. */
const FIRST_WAIT_MS = 25;
const LONGEST_WAIT_MS = 200;

/** Events happen within so many seconds before the load began; `STRIDE` shares no factor with it. */
const PAST_SECONDS = 72_000;
const STRIDE = 7_919;

type Pause = { readonly quiet: () => void; readonly over: PromiseWithResolvers<void> };

/** Not settled by this attempt. */
class Unsettled extends Error {}

/**
 * The client: sends what was drawn, all the time, whether the server is there or not, and writes down
 * what it is answered.
 */
export class Load {
  readonly #url: string;
  readonly #ledger: Ledger;
  readonly #requests: Generator<DrawnRequest, never>;
  readonly #begin = Math.floor(Date.now() / 1_000);
  /** Every request so far. */
  readonly #operations: Operation[] = [];
  /** Those of events whose identifier the service made from their key, and their claims. */
  readonly #keyed: { readonly operation: Operation; readonly claim: Claim }[] = [];
  /** Claims in the order of their first report. */
  readonly #named: Claim[] = [];
  #token = "";
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

  /** Settles in the very turn in which the next answers so many have come. */
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
    const over = Promise.withResolvers<void>();
    this.#pause = { quiet: quiet.resolve, over };
    return quiet.promise;
  }

  /** Ends a pause, if there is one. */
  resume(): void {
    this.#pause?.over.resolve();
    this.#pause = undefined;
  }

  /** A lane waits for the end of the pause. */
  async #rest({ quiet, over }: Pause): Promise<void> {
    if (++this.#resting === LANES) quiet();
    await over.promise;
    this.#resting--;
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

  /** Sends until there is an answer that stays, or until the client gives up. */
  async #perform(operation: Operation, givesUp: boolean): Promise<void> {
    operation.runs++;
    try {
      await pRetry(() => this.#attempt(operation), {
        retries: Number.POSITIVE_INFINITY,
        minTimeout: FIRST_WAIT_MS,
        maxTimeout: LONGEST_WAIT_MS,
        randomize: true,
        shouldRetry: ({ error }) =>
          error instanceof Unsettled && !this.#stopped && !(givesUp && operation.unanswered > 0),
        onFailedAttempt: () => {
          this.#failedAttempts++;
        },
      });
    } catch (error) {
      if (!(error instanceof Unsettled)) throw error;
      this.abandoned++;
    }
  }

  async #attempt(operation: Operation): Promise<void> {
    if (operation.auth === "session" && this.#token === "") this.#token = await this.#newToken();
    const answer = await attempt(this.#url, toHttp(operation, this.#token));
    const verdict = verdictOf(answer);
    if (verdict === "session_expired") this.#token = "";
    if (answer === undefined || verdict === "unanswered") operation.unanswered++;
    if (answer === undefined || verdict === "unanswered" || verdict === "later" || verdict === "session_expired") {
      throw new Unsettled(verdict);
    }
    operation.settle(verdict, answer, operation);
    operation.first ??= answer;
    this.#onAnswer();
  }

  async #newToken(): Promise<string> {
    const headers = { authorization: `Bearer ${LOCAL_KEYS.test}`, "content-type": "application/json" };
    const answer: Answer | undefined = await attempt(this.#url, {
      path: "/v2/billing/meter_event_session",
      headers,
      body: "{}",
    });
    if (answer?.status !== 200) throw new Unsettled("no session");
    return JSON.parse(answer.text).authentication_token;
  }

  /** The request that was drawn; nothing when it looks back and there is nothing yet. */
  #plan(action: Action): Operation | undefined {
    switch (action.is) {
      case "event":
        return this.#event(action);
      case "stream":
        return this.#stream(action);
      case "again":
        return at(this.#operations, action.back);
      case "rival":
        return this.#rival(action);
      case "reused_key":
        return this.#reusedKey(action);
      case "cancel": {
        const claim = at(this.#ledger.cancellable, action.back);
        return claim && this.#remember(cancelOperation(this.#ledger, action.door, claim, newKey(action.hasKey)));
      }
    }
  }

  #event({ door, naming, ...drawn }: ActionOf<"event">): Operation {
    const key = newKey(naming !== "identifier");
    const sending = naming === "key" ? this.#underKey(drawn, `${key}`) : this.#underIdentifier(drawn);
    const operation = this.#remember(eventOperation(this.#ledger, door, sending, key));
    if (naming === "key") this.#keyed.push({ operation, claim: sending.claim });
    return operation;
  }

  #stream({ hasKey, events, rivals }: ActionOf<"stream">): Operation {
    const key = newKey(hasKey);
    const sendings = events.map((drawn, place) =>
      hasKey && !drawn.hasIdentifier ? this.#underKey(drawn, `${key}#${place}`) : this.#underIdentifier(drawn),
    );
    // At the end, since the place of an event is part of the identifier that its key gives it.
    for (const drawn of rivals) {
      const claim = at(this.#named, drawn.back);
      if (claim !== undefined) sendings.push(this.#sending(drawn, claim, claim.identifier));
    }
    return this.#remember(streamOperation(this.#ledger, sendings, key));
  }

  #rival({ door, hasKey, back, ...drawn }: ActionOf<"rival">): Operation | undefined {
    const claim = at(this.#named, back);
    if (claim === undefined) return undefined;
    const sending = this.#sending(drawn, claim, claim.identifier);
    return this.#remember(eventOperation(this.#ledger, door, sending, newKey(hasKey)));
  }

  #reusedKey({ back, event }: ActionOf<"reused_key">): Operation | undefined {
    const answered = this.#keyed.filter(({ claim }) => claim.holder !== undefined);
    const earlier = at(answered, back);
    if (earlier === undefined) return undefined;
    const { operation, claim } = earlier;
    const door = operation.path.startsWith("/v1/") ? "v1" : "v2";
    return reusedKeyOperation(this.#ledger, door, this.#sending(event, claim, undefined), operation.key ?? "");
  }

  #underIdentifier(drawn: DrawnEvent): Sending {
    const identifier = `id_${randomUUID()}`;
    const claim = this.#ledger.claim(identifier, identifier);
    this.#named.push(claim);
    return this.#sending(drawn, claim, identifier);
  }

  #underKey(drawn: DrawnEvent, name: string): Sending {
    return this.#sending(drawn, this.#ledger.claim(name, undefined), undefined);
  }

  #sending(drawn: DrawnEvent, claim: Claim, identifier: string | undefined): Sending {
    const { formula, customer, value, hasTimestamp } = drawn;
    const number = this.#made++;
    // `last` goes by timestamps, so no two may be the same.
    const timestamp =
      hasTimestamp || formula === "last" ? (this.#begin - ((number * STRIDE) % PAST_SECONDS)) * 1_000 : undefined;
    const report = { ref: `ref_${number}`, formula, customer, value: formula === "count" ? 1 : value, timestamp };
    claim.reports.push(report);
    return { claim, report, identifier };
  }

  #remember(operation: Operation): Operation {
    this.#operations.push(operation);
    return operation;
  }
}

/** The element so far from the end of a list, or as far as it goes. */
const at = <T>(list: readonly T[], back: number): T | undefined => list.at(-1 - (back % Math.max(1, list.length)));
