import type { z } from "zod";
import { CommandError } from "../command-error.ts";
import { type Answer, errorOf, type Request, type Server, send } from "../http.ts";

/** Nothing has been done yet, so a server that is not there is soon reported (ms). */
const FIRST_PATIENCE_MS = 3_000;

/** How long a call is tried once the server has answered: long enough for it to be restarted (ms). */
const PATIENCE_MS = 60_000;

type Form = Readonly<Record<string, string>>;

/** What one command asks of a server, call after call. They throw a CommandError when they get no answer. */
export class Caller {
  readonly #server: Server;
  #hasAnswered = false;

  constructor(server: Server) {
    this.#server = server;
  }

  /** Throws a CommandError when the server refuses it. */
  async get<T>(path: string, schema: z.ZodType<T>): Promise<T> {
    return parsed(await this.#send({ method: "GET", path }), schema);
  }

  /** Posts a form; throws a CommandError when the server refuses it. */
  async post<T>(path: string, form: Form, schema: z.ZodType<T>): Promise<T> {
    return parsed(await this.tryPost(path, form), schema);
  }

  /** Posts a form, and gives also what refuses it. */
  tryPost(path: string, form: Form, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    return this.#send({
      method: "POST",
      path,
      headers: { "content-type": "application/x-www-form-urlencoded", ...headers },
      body: String(new URLSearchParams(form)),
    });
  }

  async #send(request: Request): Promise<Answer> {
    const answer = await send(this.#server, request, this.#hasAnswered ? PATIENCE_MS : FIRST_PATIENCE_MS);
    this.#hasAnswered = true;
    return answer;
  }
}

function parsed<T>(answer: Answer, schema: z.ZodType<T>): T {
  if (!answer.ok) throw new CommandError(errorOf(answer).message);
  const result = schema.safeParse(answer.body);
  if (!result.success) throw new CommandError("the server's answer cannot be read; is it another version?");
  return result.data;
}
