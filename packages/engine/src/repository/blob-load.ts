/**
 * Blobs for the main thread, which must not block on the store: looked up in the index, loaded, opened, and checked against their ids.
 * Workers, which may block, have blob-reader.ts.
 */
import { Buffer } from "node:buffer";
import { Failure, isFailure, withContext } from "@granary/base/errors";
import "../errors.ts";
import type { Sealer } from "../crypto/seal.ts";
import { type BlobId, hexOf } from "../format/ids.ts";
import type { Store } from "../store/store.ts";
import type { BlobIndex } from "./blob-index.ts";
import { BlobDecoder } from "./blob-reader.ts";

/** What it takes to load blobs; every repository is one. */
export interface BlobSource {
  readonly store: Store;
  readonly sealer: Sealer;
  readonly index: BlobIndex;
}

/**
 * Loads a blob.
 *
 * @param id 32 bytes, or as text
 * @returns its plain bytes, which the caller owns
 * @throws BlobMissing when the index has no place for it; BlobInvalid; StoreFileNotFound, StoreTruncated, StoreDenied, StoreUnavailable,
 *   naming the pack; Cancelled
 */
export async function loadBlob(source: BlobSource, id: Uint8Array | BlobId, signal?: AbortSignal): Promise<Uint8Array> {
  const { index, sealer, store } = source;
  const bytes = typeof id === "string" ? Buffer.from(id, "hex") : id;
  const entry = index.find(bytes);
  const place = entry < 0 ? undefined : index.placeOf(entry);
  if (place === undefined) {
    const blobId = hexOf(bytes);
    throw new Failure("BlobMissing", `Cannot read blob "${blobId}": no pack in the index has it`, { details: { blobId } });
  }
  const packId = hexOf(index.packId(place.pack));
  try {
    const span = { offsetBytes: place.offsetBytes, lengthBytes: place.sealedBytes };
    const sealed = await store.load({ kind: "pack", name: packId }, span, signal);
    // A decoder of its own, so that nobody else writes into what it answers with.
    return new BlobDecoder(sealer).decode(bytes, sealed, place.plainBytes);
  } catch (error) {
    const context = { blobId: hexOf(bytes), packId };
    if (!isFailure(error, "BlobInvalid")) throw withContext(error, context);
    throw new Failure(error.code, error.message.replace(": ", ` in pack "${packId}": `), { details: context, cause: error.cause });
  }
}

/** How {@link createTreeLoader} keeps trees. */
export interface TreeLoaderOptions {
  /** Bytes of trees that are kept for the next who asks; 16 MiB when absent. */
  readonly cacheBytes?: number;
}

/** Loads tree blobs. What it answers with is shared and must not be changed. */
export type TreeLoader = (id: Uint8Array, signal?: AbortSignal) => Promise<Uint8Array>;

/** A loader of trees that keeps those used last. @throws what {@link loadBlob} throws */
export function createTreeLoader(source: BlobSource, options: TreeLoaderOptions = {}): TreeLoader {
  const cache = new TreeCache(options.cacheBytes ?? 16 * 2 ** 20);
  return async (id, signal) => {
    const key = hexOf(id);
    return cache.take(key) ?? cache.keep(key, await loadBlob(source, id, signal));
  };
}

/** Trees by id, those used longest ago given up first. */
class TreeCache {
  readonly #limitBytes: number;
  readonly #trees = new Map<string, Uint8Array>(); // least recently used first
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  take(key: string): Uint8Array | undefined {
    const tree = this.#trees.get(key);
    if (tree === undefined) return undefined;
    this.#trees.delete(key);
    this.#trees.set(key, tree);
    return tree;
  }

  keep(key: string, tree: Uint8Array): Uint8Array {
    if (this.#trees.has(key) || tree.length > this.#limitBytes) return tree;
    this.#trees.set(key, tree);
    this.#bytes += tree.length;
    for (const [oldest, { length }] of this.#trees) {
      if (this.#bytes <= this.#limitBytes) break;
      this.#trees.delete(oldest);
      this.#bytes -= length;
    }
    return tree;
  }
}
