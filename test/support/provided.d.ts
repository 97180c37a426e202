import "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** What random tests are drawn from; printed at the start of a run. */
    seed: number;
    /** How many requests the fuzz test sends: FUZZ_REQUESTS. */
    fuzzRequests: number;
    /** How many random stories are played on databases that grow: PLACEMENT_RUNS. */
    placementRuns: number;
    /** Likewise, on a log that grows: GROWTH_RUNS. */
    growthRuns: number;
    archiveRuns: number;
    /** How long D1 is away in the test of an outage: OUTAGE_MINUTES. */
    outageMinutes: number;
  }
}
