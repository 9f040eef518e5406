/** Compares the content of files on disk with the blobs they should consist of, by hash; reads no blob. */
import { Buffer } from "node:buffer";
import { sha256Into } from "../crypto/hash.ts";
import { SEAL_BYTES } from "../format/pack.ts";
import { openAt, openFlags, type Place, readHandleAt } from "../native/libc.ts";
import type { BlobIndex, BlobPlace } from "../repository/blob-index.ts";
import { isError } from "./errno-text.ts";

/** The largest piece of a file that is believed, plain or sealed; other programs write up to 8 MiB. */
export const maxPieceBytes: number = 128 * 1024 * 1024;

/** Bytes of a blob's plain content. */
export function plainBytesOf(place: BlobPlace): number {
  return place.plainBytes > 0 ? place.plainBytes : place.sealedBytes - SEAL_BYTES;
}

/** Whether the index says something of a blob that can be. */
export function isCredible(place: BlobPlace): boolean {
  return place.sealedBytes >= SEAL_BYTES && place.sealedBytes <= maxPieceBytes + SEAL_BYTES && place.plainBytes <= maxPieceBytes;
}

/** Opens a file to read it, without leaving a trace in its access time where that is allowed. @returns a handle or -errno */
export function openToRead(file: Place): number {
  const flags = openFlags.readOnly | openFlags.noFollow | openFlags.nonBlock;
  const handle = openAt(file.directory, file.name, flags | openFlags.noAtime);
  return isError(handle, "EPERM") ? openAt(file.directory, file.name, flags) : handle;
}

/** Keeps memory that grows to the largest piece. One a thread. */
export class ContentCheck {
  readonly #index: BlobIndex;
  readonly #digest = Buffer.alloc(32);
  #data = Buffer.alloc(0);

  constructor(index: BlobIndex) {
    this.#index = index;
  }

  /**
   * Compares an open file with its blobs, one after the other from its beginning.
   *
   * @param blobs entries of the blob index, each with a credible place
   * @param sizeBytes of the file as it is; pieces that reach beyond it are not read
   * @param onDifferent called for each piece that is not as it should be, in order
   * @returns 0, or -errno of the first read that failed; that piece and those after it were then not compared
   */
  compare(handle: number, file: { blobs: ArrayLike<number>; sizeBytes: number }, onDifferent: (at: number) => void): number {
    let offsetBytes = 0;
    for (let at = 0; at < file.blobs.length; at++) {
      const blob = file.blobs[at] ?? -1;
      const place = this.#index.placeOf(blob);
      if (place === undefined) {
        onDifferent(at);
        continue;
      }
      const length = plainBytesOf(place);
      if (offsetBytes + length > file.sizeBytes) onDifferent(at);
      else {
        const read = this.#hash(handle, offsetBytes, length);
        if (read < 0) return read;
        if (read < length || this.#digest.compare(this.#index.idOf(blob)) !== 0) onDifferent(at);
      }
      offsetBytes += length;
    }
    return 0;
  }

  /** Leaves the hash of a span in `#digest`. @returns how much of it was there, or -errno */
  #hash(handle: number, offsetBytes: number, length: number): number {
    if (this.#data.length < length) this.#data = Buffer.allocUnsafeSlow(length);
    let have = 0;
    while (have < length) {
      const got = readHandleAt(handle, this.#data.subarray(have, length), offsetBytes + have);
      if (got < 0) return got;
      if (got === 0) return have;
      have += got;
    }
    sha256Into(this.#digest, 0, this.#data.subarray(0, length));
    return length;
  }
}
