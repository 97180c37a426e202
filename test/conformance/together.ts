// Every file of this folder in one, since they share a server and run one after the other. The runner
// would run files that may not overlap after all others; one file it runs beside them.
import.meta.glob("./*.test.ts", { eager: true });

declare global {
  interface ImportMeta {
    /** Vite puts the imports in its place. */
    glob(pattern: string, options: { readonly eager: true }): unknown;
  }
}
