/**
 * Reads files, cuts them, and stores the chunks that the repository does not have, in one worker without any wait but the disk's.
 *
 * A file is read up to the size it had when it was looked at: what is added meanwhile belongs to the next backup, and a file that grows
 * without end does not hold up this one. Holes are not read: a run of zeros as long as a chunk becomes the chunk of zeros, whose hash is
 * computed once. The cuts do not depend on where holes are or how much a read returned.
 *
 * A large file is cut by one worker, but while others are idle it has them read and store what it has cut, some chunks at a time (an extent):
 * finding the cuts takes a fraction of the time that hashing and compressing take.
 */
import { Buffer } from "node:buffer";
import type { Cutter } from "../chunk/cutter.ts";
import { sha256Into } from "../crypto/hash.ts";
import { ByteSink } from "../format/byte-sink.ts";
import {
  closeHandle,
  duplicateHandle,
  errno,
  type FileStatus,
  openAt,
  openFlags,
  readHandle,
  readHandleAt,
  seekData,
  seekHole,
  seekTo,
  statHandle,
  waitReadable,
} from "../native/libc.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import type { PackBuilder } from "../repository/pack-builder.ts";
import { type Counters, counter } from "./counters.ts";
import type { ExtentTask } from "./messages.ts";

const readBytes = 2 * 1024 * 1024;
/** Chunks given to another worker at a time: enough to be worth a message, little enough to end together. */
const extentBytes = 8 * 1024 * 1024;
const comma = 0x2c;
const enxio = errno["ENXIO"] ?? 6;
const eacces = errno["EACCES"] ?? 13;
const eintr = errno["EINTR"] ?? 4;
const eagain = errno["EAGAIN"] ?? 11;
const eperm = errno["EPERM"] ?? 1;

export interface FileSaverOptions {
  readonly cutter: Cutter;
  readonly index: BlobIndex;
  readonly packs: PackBuilder;
  readonly counters: Counters;
  /** Called now and then while a large file is read, so that waiting workers can be given other work. */
  readonly breathe: () => void;
  /** Whether another worker could do with an extent. */
  readonly isWorkWanted: () => boolean;
  /** Gives an extent away. @returns the hole that its ids will fill */
  readonly share: (extent: SharedExtent) => number;
}

/** Chunks of the file being saved, given to another worker. */
export interface SharedExtent {
  /** The file, open; goes with the extent. */
  readonly handle: number;
  readonly offsetBytes: number;
  readonly chunks: readonly number[];
}

/** How reading a file went. */
export interface SavedFile {
  /** Bytes saved. */
  readonly sizeBytes: number;
  /** The file was not the same at the end as at the beginning. */
  readonly changed: boolean;
  /** When other workers have some of it: ids in quotes, joined by commas, and the numbers of the holes between them. */
  readonly parts?: readonly (Uint8Array | number)[];
}

export class FileSaver {
  readonly #options: FileSaverOptions;
  #buffer: Buffer = Buffer.allocUnsafeSlow(1024 * 1024);
  #ids: Buffer = Buffer.alloc(32 * 64);
  #idBytes = 0;
  readonly #after: FileStatus;
  #zeroId: Buffer | undefined;
  #noAtime = openFlags.noAtime;
  #parts: (Uint8Array | number)[] = [];
  readonly #extent = { handle: -1, offsetBytes: 0, chunks: [] as number[], sizeBytes: 0 };

  constructor(options: FileSaverOptions, scratch: FileStatus) {
    this.#options = options;
    this.#after = scratch;
  }

  /** The ids of the file saved last, 32 bytes each; valid until the next save. */
  get content(): Uint8Array {
    return this.#ids.subarray(0, this.#idBytes);
  }

