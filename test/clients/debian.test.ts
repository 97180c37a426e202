import { execFile, spawnSync } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { createMeter, unique, url } from "../conformance/client.ts";
import { used } from "./summary.ts";

/** The system's own Python, whatever comes first on the PATH: only it has Debian's packages. */
const PYTHON = "/usr/bin/python3";

const isInstalled = spawnSync(PYTHON, ["-c", "import stripe"]).status === 0;
if (!isInstalled) console.log("skipped: python3-stripe is not installed (apt-get install python3-stripe)");

describe("Debian's python3-stripe", () => {
  it.skipIf(!isInstalled)("reports an event, which counts once however often it is sent", async () => {
    const meter = await createMeter();
    const identifier = unique("idmp");
    const script = path.join(import.meta.dirname, "report_event.py");
    const args = [script, url, LOCAL_KEYS.test, meter.event_name, identifier];
    const { stdout } = await promisify(execFile)(PYTHON, args);
    expect(JSON.parse(stdout)).toEqual({
      event: expect.objectContaining({
        object: "billing.meter_event",
        event_name: meter.event_name,
        identifier,
        livemode: false,
        payload: { stripe_customer_id: "cus_1", value: "25" },
      }),
      refusal: `An event already exists with identifier ${identifier}.`,
    });
    expect(await used(meter, "cus_1")).toBe(25);
  });
});
