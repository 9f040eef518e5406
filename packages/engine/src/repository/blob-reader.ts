/**
 * Reads blobs in a worker, synchronously: straight from the file where the store is on this machine, else by asking the main thread and
 * sleeping until it answers.
 *
 * The bytes a read answers with are the reader's own memory, valid until its next read.
 */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";
import { sha256Into } from "../crypto/hash.ts";
import { type Sealer, sealOverheadBytes } from "../crypto/seal.ts";
import { hexOf } from "../format/ids.ts";
import { decompressInto } from "../format/zstd.ts";
import type { BlobIndex, BlobPlace } from "./blob-index.ts";
import type { PackReader } from "./pack-mailbox.ts";

/** Opens sealed blobs and checks them against their names; keeps scratch memory that grows to the largest blob. */
export class BlobDecoder {
  readonly #sealer: Sealer;
  #plain: Buffer = Buffer.alloc(0);
  readonly #digest = Buffer.alloc(32);

  constructor(sealer: Sealer) {
    this.#sealer = sealer;
  }

  /**
   * Opens a blob in place, decompresses it, and compares its hash with its id.
   *
   * @param sealed overwritten
   * @param plainBytes of its index entry: 0 when not compressed
   * @returns the plain bytes, valid until the next call
   * @throws BlobInvalid
   */
  decode(id: Uint8Array, sealed: Uint8Array, plainBytes: number): Uint8Array {
    let plain: Uint8Array;
    try {
      const length = this.#sealer.openInto(sealed, 0, sealed);
      plain = sealed.subarray(0, length);
    } catch (cause) {
      throw invalid(id, "its authentication code does not match", cause);
    }
    if (plainBytes > 0) {
      if (this.#plain.length < plainBytes) this.#plain = Buffer.allocUnsafeSlow(plainBytes);
      const made = decompressInto(this.#plain.subarray(0, plainBytes), plain);
      if (made !== plainBytes) throw invalid(id, `it decompresses to ${made < 0 ? "nothing" : `${made} bytes`}, ${plainBytes} expected`);
      plain = this.#plain.subarray(0, plainBytes);
    }
    sha256Into(this.#digest, 0, plain);
    if (this.#digest.compare(id) !== 0) throw invalid(id, `its content has the hash ${hexOf(this.#digest, 0)}`);
    return plain;
  }
}

function invalid(id: Uint8Array, found: string, cause?: unknown): Failure {
  const name = hexOf(id, 0);
  return new Failure("BlobInvalid", `Cannot read blob "${name}": ${found}`, { details: { blobId: name }, cause });
}

/** Largest plain blob that is believed: a directory of ten million entries, or a chunk of another program. */
const maxPlainBytes = 2 ** 32 - 1;

/** Reads and checks blobs by id. */
export class BlobReader {
  readonly #index: BlobIndex;
  readonly #packs: PackReader;
  readonly #decoder: BlobDecoder;
  #sealed: Buffer = Buffer.alloc(0);

  constructor(index: BlobIndex, packs: PackReader, sealer: Sealer) {
    this.#index = index;
    this.#packs = packs;
    this.#decoder = new BlobDecoder(sealer);
  }

  /** @returns the plain bytes, valid until the next call @throws BlobMissing, BlobInvalid, and what the pack reader throws */
  read(id: Uint8Array): Uint8Array {
    const entry = this.#index.find(id);
    const place: BlobPlace | undefined = entry < 0 ? undefined : this.#index.placeOf(entry);
    if (place === undefined) {
      throw new Failure("BlobMissing", `Cannot read blob "${hexOf(id, 0)}": no pack in the index has it`, {
        details: { blobId: hexOf(id, 0) },
      });
    }
    if (place.sealedBytes < sealOverheadBytes || place.plainBytes > maxPlainBytes)
      throw invalid(id, `its index entry says ${place.sealedBytes} bytes`);
    if (this.#sealed.length < place.sealedBytes) this.#sealed = Buffer.allocUnsafeSlow(place.sealedBytes);
    const sealed = this.#sealed.subarray(0, place.sealedBytes);
    this.#packs.read(this.#index.packId(place.pack), place.offsetBytes, sealed);
    return this.#decoder.decode(id, sealed, place.plainBytes);
  }

  close(): void {
    this.#packs.close();
  }
}
