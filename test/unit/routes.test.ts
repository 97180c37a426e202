import { describe, expect, test } from "vitest";
import { allEndpoints } from "../../src/http/endpoints.ts";
import { matchesOf, pathOf } from "../../src/http/routes.ts";

describe("a route", () => {
  test("leads to every endpoint, and to one only", async () => {
    for (const endpoint of await allEndpoints()) {
      const matches = await matchesOf(endpoint.path.replaceAll(/[{}]/g, ""));
      const found = matches.filter(({ endpoint: { method } }) => method === endpoint.method);
      expect(found.map((match) => match.endpoint.path)).toEqual([endpoint.path]);
    }
  });

  test.each([
    ["/v1/billing/meters/mtr_1/event_summaries?limit=1", { id: "mtr_1" }],
    ["/v1/billing/meter_events/a%2Fb%25c%20%C3%A9", { identifier: "a/b%c é" }],
    ["/v1/billing/meter_events/%252F", { identifier: "%2F" }],
    ["/v1/billing/meter_events/%ff", { identifier: "%ff" }],
    ["/v1/billing/%6Deter_events/x#y", { identifier: "x" }],
  ])("has the parameters of %s", async (path, params) => {
    const matches = await matchesOf(pathOf(`https://edgemeter.test${path}`));
    expect(matches.map((match) => match.params)).toEqual([params]);
  });

  test.each([
    "/",
    "",
    "/v1/billing/meters/",
    "/v1/billing/meters//deactivate",
    "/v1/billing/meters%2Fx",
    "/V1/billing/meters",
  ])("is none of %j", async (path) => {
    expect(await matchesOf(pathOf(`https://edgemeter.test${path}`))).toEqual([]);
  });
});
