import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import type { HtmlEscapedString } from "hono/utils/html";
import { KEY_SECURITY } from "./openapi.ts";

/** The parts of an OpenAPI document that the page shows. */
type Schema = {
  $ref?: string;
  type?: string | readonly string[];
  format?: string;
  description?: string;
  enum?: readonly unknown[];
  const?: unknown;
  properties?: Record<string, Schema>;
  required?: readonly string[];
  items?: Schema;
  additionalProperties?: Schema | boolean;
  anyOf?: readonly Schema[];
};

type Operation = {
  summary?: string;
  description?: string;
  tags?: readonly string[];
  parameters?: readonly { name: string; in: string; required?: boolean; schema?: Schema; description?: string }[];
  requestBody?: { content?: Record<string, { schema?: Schema }> };
  responses?: Record<string, { description?: string; content?: Record<string, { schema?: Schema }> }>;
};

type Document = {
  info: { title: string; description?: string };
  paths?: Record<string, Record<string, Operation>>;
  components?: { schemas?: Record<string, Schema> };
};

type Html = HtmlEscapedString | Promise<HtmlEscapedString>;

const STYLE = `
  :root { color-scheme: light dark; --soft: color-mix(in srgb, currentColor 12%, transparent); }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--soft); }
  details { border: 1px solid var(--soft); border-radius: .5rem; margin: .5rem 0; padding: .5rem 1rem; }
  summary { cursor: pointer; } summary code { font-weight: 600; }
  code { font-family: ui-monospace, monospace; font-size: .9em; }
  table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
  td { border-top: 1px solid var(--soft); padding: .3rem .5rem .3rem 0; vertical-align: top; }
  td:first-child { white-space: nowrap; } .type { opacity: .7; }`;

/** The headers of a page that is the same for every caller until the next deployment. */
export const PUBLIC_PAGE = { "cache-control": "public, max-age=300" };

/** The headers of the page: nothing may run or load in it but its own style, and no other page may frame it. */
export const docsHeaders = (): Record<string, string> => ({
  ...PUBLIC_PAGE,
  "content-security-policy": [
    "default-src 'none'",
    `style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
});

/** A page that shows the API's description, made from it alone: no script, nothing from elsewhere. */
export function docsPage(document: unknown): Html {
  const { info, paths = {}, components } = document as Document;
  const schemas = components?.schemas ?? {};
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  const tags = [...new Set(operations.map(({ operation }) => operation.tags?.[0] ?? "Other"))];
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>${info.title} API</title>
        <style>${raw(STYLE)}</style>
      </head>
      <body>
        <h1>${info.title}</h1>
        ${prose(info.description)}
        <p>${prose(KEY_SECURITY.description)} The machine-readable description is <a href="/openapi.json">/openapi.json</a>.</p>
        ${tags.map(
          (tag) => html`<h2>${tag}</h2>
            ${operations.filter(({ operation }) => (operation.tags?.[0] ?? "Other") === tag).map((found) => operationHtml(found, schemas))}`,
        )}
      </body>
    </html>`;
}

function operationHtml(
  { path, method, operation }: { path: string; method: string; operation: Operation },
  schemas: Record<string, Schema>,
): Html {
  const [[contentType, body] = []] = Object.entries(operation.requestBody?.content ?? {});
  const response = operation.responses?.["200"]?.content?.["application/json"]?.schema;
  return html`<details>
    <summary><code>${method} ${path}</code> ${operation.summary ?? ""}</summary>
    ${prose(operation.description)}
    ${
      (operation.parameters ?? []).length > 0 &&
      html`<h4>Parameters</h4>
    <table>
      ${operation.parameters?.map((parameter) => rowHtml(parameter.name, parameter.schema ?? {}, parameter.required ?? false, schemas))}
    </table>`
    }
    ${
      body?.schema &&
      html`<h4>Body <code>${contentType}</code></h4>
    ${tableHtml(body.schema, schemas)}`
    } ${
      response &&
      html`<h4>200</h4>
    ${tableHtml(response, schemas)}`
    }
  </details>`;
}

/** An object's fields, one row each, those of nested objects with their path. */
function tableHtml(schema: Schema, schemas: Record<string, Schema>): Html {
  return html`<table>
    ${fieldsOf(schema, "", schemas).map(({ name, field, required }) => rowHtml(name, field, required, schemas))}
  </table>`;
}

type Field = { name: string; field: Schema; required: boolean };

function fieldsOf(schema: Schema, prefix: string, schemas: Record<string, Schema>): Field[] {
  const { properties = {}, required = [] } = resolve(schema, schemas);
  return Object.entries(properties).flatMap(([key, field]): Field[] => {
    // As forms write it; in JSON the brackets are a step inwards too.
    const name = prefix === "" ? key : `${prefix}[${key}]`;
    const own = { name, field, required: required.includes(key) };
    const inner = resolve(field.items ?? field, schemas);
    return [own, ...(inner.properties ? fieldsOf(inner, field.items ? `${name}[0]` : name, schemas) : [])];
  });
}

function rowHtml(name: string, field: Schema, required: boolean, schemas: Record<string, Schema>): Html {
  return html`<tr>
    <td><code>${name}</code>${required ? " *" : ""}</td>
    <td><span class="type">${typeOf(field, schemas)}</span> ${prose(field.description)}</td>
  </tr>`;
}

function typeOf(schema: Schema, schemas: Record<string, Schema>): string {
  const { type, format, items, anyOf, ...resolved } = resolve(schema, schemas);
  if (resolved.const !== undefined) return JSON.stringify(resolved.const);
  if (resolved.enum) return resolved.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (items) return `array of ${typeOf(items, schemas)}`;
  if (anyOf) return anyOf.map((option) => typeOf(option, schemas)).join(" or ");
  return [[type ?? "any"].flat().join(" or "), format && `(${format})`].filter(Boolean).join(" ");
}

const resolve = (schema: Schema, schemas: Record<string, Schema>): Schema =>
  schema.$ref === undefined ? schema : (schemas[schema.$ref.split("/").at(-1) ?? ""] ?? {});

/** Text with `code` in it. */
const prose = (text: string | undefined): Html[] =>
  (text ?? "")
    .split(/(`[^`]*`)/)
    .map((part) => (part.startsWith("`") ? html`<code>${part.slice(1, -1)}</code>` : html`${part}`));
