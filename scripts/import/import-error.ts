/** Why an import cannot go on, as one line for whoever started it. */
export class ImportError extends Error {
  override readonly name = "ImportError";
}
