/**
 * Reading index files: concurrently, in bounded memory, each checked against its name, straight into packed tables.
 *
 * Files are loaded ahead within {@link inFlightBytes}, and decoded one after the other in the order of the store's list, so that of a blob
 * in several packs the same one is kept each time.
 */
import { Failure, isFailure, toFailure, withContext } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { type IndexVisitor, scanIndex } from "../format/index-file.ts";
import type { IndexId } from "../format/ids.ts";
import { releaseMemory } from "../native/memory.ts";
import type { BlobIndex, BlobPlace } from "./blob-index.ts";
import { type FileAccess, type ListedFile, listFiles, openFile, reportDamage } from "./files.ts";

/** How far reading has come. */
export interface IndexProgress {
  readonly filesDone: number;
  readonly filesTotal: number;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** How index files are read. */
export interface LoadIndexOptions {
  /** Called after each file; must not throw. */
  readonly onProgress?: (progress: IndexProgress) => void;
  /**
   * Told of each file that is damaged or has vanished; reading goes on without it, but for what was read of it before the fault.
   * Without it, reading fails.
   */
  readonly onDamaged?: (id: IndexId, failure: Failure) => void;
  readonly signal?: AbortSignal;
}

/** Visits every index file; which one is told before its packs. */
export interface AllIndexesVisitor extends IndexVisitor {
  /** A file begins. It may turn out to be damaged behind its first packs. */
  file?(id: IndexId): void;
}

interface LoadedFile extends ListedFile<"index"> {
  readonly sealed: Uint8Array | Failure;
}

/** Stored bytes of files that are being loaded or wait for their turn; one larger file alone is let through. */
const inFlightBytes = 16 * 2 ** 20;

/**
 * Reads all index files into the repository's index, which it adds to. List snapshots before, so that all their blobs are found.
 *
 * @throws IndexInvalid, NameMismatch, StoreFileNotFound, naming the file, unless `onDamaged` takes them; StoreDenied, StoreUnavailable; Cancelled
 */
export async function loadIndex(repository: FileAccess & { readonly index: BlobIndex }, options: LoadIndexOptions = {}): Promise<void> {
  const { index } = repository;
  // one object for all: there are millions of blobs
  const place: { -readonly [K in keyof BlobPlace]: BlobPlace[K] } = {
    pack: 0,
    offsetBytes: 0,
    sealedBytes: 0,
    plainBytes: 0,
    isTree: false,
  };
  await scanAllIndexes(
    repository,
    {
      pack(packId) {
        place.pack = index.addPack(packId);
      },
      blob(blob) {
        place.offsetBytes = blob.offsetBytes;
        place.sealedBytes = blob.sealedBytes;
        place.plainBytes = blob.plainBytes;
        place.isTree = blob.isTree;
        index.add(blob.id, 0, place);
      },
    },
    options,
  );
}

/**
 * Reads all index files, and shows every pack and blob as often as it is listed: for check, prune and rebuild.
 *
 * @throws as {@link loadIndex}; what the visitor throws
 */
export async function scanAllIndexes(access: FileAccess, visitor: AllIndexesVisitor, options: LoadIndexOptions = {}): Promise<void> {
  const { onProgress, onDamaged, signal } = options;
  const files = await Array.fromAsync(listFiles(access.store, "index", signal));
  const bytesTotal = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let bytesDone = 0;
  let filesDone = 0;
  const budget = new ByteBudget(inFlightBytes);
  const load = async ({ id, sizeBytes }: ListedFile<"index">, stop: AbortSignal): Promise<LoadedFile> => {
    try {
      return { id, sizeBytes, sealed: await access.store.load({ kind: "index", name: id }, undefined, stop) };
    } catch (error) {
      return { id, sizeBytes, sealed: toFailure(error) };
    }
  };
  const limit = { limit: Math.max(2, access.store.concurrency), ...(signal && { signal }) };
  for await (const { id, sizeBytes, sealed } of mapOrdered(budget.admit(files), limit, load)) {
    try {
      if (isFailure(sealed)) throw sealed;
      const json = openFile(access, { kind: "index", id }, sealed);
      releaseMemory(sealed);
      visitor.file?.(id);
      scanNamed(json, id, visitor);
      releaseMemory(json);
    } catch (error) {
      reportDamage(error, onDamaged && ((failure) => onDamaged(id, failure)));
    }
    budget.release(sizeBytes);
    bytesDone += sizeBytes;
    onProgress?.({ filesDone: ++filesDone, filesTotal: files.length, bytesDone, bytesTotal });
  }
}

function scanNamed(json: Uint8Array, id: IndexId, visitor: IndexVisitor): void {
  try {
    scanIndex(json, visitor);
  } catch (error) {
    const failure = toFailure(error);
    if (failure.code !== "IndexInvalid") throw error;
    const message = failure.message.replace("Cannot read index:", `Cannot read index "${id}":`);
    throw withContext(new Failure(failure.code, message, { details: failure.details, cause: failure.cause }), { indexId: id });
  }
}

/** Lets items through while their bytes, not yet released, stay within a bound; always at least one. */
class ByteBudget {
  #left: number;
  readonly #total: number;
  #wake = (): void => {};

  constructor(bytes: number) {
    this.#left = bytes;
    this.#total = bytes;
  }

  async *admit<T extends { readonly sizeBytes: number }>(items: Iterable<T>): AsyncGenerator<T> {
    for (const item of items) {
      while (item.sizeBytes > this.#left && this.#left < this.#total) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      this.#left -= item.sizeBytes;
      yield item;
    }
  }

  release(bytes: number): void {
    this.#left += bytes;
    this.#wake();
  }
}
