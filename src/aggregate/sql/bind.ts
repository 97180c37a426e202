/** What a statement's named parameters (`:customer`) are bound to. */
type Values = Readonly<Record<string, unknown>>;

type Numbered = { readonly sql: string; readonly names: readonly string[] };

const numbered = new Map<string, Numbered>();

/** Binds a statement's parameters by their names, which D1 knows by numbers alone. Throws for a name without a value. */
export function bind(db: Pick<D1Database, "prepare">, sql: string, values: Values): D1PreparedStatement {
  const known = numbered.get(sql) ?? number(sql);
  return db.prepare(known.sql).bind(
    ...known.names.map((name) => {
      if (values[name] === undefined) throw new Error(`a statement without its ${name}`);
      return values[name];
    }),
  );
}

function number(sql: string): Numbered {
  const names: string[] = [];
  const text = sql.replaceAll(/:([a-z_][a-z_0-9]*)/g, (_, name: string) => {
    if (!names.includes(name)) names.push(name);
    return `?${names.indexOf(name) + 1}`;
  });
  const made = { sql: text, names };
  // Statements differ by slice, of which there are two a day, and by the forms of a read.
  if (numbered.size > 1_000) numbered.clear();
  numbered.set(sql, made);
  return made;
}
