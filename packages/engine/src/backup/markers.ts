/** Directories that ask not to be backed up: by a marker file of the user's choice, or a cache directory tag. */
import { Buffer } from "node:buffer";
import { type ByteString, fromUtf8 } from "../format/byte-string.ts";
import { closeHandle, openAt, openFlags, readHandle } from "../native/libc.ts";
import { cacheMarker, type ExcludeRules } from "../selection/exclude.ts";

/**
 * What is left of a directory that holds a marker: the marker alone, so that the exclusion can be seen in the snapshot.
 *
 * @param handle the open directory; @param names of its entries
 * @returns `undefined` when it holds none
 */
export function holdsMarker(handle: number, names: readonly ByteString[], rules: ExcludeRules): readonly ByteString[] | undefined {
  const markers = rules.caches ? [...rules.ifPresent, cacheMarker] : rules.ifPresent;
  for (const { name, header } of markers) {
    const marker = fromUtf8(name);
    if (names.includes(marker) && (header === undefined || startsWith(handle, marker, fromUtf8(header)))) return [marker];
  }
  return undefined;
}

function startsWith(directory: number, name: ByteString, header: ByteString): boolean {
  const handle = openAt(directory, name, openFlags.readOnly | openFlags.nonBlock);
  if (handle < 0) return false;
  const begin = Buffer.alloc(header.length);
  const got = readHandle(handle, begin);
  closeHandle(handle);
  return got === header.length && begin.latin1Slice() === header;
}
