/**
 * Writing past the page cache (O_DIRECT). Packs are written once and rarely read soon; copying them into the cache costs as much processor time
 * as encrypting them, and drives out what the machine's other programs need.
 *
 * It takes memory, lengths and offsets in multiples of a page; what does not fit, and file systems that refuse, are left to the caller.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { systemCodeOf } from "./system-error.ts";

const alignBytes = 4096;
/** Below this the extra open costs more than is gained. */
const worthwhileBytes = 1 << 20;

/**
 * Writes as much as possible of `data` from the start of a file.
 *
 * @param path of a file that exists and is empty
 * @returns bytes written, from 0 (nothing: not worth it, not aligned, or not supported) to the last whole page of `data`
 * @throws as `write` does (ENOSPC …)
 */
export async function writeDirect(path: string, data: Uint8Array): Promise<number> {
  const wholeBytes = data.length - (data.length % alignBytes);
  if (wholeBytes < worthwhileBytes || data.byteOffset % alignBytes !== 0 || constants.O_DIRECT === undefined) return 0;
  try {
    await using file = await open(path, constants.O_WRONLY | constants.O_DIRECT);
    let written = 0;
    while (written < wholeBytes) {
      const { bytesWritten } = await file.write(data, written, wholeBytes - written, written);
      if (bytesWritten === 0 || bytesWritten % alignBytes !== 0) break; // the caller goes on from here
      written += bytesWritten;
    }
    return written;
  } catch (error) {
    // Memory that is not aligned after all, or a file system without direct writes.
    if (systemCodeOf(error) === "EINVAL") return 0;
    throw error;
  }
}
