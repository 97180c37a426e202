// The end of a CI run: adds up vitest's JSON reports, with each step that failed as a whole, and
// fails when anything did. Usage: ci-summary.ts FAILED_STEPS REPORT...
import { existsSync, readFileSync } from "node:fs";

type Report = { numPassedTests: number; numFailedTests: number; numPendingTests: number; success: boolean };

const [failedSteps = "0", ...files] = process.argv.slice(2);
const reports = files.map((file): Report | undefined =>
  existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined,
);
const sum = (of: (report: Report) => number): number =>
  reports.reduce((total, report) => total + (report === undefined ? 0 : of(report)), 0);

const passed = sum((report) => report.numPassedTests);
// A step may fail without a failed test (lint, a suite that did not start): it counts as one.
const stepsWithFailedTests = sum((report) => (report.numFailedTests > 0 ? 1 : 0));
const failed = sum((report) => report.numFailedTests) + Math.max(0, Number(failedSteps) - stepsWithFailedTests);
const skipped = sum((report) => report.numPendingTests);

if (skipped > 0) console.log(`skipped: ${skipped}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 && reports.every((report) => report?.success) ? 0 : 1;
