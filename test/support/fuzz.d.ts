import "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** How many requests the fuzz test sends: FUZZ_REQUESTS. */
    fuzzRequests: number;
  }
}
