import type { z } from "zod";
import { CommandError } from "../command-error.ts";
import { type Answer, errorOf, type Server, send } from "../http.ts";

/** How long a call is tried (ms). */
const PATIENCE_MS = 60_000;

/** Posts a form; throws a CommandError when the server refuses it. */
export async function post<T>(
  server: Server,
  path: string,
  fields: Readonly<Record<string, string>>,
  schema: z.ZodType<T>,
): Promise<T> {
  const body = String(new URLSearchParams(fields));
  return parsed(await tryPost(server, path, body), schema);
}

/** Posts a form, and gives also what refuses it. */
export const tryPost = (server: Server, path: string, body = ""): Promise<Answer> =>
  send(
    server,
    { method: "POST", path, headers: { "content-type": "application/x-www-form-urlencoded" }, body },
    PATIENCE_MS,
  );

export const get = async <T>(server: Server, path: string, schema: z.ZodType<T>): Promise<T> =>
  parsed(await send(server, { method: "GET", path }, PATIENCE_MS), schema);

function parsed<T>(answer: Answer, schema: z.ZodType<T>): T {
  if (!answer.ok) throw new CommandError(errorOf(answer).message);
  const result = schema.safeParse(answer.body);
  if (!result.success) throw new CommandError("the server's answer cannot be read; is it another version?");
  return result.data;
}
