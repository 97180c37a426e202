// What a preview is called, and what it may share with production: nothing.
import path from "node:path";
import fc from "fast-check";
import { describe, expect, inject, test } from "vitest";
import { experimental_readRawConfig as readRawConfig } from "wrangler";
import { previewConfig } from "../../scripts/preview/config.ts";
import { previewNames, slugOf } from "../../scripts/preview/names.ts";

const namesOf = (branch: string) => previewNames(branch, "edgemeter", ["staging"]);

/** Branches as people and tools call them, and worse. */
const branches = fc.oneof(
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 200 }),
  fc.string({ unit: fc.constantFrom("a", "A", "/", "-", "_", ".", "é", "e\u{301}", " "), minLength: 1, maxLength: 20 }),
  fc.string({ unit: fc.constantFrom("x", "y"), minLength: 100, maxLength: 200 }),
);

describe("a branch's slug", () => {
  test("is part of a host name, whatever the branch is called, and leaves room for the names of queues", () => {
    const property = fc.property(branches, (branch) => {
      expect(slugOf(branch)).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
      expect(`edgemeter-${slugOf(branch)}-test-events`.length).toBeLessThanOrEqual(63);
    });
    fc.assert(property, { seed: inject("seed"), numRuns: 2_000 });
  });

  test("is another one for another branch, however alike they are", () => {
    const property = fc.property(fc.uniqueArray(branches, { minLength: 50, maxLength: 100 }), (different) => {
      expect(new Set(different.map(slugOf)).size).toBe(different.length);
    });
    fc.assert(property, { seed: inject("seed"), numRuns: 50 });
  });

  test.each([
    ["main-menu", "main-menu-661d7841fcc4"],
    ["feature/Größe & more", "feature-gro-e-more-"],
    ["Feature/GRÖSSE & MORE", "feature-grosse-more-"],
    ["日本語", ""],
    ["x".repeat(100), `${"x".repeat(24)}-`],
    ["--", ""],
  ])("of '%s' is readable and ends with a hash, for ever the same", (branch, start) => {
    expect(slugOf(branch)).toMatch(new RegExp(`^${start}[0-9a-f]*$`));
  });
});

test.each(["main", "Main", "master", "production", "staging", "edgemeter", "edgemeter-staging", " main "])(
  "'%s' is no branch to preview",
  (branch) => expect(() => namesOf(branch)).toThrow("is no branch to preview"),
);

test.each(["", "a\nb", "\u{1b}[2J", "\u{d800}", "x".repeat(251)])("%j is no branch", (branch) => {
  expect(() => namesOf(branch)).toThrow("a branch's name is");
});

describe("a preview's configuration", () => {
  const { rawConfig } = readRawConfig({ config: path.join(import.meta.dirname, "../../wrangler.toml") });

  test("is production's, under names that nobody else has", () => {
    const names = namesOf("a/branch");
    const [queue, testQueue] = [`${names.worker}-events`, `${names.worker}-test-events`];
    expect(previewConfig(rawConfig, names)).toMatchObject({
      name: names.worker,
      vars: { ...rawConfig.vars, PREVIEW_BRANCH: "a/branch" },
      d1_databases: [
        { binding: "DB", database_name: names.worker },
        { binding: "EVENTS_0", database_name: `${names.worker}-events-0` },
        { binding: "TEST_EVENTS", database_name: `${names.worker}-test-events` },
      ],
      queues: {
        producers: [{ binding: "EVENT_QUEUE", queue }, { queue: testQueue }],
        consumers: [{ queue, max_retries: 0 }, { queue: testQueue }],
      },
      durable_objects: rawConfig.durable_objects,
      exports: rawConfig.exports,
      triggers: rawConfig.triggers,
    });
    expect(previewConfig(rawConfig, names)).not.toHaveProperty("env");
  });

  test("has one events database for live mode, however many production has", () => {
    const more = { binding: "EVENTS_1", database_name: "edgemeter-events-1" };
    const grown = { ...rawConfig, d1_databases: [...(rawConfig.d1_databases ?? []), more] };
    expect(previewConfig(grown, namesOf("a"))).toEqual(previewConfig(rawConfig, namesOf("a")));
  });

  test("has no bucket, whose objects nothing would delete with it", () => {
    const archived = { ...rawConfig, r2_buckets: [{ binding: "ARCHIVE", bucket_name: "edgemeter-archive" }] };
    expect(previewConfig(archived, namesOf("a"))).not.toHaveProperty("r2_buckets");
  });

  test("has none of production's custom domains, but its workers.dev address", () => {
    const routes = [{ pattern: "meter.example.com", custom_domain: true }];
    const config = previewConfig({ ...rawConfig, workers_dev: false, routes }, namesOf("a"));
    expect(config).toMatchObject({ workers_dev: true });
    expect(config).not.toHaveProperty("routes");
  });

  test("counts its rate limits apart from production and other branches", () => {
    const limits = [
      "1001",
      namesOf("a").rateLimit("1001"),
      namesOf("b").rateLimit("1001"),
      namesOf("a").rateLimit("1"),
    ];
    expect(new Set(limits).size).toBe(limits.length);
    for (const limit of limits) expect(Number(limit)).toBeLessThan(2 ** 31);
  });

  test.each([
    ["another bucket", { r2_buckets: [{ binding: "B", bucket_name: "production" }] }],
    ["a route", { routes: ["meter.example.com/*"] }],
    ["a route of a zone", { routes: [{ pattern: "meter.example.com/*", zone_name: "example.com" }] }],
    ["another Worker", { services: [{ binding: "S", service: "production" }] }],
    ["another Worker's objects", { durable_objects: { bindings: [{ name: "A", class_name: "A", script_name: "b" }] } }],
  ])("is refused when it would share %s with production", (_, shared) => {
    expect(() => previewConfig({ ...rawConfig, ...shared }, namesOf("a"))).toThrow("cannot have this of its own");
  });
});
