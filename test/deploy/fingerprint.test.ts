// By what a deployment knows that a Worker is as it should be.
import path from "node:path";
import { expect, test } from "vitest";
import { fingerprintOf } from "../../scripts/deploy/fingerprint.ts";
import { root } from "../../scripts/wrangler.ts";

test("the same code and settings have one fingerprint, wherever their configuration lies", async () => {
  const settings = { main: path.join(root, "src/index.ts"), vars: { A: "1" } };
  const one = await fingerprintOf({ ...settings, configPath: "/here", userConfigPath: "/here" });
  expect(await fingerprintOf({ ...settings, configPath: "/there" })).toBe(one);
});

test("another setting has another fingerprint", async () => {
  expect(await fingerprintOf({ vars: { A: "1" } })).not.toBe(await fingerprintOf({ vars: { A: "2" } }));
});

test("a fingerprint fits in the tag of a version, which has 25 characters", async () => {
  expect(await fingerprintOf({})).toMatch(/^[0-9a-f]{24}$/);
});
