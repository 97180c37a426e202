/** Why a command cannot do what it was asked to, as one line for the user. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}
