/** Dead letters that have a text, ?1, in their entries, also those that were redriven: up to ?3 after an id, ?2. */
export const FIND_LETTERS_WITH = `
  SELECT id, kind, entry FROM dead_letters
  WHERE id > ?2 AND instr(entry, ?1) > 0
  ORDER BY id LIMIT ?3`;

export const REPLACE_ENTRY = "UPDATE dead_letters SET entry = ?2 WHERE id = ?1";
