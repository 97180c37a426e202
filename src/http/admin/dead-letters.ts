import * as z from "zod";
import { isAboutData } from "../../aggregate/apply.ts";
import {
  type DeadLetter,
  discard,
  findDeadLetter,
  type KnownLetter,
  listDeadLetters,
  placeOfDeadLetter,
  redrive,
} from "../../aggregate/dead-letters.ts";
import { eventsDatabases } from "../../catalog/databases.ts";
import { isBackwards, pageOf } from "../../domain/page.ts";
import { err, ok, type Result } from "../../domain/result.ts";
import type { Env } from "../../env.ts";
import { GROUP_KINDS } from "../../log/groups.ts";
import { defineEndpoint, type Endpoint } from "../endpoint.ts";
import type { ApiError } from "../errors.ts";
import { text, toUnix } from "../fields.ts";
import { commitOnce } from "../idempotent-answer.ts";
import { cursorOf, listOf, paging, toList } from "../list.ts";
import type { Described } from "../openapi.ts";
import { OPERATIONS } from "./operations.ts";

const PATH = "/v1/edgemeter/dead_letters";

export const DeadLetterObject = z
  .object({
    id: z.string(),
    object: z.literal("edgemeter.dead_letter"),
    kind: z.enum(GROUP_KINDS),
    entry: z.string().meta({ description: "As the log carried it: JSON, or what should have been." }),
    reason: z.string(),
    parked: z.int(),
    livemode: z.boolean(),
  })
  .meta({ id: "DeadLetter" });

const toWire = (letter: DeadLetter, livemode: boolean): z.output<typeof DeadLetterObject> => ({
  id: letter.id,
  object: "edgemeter.dead_letter",
  kind: letter.kind,
  entry: letter.entry,
  reason: letter.reason,
  parked: toUnix(letter.parked),
  livemode,
});

const listEndpoint = defineEndpoint({
  apiVersion: "v1",
  method: "get",
  path: PATH,
  tag: OPERATIONS,
  summary: "List dead letters",
  description:
    "Entries of the log that D1 refuses for their data, newest first. They count nowhere until they are redriven, and never when they are discarded. A cursor need not exist any more.",
  fields: paging,
  response: listOf(DeadLetterObject),
  handle: async ({ input, env, key }) => {
    const cursor = cursorOf(input);
    if (!cursor.ok) return cursor;
    const found = await Promise.all(
      eventsDatabases(env, key.livemode).map(({ db }) => listDeadLetters(db, cursor.value, input.limit + 1)),
    );
    const direction = isBackwards(cursor.value) ? 1 : -1;
    const letters = found.flat().sort((a, b) => (a.id < b.id ? -direction : direction));
    const page = pageOf(letters, cursor.value, input.limit);
    return ok(toList(page, PATH, (letter) => toWire(letter, key.livemode)));
  },
});

/** What a call does with a letter. Throws as `redrive` does. */
type Act = (db: D1Database, letter: KnownLetter, now: number) => Promise<Result<void, ApiError>>;

/** A call that ends a letter's waiting. */
const ending = (definition: Pick<Described, "summary" | "description" | "errors">, verb: string, act: Act): Endpoint =>
  defineEndpoint({
    ...definition,
    apiVersion: "v1",
    method: "post",
    needs: "operate",
    path: `${PATH}/{id}/${verb}`,
    tag: OPERATIONS,
    params: { id: text(100) },
    fields: {},
    response: DeadLetterObject,
    handle: (call) =>
      commitOnce(call, async () => {
        const { env, key, now } = call;
        const { id } = call.input;
        const db = databaseOf(id, env, key.livemode);
        const letter = db && (await findDeadLetter(db, id));
        if (db === undefined || letter === undefined) return err({ reason: "no_such_dead_letter", id });
        // In the database of its events. A retry that finds it done is told the same.
        const done = await act(db, letter, now);
        return done.ok ? ok({ response: toWire(letter, key.livemode), statements: [] }) : done;
      }),
  });

const redriveEndpoint = ending(
  {
    summary: "Store a dead letter after all",
    description:
      "Use it once the cause is repaired. It stores the entry as the aggregator would have, and removes the dead letter; once, also when it is called again.",
    errors: ["resource_missing", "still_refused", "letter_ended"],
  },
  "redrive",
  async (db, letter, now) => {
    const { id } = letter;
    if (letter.discarded !== null) return err({ reason: "letter_ended", id, as: "discarded" });
    try {
      await redrive(db, letter, now);
      return ok(undefined);
    } catch (error) {
      if (isAboutData(error)) return err({ reason: "still_refused", id, cause: error.message });
      throw error;
    }
  },
);

const discardEndpoint = ending(
  {
    summary: "Give a dead letter up",
    description:
      "For an entry that can never be stored, or should not be. It counts nowhere and never will, also when its log sends it again, and it holds up neither its slice's archive nor `edgemeter-complete-through`. It cannot be redriven any more. A discarded cancellation leaves its event counted.",
    errors: ["resource_missing", "letter_ended"],
  },
  "discard",
  async (db, letter, now) => {
    const became = await discard(db, letter, now);
    return became === "discarded" ? ok(undefined) : err({ reason: "letter_ended", id: letter.id, as: became });
  },
);

/** The database of a mode's dead letter; nothing when the id is none of it. */
function databaseOf(id: string, env: Env, livemode: boolean): D1Database | undefined {
  const place = placeOfDeadLetter(id);
  return place?.livemode === livemode ? eventsDatabases(env, livemode)[place.database]?.db : undefined;
}

export const deadLetterEndpoints = [listEndpoint, redriveEndpoint, discardEndpoint];
