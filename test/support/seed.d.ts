import "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** What random tests are drawn from; printed at the start of a run. */
    seed: number;
  }
}
