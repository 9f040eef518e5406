/** The file lists of the restic REST protocol, version 2 (`[{"name","size"}]`) and version 1 (`["name"]`). */

import { CLOSE_ARRAY, OPEN_ARRAY, skipSpace, skipValue } from "../format/json-scan.ts";
import { isFileName } from "./layout.ts";

/** A file as a server lists it; version 1 tells no sizes. */
export interface RestListEntry {
  readonly name: string;
  readonly sizeBytes: number | undefined;
}

/** Whether this is one whole JSON array, or `null` as some servers say for "none". */
export function isRestList(bytes: Uint8Array): boolean {
  const start = skipSpace(bytes, 0);
  const end = skipValue(bytes, start, 0);
  if (end < 0 || skipSpace(bytes, end) !== bytes.length) return false;
  return bytes[start] === OPEN_ARRAY || Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).equals(Buffer.from("null"));
}

/**
 * Reads a list entry by entry, so that a million files need no million objects at once. What is not the name of a file is left out.
 *
 * @param bytes one for which {@link isRestList} holds
 */
export function* parseRestList(bytes: Uint8Array): Generator<RestListEntry> {
  let at = skipSpace(bytes, 0);
  if (bytes[at] !== OPEN_ARRAY) return;
  for (at = skipSpace(bytes, at + 1); at < bytes.length && bytes[at] !== CLOSE_ARRAY; at = skipSpace(bytes, at + 1)) {
    const end = skipValue(bytes, at, 1);
    if (end < 0) return;
    const entry = parseEntry(Buffer.from(bytes.buffer, bytes.byteOffset + at, end - at).toString("utf8"));
    if (entry !== undefined) yield entry;
    at = skipSpace(bytes, end);
    if (bytes[at] === CLOSE_ARRAY) return;
  }
}

function parseEntry(text: string): RestListEntry | undefined {
  const value: unknown = JSON.parse(text);
  if (typeof value === "string") return isFileName(value) ? { name: value, sizeBytes: undefined } : undefined;
  if (typeof value !== "object" || value === null || !("name" in value) || typeof value.name !== "string" || !isFileName(value.name))
    return undefined;
  const size: unknown = "size" in value ? value.size : undefined;
  return { name: value.name, sizeBytes: typeof size === "number" && Number.isSafeInteger(size) && size >= 0 ? size : undefined };
}
