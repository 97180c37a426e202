// Dimensions as requests and responses name them.

import * as z from "zod";
import { LIMITS } from "../domain/limits.ts";
import type { Meter } from "../domain/meter.ts";
import { err, ok, type Result } from "../domain/result.ts";
import type { DimensionFilter, UsageQuery } from "../query/usage.ts";
import type { ApiError } from "./errors.ts";
import { text } from "./fields.ts";

const key = text(LIMITS.payloadKeyLength);
const value = text(LIMITS.payloadValueLength);

/** Parameters that filter usage by dimensions, and tell it apart by them. */
export const dimensionFields = {
  dimension_filters: z
    .record(key, z.union([value, z.array(value).min(1).max(LIMITS.listItems)]))
    .optional()
    .meta({
      type: "object",
      additionalProperties: { type: "string" },
      description: "`dimension_filters[KEY]=VALUE`, or a list of values: only usage with one of them.",
    }),
  dimension_group_by_keys: z
    .array(key)
    .max(LIMITS.dimensionKeys)
    .optional()
    .meta({ description: "Dimensions of the meter whose values are told apart." }),
};

/** Values of dimensions. */
export const Dimensions = z.record(z.string(), z.string()).meta({
  description: "Empty where usage is past the limit of combinations of a customer.",
});

type Given = z.output<z.ZodObject<typeof dimensionFields>>;

/** What a request wants of a meter's dimensions. `prefix`: of the parameters, as in `meters[0]`. */
export function readDimensions(
  { dimension_filters: filters = {}, dimension_group_by_keys: keys = [] }: Given,
  { id, dimensionKeys }: Meter,
  prefix = "",
): Result<Pick<UsageQuery, "filters" | "keys">, ApiError> {
  const nameOf = (name: string): string => (prefix === "" ? name : `${prefix}[${name}]`);
  const used = [
    ...Object.keys(filters).map((name) => [name, `${nameOf("dimension_filters")}[${name}]`] as const),
    ...keys.map((name, i) => [name, `${nameOf("dimension_group_by_keys")}[${i}]`] as const),
  ];
  for (const [name, param] of used) {
    if (dimensionKeys.includes(name)) continue;
    const message = `Invalid ${param}: the meter ${id} declares no dimension of that name.`;
    return err({ reason: "invalid_field", message, param });
  }
  return ok({ filters: Object.entries(filters).map(toFilter), keys: [...new Set(keys)] });
}

const toFilter = ([name, wanted]: [string, string | string[]]): DimensionFilter => ({
  key: name,
  values: [wanted].flat(),
});

/** The values that a row of usage has of some dimensions. */
export function dimensionsOf(keys: readonly string[], group: string): Record<string, string> {
  const values: readonly (string | null)[] = JSON.parse(group);
  return Object.fromEntries(
    keys.flatMap((name, i) => {
      const found = values[i];
      return found == null ? [] : [[name, found]];
    }),
  );
}
