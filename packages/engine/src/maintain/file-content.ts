/** Reads the content of files, blob by blob, ahead of who takes it, and never more than a bound allows. */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { hexOf, ID_BYTES } from "../format/ids.ts";
import { SEAL_BYTES } from "../format/pack.ts";
import { type BlobSource, loadBlob } from "../repository/blob-load.ts";
import type { BlobIndex } from "../repository/blob-index.ts";

/** Bytes of blobs that are loaded ahead; one larger blob alone is let through. */
const AHEAD_BYTES = 32 * 2 ** 20;
const AHEAD_BLOBS = 16;

/** The size of a file by its blobs: what reading it gives, whatever its node says. @throws BlobMissing */
export function measureContent(index: BlobIndex, content: Uint8Array): number {
  let sizeBytes = 0;
  for (let at = 0; at < content.length; at += ID_BYTES) sizeBytes += measureBlob(index, content, at);
  return sizeBytes;
}

function measureBlob(index: BlobIndex, content: Uint8Array, at: number): number {
  const entry = index.find(content, at);
  const place = entry < 0 ? undefined : index.placeOf(entry);
  if (place !== undefined) return place.plainBytes === 0 ? place.sealedBytes - SEAL_BYTES : place.plainBytes;
  const blobId = hexOf(content, at);
  throw new Failure("BlobMissing", `Cannot read blob "${blobId}": no pack in the index has it`, { details: { blobId } });
}

/** How a file is read. */
export interface ReadContentOptions<T> {
  /** What is done with each blob, while others are read. */
  readonly prepare: (plain: Uint8Array) => T | Promise<T>;
  readonly signal?: AbortSignal;
}

/**
 * Reads a file.
 *
 * @param content ids of its blobs, 32 bytes each
 * @yields what was made of each blob, in order; of a blob that follows itself, as in sparse files, mostly the same again
 * @throws BlobMissing; what `loadBlob` throws; Cancelled
 */
export async function* readContent<T>(
  source: BlobSource,
  content: Uint8Array,
  { prepare, signal }: ReadContentOptions<T>,
): AsyncGenerator<T, void, undefined> {
  const abort = new AbortController();
  const stop = signal === undefined ? abort.signal : AbortSignal.any([signal, abort.signal]);
  const ahead: { readonly piece: Promise<T>; readonly sizeBytes: number }[] = [];
  let aheadBytes = 0;
  let next = 0;

  async function read(id: Uint8Array): Promise<T> {
    return await prepare(await loadBlob(source, id, stop));
  }

  function start(sizeBytes: number): void {
    const id = content.subarray(next, next + ID_BYTES);
    const last = ahead.at(-1);
    const isRepeated = last !== undefined && Buffer.compare(id, content.subarray(next - ID_BYTES, next)) === 0;
    const piece = isRepeated ? last.piece : read(id);
    // its failure belongs to whoever takes it
    piece.catch(() => undefined);
    ahead.push({ piece, sizeBytes });
    aheadBytes += sizeBytes;
    next += ID_BYTES;
  }

  try {
    for (;;) {
      while (next < content.length && ahead.length < AHEAD_BLOBS) {
        const sizeBytes = measureBlob(source.index, content, next);
        if (ahead.length > 0 && aheadBytes + sizeBytes > AHEAD_BYTES) break;
        start(sizeBytes);
      }
      const first = ahead[0];
      if (first === undefined) return;
      const piece = await first.piece;
      ahead.shift();
      aheadBytes -= first.sizeBytes;
      yield piece;
    }
  } finally {
    abort.abort(new Failure("Cancelled", "Reading a file ended before its end"));
    await Promise.allSettled(ahead.map(({ piece }) => piece));
  }
}
