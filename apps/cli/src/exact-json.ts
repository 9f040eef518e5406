/** JSON whose numbers keep all their digits: inode numbers and sizes go beyond what a `number` can hold. */

declare global {
  // of ECMAScript's "JSON.parse source text access", which the language's own types lack so far
  interface JSON {
    rawJSON(text: string): object;
    parse(text: string, reviver: (name: string, value: unknown, context: { readonly source?: string }) => unknown): unknown;
  }
}

/** Writes a value in which a `bigint` is a number. */
export function stringifyExactly(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) => (typeof member === "bigint" ? JSON.rawJSON(String(member)) : member));
}

/** Sets JSON out over lines, its numbers as they were written. */
export function indentJson(text: string): string {
  const value = JSON.parse(text, (_, member, { source }) =>
    typeof member === "number" && source !== undefined ? JSON.rawJSON(source) : member,
  );
  return JSON.stringify(value, null, 2);
}