  /**
   * Saves a regular file.
   *
   * @param before what `statAt` said of it
   * @returns the outcome, or a negated errno when it could not be read
   */
  save(directory: number, name: string, before: FileStatus): SavedFile | number {
    this.#begin();
    const handle = this.#open(directory, name);
    if (handle < 0) return before.sizeBytes === 0 && handle === -eacces ? { sizeBytes: 0, changed: false } : handle;
    try {
      if (before.sizeBytes === 0) return this.#saveSizeless(handle);
      const sizeBytes =
        before.sizeBytes <= this.#options.cutter.minBytes ? this.#saveSmall(handle, before.sizeBytes) : this.#saveLarge(handle, before);
      if (sizeBytes < 0) return sizeBytes;
      const changed = statHandle(handle, this.#after) < 0 || !isSame(before.raw, this.#after);
      return this.#parts.length === 0 ? { sizeBytes, changed } : { sizeBytes, changed, parts: this.takeParts() };
    } finally {
      closeHandle(handle);
    }
  }

  /**
   * Saves an extent that another worker cut. What the file has lost meanwhile is stored as zeros, so that sizes stay true.
   *
   * @returns the ids as one part, and whether the file has changed; or a negated errno
   */
  saveExtent(task: ExtentTask): { readonly part: Uint8Array; readonly changed: boolean } | number {
    this.#begin();
    const { handle, chunks, status } = task;
    let position = task.offsetBytes;
    for (const chunkBytes of chunks) {
      if (this.#buffer.length < chunkBytes) this.#buffer = Buffer.allocUnsafeSlow(this.#options.cutter.maxBytes + readBytes);
      const chunk = this.#buffer.subarray(0, chunkBytes);
      const got = readAllAt(handle, chunk, position);
      if (got < 0) return got;
      chunk.fill(0, got);
      this.#saveBlob(chunk);
      position += chunkBytes;
    }
    const changed = statHandle(handle, this.#after) < 0 || !isSame(status, this.#after);
    return { part: this.#takePart(), changed };
  }

  /** Saves what comes out of an open pipe or socket until its end. @returns bytes saved, or -errno */
  saveStream(handle: number): number {
    this.#begin();
    return this.#cutAll((target) => readPatiently(handle, target));
  }

  /** Forgets the file before, of which an extent may be left when it could not be read to its end. */
  #begin(): void {
    this.#idBytes = 0;
    this.#parts = [];
    if (this.#extent.handle >= 0) closeHandle(this.#extent.handle);
    this.#resetExtent();
  }

  #resetExtent(): void {
    this.#extent.handle = -1;
    this.#extent.chunks = [];
    this.#extent.sizeBytes = 0;
  }

  #open(directory: number, name: string): number {
    const flags = openFlags.readOnly | openFlags.noFollow | openFlags.nonBlock;
    const handle = openAt(directory, name, flags | this.#noAtime);
    if (handle !== -eperm || this.#noAtime === 0) return handle;
    // Only the owner and root may read without leaving an access time.
    this.#noAtime = 0;
    return openAt(directory, name, flags);
  }

  /** Saves a file that is said to be empty: it mostly is, but some file systems do not know the sizes of files before these are read. */
  #saveSizeless(handle: number): SavedFile | number {
    const got = readHandle(handle, this.#buffer);
    if (got <= 0) return got < 0 ? got : { sizeBytes: 0, changed: false };
    if (statHandle(handle, this.#after) < 0 || this.#after.sizeBytes > 0) return { sizeBytes: 0, changed: true };
    const found = seekTo(handle, 0);
    const sizeBytes = found < 0 ? found : this.#cutAll((target) => readHandle(handle, target));
    return sizeBytes < 0 ? sizeBytes : { sizeBytes, changed: false };
  }

  #saveSmall(handle: number, sizeBytes: number): number {
    if (this.#buffer.length < sizeBytes) this.#buffer = Buffer.allocUnsafeSlow(this.#options.cutter.maxBytes + readBytes);
    let have = 0;
    while (have < sizeBytes) {
      const got = readHandle(handle, this.#buffer.subarray(have, sizeBytes));
      if (got < 0) return got;
      if (got === 0) break;
      have += got;
    }
    if (have > 0) this.#saveBlob(this.#buffer.subarray(0, have));
    return have;
  }

  #saveLarge(handle: number, before: FileStatus): number {
    const reader = new SparseReader(handle, before);
    return this.#cutAll((target) => reader.read(target), reader);
  }

  /** Cuts what `read` gives until it gives 0. `holes` says where reading can be spared. */
  #cutAll(read: (target: Uint8Array) => number, holes?: SparseReader): number {
    const { cutter, breathe } = this.#options;
    const capacity = cutter.maxBytes + readBytes;
    if (this.#buffer.length < capacity) this.#buffer = Buffer.allocUnsafeSlow(capacity);
    let start = 0;
    let have = 0;
    let total = 0;
    let atEnd = false;
    for (let rounds = 0; ; rounds++) {
      if (have > 0 && start > 0) {
        this.#buffer.copyWithin(0, start, have);
        have -= start;
        start = 0;
      }
      if (!atEnd) {
        const got = read(this.#buffer.subarray(have, Math.min(have + readBytes, capacity)));
        if (got < 0) return got;
        if (got === 0) atEnd = true;
        have += got;
      }
      while (start < have) {
        const spared = holes === undefined ? 0 : this.#spareZeros(holes, total);
        if (spared > 0) {
          total += spared;
          start = 0;
          have = 0;
          break;
        }
        const chunkBytes = cutter.nextCut(this.#buffer, start, have);
        // A cut at the end of what is there may be no cut: more bytes decide.
        if (start + chunkBytes === have && !atEnd && chunkBytes < cutter.maxBytes) break;
        if (!this.#shareChunk(holes, total, chunkBytes)) this.#saveBlob(this.#buffer.subarray(start, start + chunkBytes));
        start += chunkBytes;
        total += chunkBytes;
      }
      if (start === have) {
        start = 0;
        have = 0;
        if (atEnd) {
          this.#closeExtent();
          return total;
        }
      }
      if ((rounds & 3) === 3) breathe();
    }
  }

  /** Puts a chunk into the extent for another worker, when one wants work or the extent has begun. */
  #shareChunk(file: SparseReader | undefined, offsetBytes: number, chunkBytes: number): boolean {
    const extent = this.#extent;
    if (extent.chunks.length === 0) {
      if (file === undefined || file.sizeBytes - offsetBytes < extentBytes || !this.#options.isWorkWanted()) return false;
      extent.handle = duplicateHandle(file.handle);
      if (extent.handle < 0) return false; // too many files are open already
      extent.offsetBytes = offsetBytes;
    }
    extent.chunks.push(chunkBytes);
    extent.sizeBytes += chunkBytes;
    if (extent.sizeBytes >= extentBytes) this.#closeExtent();
    return true;
  }

  /** Gives the extent away, and leaves a hole for its ids. */
  #closeExtent(): void {
    const extent = this.#extent;
    if (extent.chunks.length === 0) return;
    if (this.#idBytes > 0) this.#parts.push(this.#takePart());
    this.#parts.push(this.#options.share({ handle: extent.handle, offsetBytes: extent.offsetBytes, chunks: extent.chunks }));
    this.#resetExtent();
  }

  /** What became of the file so far: ids, and holes for what others have. Also after a failure. */
  takeParts(): readonly (Uint8Array | number)[] {
    if (this.#idBytes > 0) this.#parts.push(this.#takePart());
    return this.#parts;
  }

  /** The ids so far, in quotes and joined by commas. */
  #takePart(): Uint8Array {
    const sink = new ByteSink((this.#idBytes / 32) * 67);
    for (let at = 0; at < this.#idBytes; at += 32) {
      if (at > 0) sink.writeByte(comma);
      sink.writeQuotedId(this.#ids, at);
    }
    this.#idBytes = 0;
    return sink.copy();
  }

  /** Saves the chunks of zeros that lie in a hole from `offset` on, where a chunk begins. @returns the bytes covered */
  #spareZeros(holes: SparseReader, offset: number): number {
    const { zeroCutBytes } = this.#options.cutter;
    const count = Math.floor(holes.holeBytesAt(offset) / zeroCutBytes);
    if (count === 0) return 0;
    this.#closeExtent();
    const id = this.#zeroChunk(zeroCutBytes);
    for (let i = 0; i < count; i++) this.#pushId(id, 0);
    const bytes = count * zeroCutBytes;
    this.#options.counters.add(counter.bytesProcessed, bytes);
    holes.moveTo(offset + bytes);
    return bytes;
  }

  #zeroChunk(sizeBytes: number): Uint8Array {
    if (this.#zeroId === undefined) {
      const zeros = Buffer.alloc(sizeBytes);
      this.#zeroId = Buffer.alloc(32);
      sha256Into(this.#zeroId, 0, zeros);
      this.#store(this.#zeroId, 0, zeros);
    }
    return this.#zeroId;
  }

  #saveBlob(plain: Uint8Array): void {
    if (this.#idBytes + 32 > this.#ids.length) this.#growIds();
    sha256Into(this.#ids, this.#idBytes, plain);
    this.#store(this.#ids, this.#idBytes, plain);
    this.#idBytes += 32;
    this.#options.counters.add(counter.bytesProcessed, plain.length);
  }

  #store(ids: Uint8Array, at: number, plain: Uint8Array): void {
    const { index, packs, counters } = this.#options;
    if (!index.claim(ids, at, false)) return;
    counters.add(counter.dataBlobs, 1);
    counters.add(counter.dataAddedBytes, plain.length);
    counters.add(counter.dataAddedPackedBytes, packs.add(ids.subarray(at, at + 32), plain));
  }

  #pushId(id: Uint8Array, at: number): void {
    if (this.#idBytes + 32 > this.#ids.length) this.#growIds();
    this.#ids.set(id.subarray(at, at + 32), this.#idBytes);
    this.#idBytes += 32;
  }

  #growIds(): void {
    const grown = Buffer.allocUnsafeSlow(this.#ids.length * 2);
    this.#ids.copy(grown, 0, 0, this.#idBytes);
    this.#ids = grown;
  }
}

/** Reads a file from front to back up to the size it had, and knows its holes. */
class SparseReader {
  readonly handle: number;
  readonly sizeBytes: number;
  readonly #isSparse: boolean;
  #position = 0;
  #segmentStart = 0;
  #segmentEnd = 0;
  #inHole = false;

  constructor(handle: number, status: FileStatus) {
    this.handle = handle;
    this.sizeBytes = status.sizeBytes;
    this.#isSparse = status.blocks * 512 < status.sizeBytes;
    if (!this.#isSparse) this.#segmentEnd = status.sizeBytes;
  }

  /** @returns bytes read into `target`, 0 at the end, or -errno */
  read(target: Uint8Array): number {
    if (this.#position >= this.sizeBytes) return 0;
    if (this.#position >= this.#segmentEnd) this.#nextSegment();
    const span = target.subarray(0, Math.min(target.length, this.#segmentEnd - this.#position));
    const got = this.#inHole ? span.fill(0).length : readHandleAt(this.handle, span, this.#position);
    if (got > 0) this.#position += got;
    return got;
  }

  /** How much of a hole lies at `offset`, which is not before the segment being read. */
  holeBytesAt(offset: number): number {
    if (!this.#inHole || offset < this.#segmentStart || offset >= this.#segmentEnd) return 0;
    return this.#segmentEnd - offset;
  }

  moveTo(offset: number): void {
    this.#position = offset;
  }

  #nextSegment(): void {
    this.#segmentStart = this.#position;
    const data = seekData(this.handle, this.#position);
    if (data === -enxio || data > this.#position) {
      this.#inHole = true;
      this.#segmentEnd = data < 0 ? this.sizeBytes : Math.min(data, this.sizeBytes);
      return;
    }
    const hole = data < 0 ? data : seekHole(this.handle, this.#position);
    this.#inHole = false;
    // A file system that knows no holes, or a file cut short meanwhile: the reads will tell.
    this.#segmentEnd = hole <= this.#position ? this.sizeBytes : Math.min(hole, this.sizeBytes);
  }
}

/** How long a worker waits for a stream at a time; between, it can be ended. */
const patienceMs = 100;

function readPatiently(handle: number, target: Uint8Array): number {
  for (;;) {
    const ready = waitReadable(handle, patienceMs);
    if (ready < 0 && ready !== -eintr) return ready;
    const got = ready > 0 ? readHandle(handle, target) : -eagain;
    if (got !== -eagain) return got;
  }
}

/** Reads until `target` is full or the file ends. @returns bytes read, or -errno */
function readAllAt(handle: number, target: Uint8Array, offsetBytes: number): number {
  let have = 0;
  while (have < target.length) {
    const got = readHandleAt(handle, target.subarray(have), offsetBytes + have);
    if (got < 0) return got;
    if (got === 0) break;
    have += got;
  }
  return have;
}

/** Same inode and size, same change and modification time. @param before a `struct statx` */
function isSame(before: Uint8Array, after: FileStatus): boolean {
  // Offsets in struct statx: inode and size from 32, ctime and mtime from 96 (the padding between them is zero).
  return after.raw.compare(before, 32, 48, 32, 48) === 0 && after.raw.compare(before, 96, 124, 96, 124) === 0;
}
