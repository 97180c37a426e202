/** Structured logs: one JSON object a line. Never give them a key, a token or a payload. */
type Fields = Readonly<Record<string, string | number | boolean>>;

export function logInfo(message: string, fields: Fields = {}): void {
  console.log(JSON.stringify({ level: "info", message, ...fields }));
}

export function logError(message: string, error: unknown, fields: Fields = {}): void {
  const text = error instanceof Error ? error.message : String(error);
  console.error(JSON.stringify({ level: "error", message, error: text, ...fields }));
}
