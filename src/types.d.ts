/** Part of V8 and of ECMAScript 2026; TypeScript's library does not have it yet. */
interface JSON {
  /** A value that JSON.stringify writes as this very text. */
  rawJSON(text: string): object;
}
