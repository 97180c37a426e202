import { createHash } from "node:crypto";

/** What is stored of an API key: its SHA-256 in hex. */
export const hashOf = (secret: string): string => createHash("sha256").update(secret).digest("hex");
