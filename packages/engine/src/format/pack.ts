/**
 * Packs: files that hold many blobs, all of data or all of trees, and a header that says which.
 *
 * ```
 * blob_1 … blob_n | sealed(header) | length of the sealed header : uint32 LE
 *
 * header entry, in the order of the blobs, which lie back to back from offset 0:
 *   type 0 data, 1 tree                    type(1) sealed_bytes(4 LE) blob_id(32)                    = 37 bytes
 *   type 2 data, 3 tree, compressed        type(1) sealed_bytes(4 LE) plain_bytes(4 LE) blob_id(32)  = 41 bytes
 * ```
 *
 * Reading is in three steps, each checked before the next: the length, the seal (elsewhere), the entries. Repositories of version 1 may
 * mix data and trees in a pack; that is read, and counted.
 *
 * @see restic design.rst, "Pack Format"
 */
import { Failure, type FailureDetails } from "@granary/base/errors";
import "../errors.ts";
import { ID_BYTES, type PackId } from "./ids.ts";

/** What a blob holds: a piece of a file, or a directory. */
export type BlobType = "data" | "tree";

/** Bytes of the length field at the very end of a pack. */
export const HEADER_LENGTH_BYTES = 4;
/** Bytes that sealing adds to anything. */
export const SEAL_BYTES = 32;
/** Bytes of a header entry for a blob that is not compressed. */
export const PLAIN_ENTRY_BYTES: number = 5 + ID_BYTES;
/** Bytes of a header entry for a compressed blob. */
export const COMPRESSED_ENTRY_BYTES: number = 9 + ID_BYTES;
/** The largest sealed header that restic reads. */
export const MAX_HEADER_BYTES: number = 16 * 1024 * 1024;
/** The most entries a header may have, whatever their kind. */
export const MAX_HEADER_ENTRIES: number = Math.floor((MAX_HEADER_BYTES - SEAL_BYTES) / COMPRESSED_ENTRY_BYTES);
/** A pack is smaller than this, since its offsets are 32-bit. */
export const MAX_PACK_BYTES: number = 2 ** 32 - 1;
/** What to read from the end of a pack at first: enough for the header of most packs. */
export const HEADER_READ_AHEAD_BYTES: number = HEADER_LENGTH_BYTES + SEAL_BYTES + 15 * COMPRESSED_ENTRY_BYTES;

const MIN_HEADER_BYTES = SEAL_BYTES + PLAIN_ENTRY_BYTES;
const MIN_PACK_BYTES = MIN_HEADER_BYTES + HEADER_LENGTH_BYTES;

/** Where a blob lies in its pack. */
export interface HeaderEntry {
  readonly type: BlobType;
  /** 32 bytes; a view, not a copy, when it comes from {@link parseHeader}. */
  readonly id: Uint8Array;
  /** Bytes in the pack, seal included, at least 32. */
  readonly sealedBytes: number;
  /** Bytes before compression, or 0 when the blob is not compressed. */
  readonly plainBytes: number;
  readonly offsetBytes: number;
}

/** The pack whose header is read, for the checks and for messages. */
export interface PackFile {
  readonly id: PackId;
  readonly sizeBytes: number;
}

/** A header that was checked as a whole. */
export interface PackHeader {
  readonly dataBlobs: number;
  readonly treeBlobs: number;
  /** The entries in the order of the blobs. Their ids are views of the header's bytes. */
  entries(): Generator<HeaderEntry, void, void>;
}

/** Bytes that a blob's entry takes in the header. @param plainBytes 0 when it is not compressed */
export function headerEntryBytes(plainBytes: number): number {
  return plainBytes === 0 ? PLAIN_ENTRY_BYTES : COMPRESSED_ENTRY_BYTES;
}

/**
 * Writes a header entry; the caller makes sure of the room, and of the order and the lengths being those of the blobs.
 *
 * @returns the offset behind it
 */
export function writeHeaderEntry(target: Uint8Array, at: number, entry: Omit<HeaderEntry, "offsetBytes">): number {
  const isCompressed = entry.plainBytes !== 0;
  target[at] = (entry.type === "tree" ? 1 : 0) + (isCompressed ? 2 : 0);
  at = writeUint32(target, at + 1, entry.sealedBytes);
  if (isCompressed) at = writeUint32(target, at, entry.plainBytes);
  target.set(entry.id, at);
  return at + ID_BYTES;
}

/** Writes 32 bits, low byte first. @returns the offset behind them */
export function writeUint32(target: Uint8Array, at: number, value: number): number {
  target[at] = value;
  target[at + 1] = value >>> 8;
  target[at + 2] = value >>> 16;
  target[at + 3] = value >>> 24;
  return at + 4;
}

/** Reads 32 bits, low byte first; 0 for bytes that are not there. */
export function readUint32(source: Uint8Array, at: number): number {
  return ((source[at] ?? 0) | ((source[at + 1] ?? 0) << 8) | ((source[at + 2] ?? 0) << 16) | ((source[at + 3] ?? 0) << 24)) >>> 0;
}

