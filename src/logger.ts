/** What else a line says, under names of its own. */
type Fields = Readonly<Record<string, string | number | boolean>> & {
  readonly level?: never;
  readonly message?: never;
  readonly error?: never;
};

/** Says that something failed: one JSON object a line. Never give it a key, a token or a payload. */
export function logError(message: string, error: unknown, fields: Fields = {}): void {
  const text = error instanceof Error ? error.message : String(error);
  console.error(JSON.stringify({ level: "error", message, error: text, ...fields }));
}

/** For `catch`: says that something failed, and goes on. */
export const loggedAs =
  (message: string, fields?: Fields) =>
  (error: unknown): void =>
    logError(message, error, fields);

/** Says that something was not as it should be, and was repaired. As careful as `logError`. */
export function logWarning(message: string, fields: Fields = {}): void {
  console.warn(JSON.stringify({ level: "warning", message, ...fields }));
}
