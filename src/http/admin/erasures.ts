import * as z from "zod";
import { eraseStep, type NoErasureStep, type ErasureStep as Step } from "../../archive/erase.ts";
import { eraseEntry, textOf } from "../../archive/erase-records.ts";
import { LIMITS } from "../../domain/limits.ts";
import { err, ok } from "../../domain/result.ts";
import { type Call, defineEndpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { text } from "../fields.ts";
import { eraseResponses } from "../idempotent-answer.ts";
import { DeadLetterObject } from "./dead-letters.ts";
import { OPERATIONS } from "./operations.ts";

const ErasureStep = z
  .object({
    object: z.literal("edgemeter.erasure_step"),
    alias: z.string().meta({ description: "The customer that has from now on what was received so far." }),
    series: z.int().meta({ description: "Series (meters and dimensions) that the alias took over in this step." }),
    events: z.int().meta({ description: "Events in databases that lost their identifiers and payloads." }),
    files: z.int().meta({ description: "Files of the archive that were written again." }),
    dead_letters: z.int(),
    error_reports: z.int().meta({ description: "Reports that lost samples which named the customer." }),
    responses: z.int().meta({ description: "Stored first responses that lost the customer." }),
    next: z.string().nullable().meta({ description: "The cursor of the next step; null after the last." }),
    livemode: z.boolean(),
  })
  .meta({ id: "ErasureStep" });

const erasureEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "post",
  needs: "operate",
  path: "/v1/edgemeter/erasures",
  tag: OPERATIONS,
  summary: "One step of a customer's erasure",
  description:
    "Moves a customer's usage in the key's mode to an alias and removes identifiers and payloads, one step a call. Call it again with the same customer and `next` as the cursor, until `next` is null. Any step may be repeated. A call without a cursor resumes an unfinished erasure. Usage that the customer reports later stays with the customer. `npm run erase` makes all the calls.",
  errors: ["archive_at_work"],
  fields: {
    customer: text(LIMITS.payloadValueLength),
    cursor: z.string().max(500).optional().meta({ type: "string" }),
  },
  response: ErasureStep,
  handle: async (call) => {
    const { env, input, key, now } = call;
    const { customer, cursor } = input;
    const found = await eraseStep(env, { livemode: key.livemode, customer, cursor }, now);
    if (!found.ok) return err(FAILURES[found.error]);
    const { alias, counts, next } = found.value;
    const step: z.output<typeof ErasureStep> = {
      object: "edgemeter.erasure_step",
      alias,
      series: counts.series,
      events: counts.events,
      files: counts.files,
      dead_letters: counts.deadLetters,
      error_reports: counts.errorReports,
      responses: await eraseLetters(call, found.value),
      next: next ?? null,
      livemode: key.livemode,
    };
    return ok(step);
  },
});

const FAILURES: Readonly<Record<NoErasureStep, ApiError>> = {
  archive_at_work: { reason: "archive_at_work" },
  invalid_cursor: {
    ...{ reason: "invalid_field", param: "cursor" },
    message: "Invalid cursor: it is not one of an erasure of this customer.",
  },
  is_alias: {
    ...{ reason: "invalid_field", param: "customer" },
    message: "Invalid customer: it is an alias, so its data is erased.",
  },
};

/** Erases a customer from the responses of `redrive`, which show dead letters. Other responses are about meters alone. */
function eraseLetters({ env, input, key }: Call<{ customer: string }>, { alias }: Step): Promise<number> {
  const erased = { customer: input.customer, alias, erasedAt: Number.POSITIVE_INFINITY };
  // The customer stands in an entry, which is JSON in JSON.
  return eraseResponses(env.DB, key.livemode, textOf(input.customer), (response) => {
    const { data } = DeadLetterObject.safeParse(response);
    const entry = data && eraseEntry(data.kind, data.entry, erased);
    return entry === undefined ? undefined : { ...data, entry };
  });
}

export const erasureEndpoints = [erasureEndpoint];
