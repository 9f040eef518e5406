/**
 * Builds packs in a worker: compresses and seals each blob straight into the pack's memory, proves it by decoding it again, and hands each
 * full pack over to be saved. One builder for data and one for trees a worker, since a pack holds either.
 *
 * Every blob is opened, decompressed and compared with what was given before its pack leaves: a broken compressor or bad memory must be found
 * while the source still exists (restic learned this from a zstd bug, its issue 4523).
 */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";
import { sha256Into } from "../crypto/hash.ts";
import { type Sealer, sealOverheadBytes } from "../crypto/seal.ts";
import { ByteSink } from "../format/byte-sink.ts";
import { hexOf } from "../format/ids.ts";
import {
  type BlobType,
  COMPRESSED_ENTRY_BYTES,
  HEADER_LENGTH_BYTES,
  headerEntryBytes,
  MAX_HEADER_ENTRIES,
  writeHeaderEntry,
  writeUint32,
} from "../format/pack.ts";
import { boundCompressed, compressInto, decompressInto } from "../format/zstd.ts";
import type { PackBuffers } from "./pack-buffers.ts";

/** A pack ready to be saved. */
export interface FinishedPack {
  readonly type: BlobType;
  /** SHA-256 of the bytes: the pack's name. 32 bytes. */
  readonly id: Uint8Array;
  /** The number of the buffer that holds the pack, to be released after the save; -1: the bytes are in `own`. */
  readonly buffer: number;
  /** The pack of a blob too large for the buffers. */
  readonly own?: Uint8Array;
  readonly sizeBytes: number;
  /** The opened header (format/pack.ts), from which its index entries are made. */
  readonly header: Uint8Array;
}

export interface PackBuilderOptions {
  readonly type: BlobType;
  readonly sealer: Sealer;
  readonly buffers: PackBuffers;
  /** The size at which a pack is closed, less than a buffer's. */
  readonly targetBytes: number;
  /** zstd level 1 to 19; 0 stores blobs as they are. */
  readonly level: number;
  /** Takes the pack; called in this thread, must not throw. */
  readonly emit: (pack: FinishedPack) => void;
}

export class PackBuilder {
  readonly #options: PackBuilderOptions;
  readonly #header = new ByteSink(COMPRESSED_ENTRY_BYTES * 64);
  #buffer = -1;
  #bytes: Uint8Array = new Uint8Array(0);
  #length = 0;
  #entries = 0;
  #frame: Buffer = Buffer.alloc(0);
  #opened: Buffer = Buffer.alloc(0);

  constructor(options: PackBuilderOptions) {
    this.#options = options;
  }

