import type { Formula } from "./drawn.ts";

/** An event as it was sent, under an identity that may have been sent before. */
export type Report = {
  /** Part of its payload and of no other's: by it the stored event is known again. */
  readonly ref: string;
  readonly formula: Formula;
  readonly customer: string;
  readonly value: number;
  /** ms, whole seconds; nothing: when it is received. */
  readonly timestamp: number | undefined;
};

/**
 * What is unique for 24 hours: an identifier, or the place under an Idempotency-Key from which the
 * service makes one. Of all its reports one may be stored, and must be once anything was acknowledged.
 */
export type Claim = {
  readonly name: string;
  /** Nothing while only the service knows it. */
  identifier: string | undefined;
  readonly reports: Report[];
  /** A response said that one of the reports is stored. */
  acknowledged: boolean;
  /** Which one, when that is known. */
  holder?: Report;
  /** Who tried to cancel it. */
  readonly cancellers: Set<object>;
  /** A response said that it is cancelled. */
  cancelled: boolean;
  /** Whose cancellation was the one that did it, when that is known. */
  canceller?: object;
};

/** What the client knows by the responses that it got, and nothing that it only hopes. */
export class Ledger {
  readonly #claims = new Map<string, Claim>();
  /** Claims whose event can be cancelled: stored for sure, the identifier known. */
  readonly cancellable: Claim[] = [];
  /** Responses that should not have been given. */
  readonly problems: string[] = [];
  /** Responses that said twice what may be said once. */
  doubled = 0;

  get claims(): readonly Claim[] {
    return [...this.#claims.values()];
  }

  /** The claim of this name, made when it is new. */
  claim(name: string, identifier: string | undefined): Claim {
    const known = this.#claims.get(name);
    if (known !== undefined) return known;
    const claim = {
      name,
      identifier,
      reports: [],
      acknowledged: false,
      cancellers: new Set<object>(),
      cancelled: false,
    };
    this.#claims.set(name, claim);
    return claim;
  }

  /** A 200 for this very report. */
  accepted(claim: Claim, report: Report, identifier: string): void {
    const { name, holder = report } = claim;
    if (holder !== report) this.double(`${name} was accepted as ${holder.ref} and as ${report.ref}`);
    if ((claim.identifier ?? identifier) !== identifier) this.problem(`${name} was answered as ${identifier}`);
    claim.identifier = identifier;
    this.#hold(claim, report);
  }

  /** A response that says that one of the reports is stored. */
  taken(claim: Claim): void {
    const [only, ...others] = claim.reports;
    if (only !== undefined && others.length === 0) this.#hold(claim, only);
    claim.acknowledged = true;
  }

  /** A 200 to the cancellation of `canceller`. */
  cancelled(claim: Claim, canceller: object): void {
    if ((claim.canceller ?? canceller) !== canceller) this.double(`${claim.name} was cancelled twice`);
    claim.canceller = canceller;
    claim.cancelled = true;
  }

  problem(text: string): void {
    this.problems.push(text);
  }

  double(text: string): void {
    this.doubled++;
    this.problem(text);
  }

  #hold(claim: Claim, report: Report): void {
    if (claim.holder === undefined && claim.identifier !== undefined) this.cancellable.push(claim);
    claim.holder ??= report;
    claim.acknowledged = true;
  }
}
