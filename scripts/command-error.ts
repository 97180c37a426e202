/** Why a command cannot do what it was asked to, as one line for whoever started it. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}
