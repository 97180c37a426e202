import { expect, test } from "vitest";
import { allEndpoints, ROUTES } from "../../src/http/endpoints.ts";

test("the files of endpoints have the endpoints that their routes say, each once", async () => {
  const endpoints = await allEndpoints();
  expect(endpoints.map(({ method, path }) => `${method} ${path}`)).toEqual(ROUTES.map(({ route }) => route));
  expect(new Set(ROUTES.map(({ route }) => route)).size).toBe(ROUTES.length);
});