/**
 * Reads how long the sealed header is, from the last bytes of a pack.
 *
 * @param tail the end of the pack, at least 4 bytes unless the pack is shorter
 * @returns bytes of the sealed header, which ends 4 bytes before the pack does
 * @throws PackInvalid
 */
export function parseHeaderLength(tail: Uint8Array, pack: PackFile): number {
  if (pack.sizeBytes < MIN_PACK_BYTES || tail.length < HEADER_LENGTH_BYTES) {
    throw invalidPack(pack, `file is ${pack.sizeBytes} bytes, at least ${MIN_PACK_BYTES} needed`);
  }
  if (pack.sizeBytes > MAX_PACK_BYTES) throw invalidPack(pack, `file is ${pack.sizeBytes} bytes, at most ${MAX_PACK_BYTES} allowed`);
  const headerBytes = readUint32(tail, tail.length - HEADER_LENGTH_BYTES);
  const details = { headerBytes };
  if (headerBytes < MIN_HEADER_BYTES) {
    throw invalidPack(pack, `header is ${headerBytes} bytes, at least ${MIN_HEADER_BYTES} needed`, details);
  }
  if (headerBytes > MAX_HEADER_BYTES) {
    throw invalidPack(pack, `header is ${headerBytes} bytes, at most ${MAX_HEADER_BYTES} allowed`, details);
  }
  if (headerBytes > pack.sizeBytes - HEADER_LENGTH_BYTES) {
    throw invalidPack(pack, `header is ${headerBytes} bytes, but the file only ${pack.sizeBytes}`, details);
  }
  return headerBytes;
}

/**
 * Checks an opened header against the size of its pack, every entry, before any is given out.
 *
 * @param plain the header without its seal; must not change while the result is in use
 * @throws PackInvalid
 */
export function parseHeader(plain: Uint8Array, pack: PackFile): PackHeader {
  if (plain.length > MAX_HEADER_BYTES - SEAL_BYTES) {
    throw invalidPack(pack, `header is ${plain.length + SEAL_BYTES} bytes, at most ${MAX_HEADER_BYTES} allowed`);
  }
  let at = 0;
  let blobsBytes = 0;
  let entryCount = 0;
  let treeBlobs = 0;
  while (at < plain.length) {
    const kind = plain[at] ?? 0;
    if (kind > 3) throw invalidPack(pack, `header entry ${entryCount} has type ${kind}, 0 to 3 needed`);
    const entryBytes = kind < 2 ? PLAIN_ENTRY_BYTES : COMPRESSED_ENTRY_BYTES;
    if (at + entryBytes > plain.length) {
      throw invalidPack(pack, `header entry ${entryCount} has ${plain.length - at} bytes left, ${entryBytes} needed`);
    }
    const sealedBytes = readUint32(plain, at + 1);
    if (sealedBytes < SEAL_BYTES) throw invalidPack(pack, `blob ${entryCount} is ${sealedBytes} bytes, at least ${SEAL_BYTES} needed`);
    if (kind >= 2 && readUint32(plain, at + 5) === 0) {
      throw invalidPack(pack, `blob ${entryCount} is compressed from 0 bytes, at least 1 needed`);
    }
    blobsBytes += sealedBytes;
    if ((kind & 1) === 1) treeBlobs++;
    entryCount++;
    at += entryBytes;
  }
  if (entryCount === 0) throw invalidPack(pack, "header has no entries, at least 1 needed");
  const sizeBytes = blobsBytes + plain.length + SEAL_BYTES + HEADER_LENGTH_BYTES;
  if (sizeBytes !== pack.sizeBytes) {
    throw invalidPack(pack, `blobs and header take ${sizeBytes} bytes, but the file has ${pack.sizeBytes}`, { entryCount });
  }
  return { dataBlobs: entryCount - treeBlobs, treeBlobs, entries: () => readEntries(plain) };
}

function* readEntries(plain: Uint8Array): Generator<HeaderEntry, void, void> {
  let offsetBytes = 0;
  for (let at = 0; at < plain.length; ) {
    const kind = plain[at] ?? 0;
    const idAt = kind < 2 ? at + 5 : at + 9;
    const sealedBytes = readUint32(plain, at + 1);
    yield {
      type: (kind & 1) === 1 ? "tree" : "data",
      id: plain.subarray(idAt, idAt + ID_BYTES),
      sealedBytes,
      plainBytes: kind < 2 ? 0 : readUint32(plain, at + 5),
      offsetBytes,
    };
    offsetBytes += sealedBytes;
    at = idAt + ID_BYTES;
  }
}

function invalidPack(pack: PackFile, found: string, details: FailureDetails = {}): Failure {
  return new Failure("PackInvalid", `Cannot read pack "${pack.id}": ${found}`, {
    details: { packId: pack.id, sizeBytes: pack.sizeBytes, ...details },
  });
}
