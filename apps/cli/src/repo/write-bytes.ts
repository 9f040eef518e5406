import { createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import type { Run } from "../run.ts";

/**
 * Writes bytes to standard output, or to a file, as fast as they are taken.
 *
 * @param path of the file, which is replaced; standard output when absent
 */
export async function writeBytes(run: Run, bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, path?: string): Promise<void> {
  run.output.flush();
  if (path === undefined) await pipeline(bytes, process.stdout, { end: false, signal: run.signal });
  else await pipeline(bytes, createWriteStream(path, { flush: true }), { signal: run.signal });
}
