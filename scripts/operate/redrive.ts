import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { Client } from "../http.ts";

const PATH = "/v1/edgemeter/dead_letters";

const Letter = z.object({ id: z.string() });

type RedriveOptions = {
  /** One dead letter; all of the key's mode unless given. */
  readonly id?: string;
  /** Gives the letter up instead; it needs an id. */
  readonly discard?: boolean;
  /** Its prefix says the mode. */
  readonly key: string;
};

/** Stores dead letters after all, or gives one up; prints why any is still there, and says whether none is left. */
export async function redrive(
  client: Client,
  { id, discard = false, key }: RedriveOptions,
  print: (line: string) => void,
): Promise<boolean> {
  // To give up all would be to lose usage by one careless line.
  if (discard && id === undefined) throw new Error("--discard needs the --id of one dead letter");
  const [verb, done] = discard ? ["discard", "discarded"] : ["redrive", "stored"];
  // All are listed before the first is stored, which would move the pages.
  const letters = id === undefined ? await Array.fromAsync(client.list(`${PATH}?`, Letter)) : [{ id }];
  let ended = 0;
  for (const letter of letters) {
    // With a key of its own, a letter's retry is told what its lost first attempt became.
    const path = `${PATH}/${encodeURIComponent(letter.id)}/${verb}`;
    const { ok, message } = await client.send({ path, form: {}, idempotencyKey: randomUUID() });
    if (ok) ended++;
    else print(`${letter.id}  ${message}`);
  }
  const mode = /^[rs]k_live_/.test(key) ? "live" : "test";
  print(`${letters.length} ${mode} dead letters: ${ended} ${done}, ${letters.length - ended} left`);
  return ended === letters.length;
}