  /**
   * Adds a blob. `plain` is not kept.
   *
   * @param id 32 bytes, SHA-256 of `plain`, already claimed in the index
   * @returns its sealed length
   * @throws BlobInvalid when what was stored does not decode to what was given
   */
  add(id: Uint8Array, plain: Uint8Array): number {
    const body = this.#compress(plain);
    const plainBytes = body === plain ? 0 : plain.length;
    const needed = body.length + sealOverheadBytes;
    this.#reserve(needed);
    const at = this.#length;
    const sealedBytes = this.#options.sealer.sealInto(this.#bytes, at, body);
    this.#prove(id, plain, { sealed: this.#bytes.subarray(at, at + sealedBytes), plainBytes });
    this.#header.reserve(COMPRESSED_ENTRY_BYTES);
    this.#header.length = writeHeaderEntry(this.#header.bytes, this.#header.length, {
      type: this.#options.type,
      id,
      sealedBytes,
      plainBytes,
    });
    this.#length += sealedBytes;
    this.#closeWhenFull();
    return sealedBytes;
  }

  /**
   * Adds a blob that is sealed already, as it stands in another pack of the same repository; the caller has proved it.
   *
   * @param plainBytes as in its index entry: 0 when not compressed
   */
  addSealed(id: Uint8Array, sealed: Uint8Array, plainBytes: number): void {
    this.#reserve(sealed.length);
    this.#bytes.set(sealed, this.#length);
    this.#header.reserve(COMPRESSED_ENTRY_BYTES);
    const entry = { type: this.#options.type, id, sealedBytes: sealed.length, plainBytes };
    this.#header.length = writeHeaderEntry(this.#header.bytes, this.#header.length, entry);
    this.#length += sealed.length;
    this.#closeWhenFull();
  }

  /** Closes the pack under way, if any. The builder can be used further. */
  finish(): void {
    if (this.#entries === 0) return;
    const { sealer, emit, type } = this.#options;
    const header = this.#header.copy();
    const at = this.#length;
    const sealedHeader = sealer.sealInto(this.#bytes, at, header);
    const sizeBytes = writeUint32(this.#bytes, at + sealedHeader, sealedHeader);
    const id = Buffer.alloc(32);
    const bytes = this.#bytes.subarray(0, sizeBytes);
    sha256Into(id, 0, bytes);
    const own = this.#buffer < 0 ? { own: bytes } : {};
    const pack: FinishedPack = { type, id, buffer: this.#buffer, ...own, sizeBytes, header };
    this.#buffer = -1;
    this.#bytes = new Uint8Array(0);
    this.#length = 0;
    this.#entries = 0;
    this.#header.reset();
    emit(pack);
  }

  /** The compressed form of `plain` when it is smaller, else `plain` itself. */
  #compress(plain: Uint8Array): Uint8Array {
    const { level } = this.#options;
    if (level === 0 || plain.length === 0) return plain;
    const bound = boundCompressed(plain.length);
    if (this.#frame.length < bound) this.#frame = Buffer.allocUnsafeSlow(bound);
    const frameBytes = compressInto(this.#frame, plain, level);
    return frameBytes > 0 && frameBytes < plain.length ? this.#frame.subarray(0, frameBytes) : plain;
  }

  #prove(id: Uint8Array, plain: Uint8Array, stored: { readonly sealed: Uint8Array; readonly plainBytes: number }): void {
    const { sealed, plainBytes } = stored;
    const bodyBytes = sealed.length - sealOverheadBytes;
    if (this.#opened.length < bodyBytes) this.#opened = Buffer.allocUnsafeSlow(bodyBytes);
    this.#options.sealer.openInto(this.#opened, 0, sealed);
    let decoded = this.#opened.subarray(0, bodyBytes);
    if (plainBytes > 0) {
      // The frame was copied into the pack, so its scratch is free to decode into when it is large enough, which the bound guarantees.
      const made = decompressInto(this.#frame.subarray(0, plainBytes), decoded);
      decoded = this.#frame.subarray(0, Math.max(0, made));
    }
    if (!decoded.equals(plain)) {
      const name = hexOf(id, 0);
      throw new Failure(
        "BlobInvalid",
        `Cannot store blob "${name}": what was stored does not decode to what was given; this machine's memory or processor may be faulty`,
        {
          details: { blobId: name },
        },
      );
    }
  }

  /** Makes room for a blob and the header that would then close the pack. */
  #reserve(sealedBytes: number): void {
    const { buffers } = this.#options;
    const capacity = buffers.handle.bufferBytes;
    if (this.#entries > 0 && this.#length + sealedBytes + this.#tailBytes(1) > this.#bytes.length) this.finish();
    if (this.#entries === 0 && this.#bytes.length === 0) {
      if (sealedBytes + this.#tailBytes(1) > capacity)
        this.#bytes = new Uint8Array(new SharedArrayBuffer(sealedBytes + this.#tailBytes(1)));
      else {
        this.#buffer = buffers.acquire();
        this.#bytes = buffers.bytes(this.#buffer);
      }
    }
    this.#entries++;
  }

  #tailBytes(moreEntries: number): number {
    return this.#header.length + moreEntries * headerEntryBytes(1) + sealOverheadBytes + HEADER_LENGTH_BYTES;
  }

  #closeWhenFull(): void {
    if (this.#length >= this.#options.targetBytes || this.#entries >= MAX_HEADER_ENTRIES) this.finish();
  }
}
