/**
 * Writes index files for packs that are durable, so that nothing refers to what is not.
 *
 * Entries are collected packed, and written when there are 50,000 or the first of them is 10 minutes old, as restic does: then a crash
 * costs at most that much of a long backup. Memory: 45 bytes an entry of the file being collected and of the one being written, and the
 * JSON of the latter; who adds faster than files can be saved waits in {@link IndexWriter.add}.
 *
 * One file is written at a time, and they are durable in the order in which packs were added. After a failure every call fails with it.
 */
import { throwIfCancelled } from "@granary/base/cancel";
import { type Clock, systemClock } from "@granary/base/clock";
import type { IndexId } from "../format/ids.ts";
import { encodeIndex, INDEX_ENTRY_BYTES, INDEX_TARGET_BLOBS, type IndexPack, writeIndexEntry } from "../format/index-file.ts";
import { hexOf, parsePackId } from "../format/ids.ts";
import { type HeaderEntry, parseHeader } from "../format/pack.ts";
import { releaseMemory } from "../native/memory.ts";
import type { BlobIndex } from "./blob-index.ts";
import { type FileAccess, saveFile } from "./files.ts";

/** A pack that is durable. */
export interface DurablePack {
  /** 32 bytes. */
  readonly id: Uint8Array;
  readonly sizeBytes: number;
  /** Its opened header (format/pack.ts). */
  readonly header: Uint8Array;
}

/** How index files are written. */
export interface IndexWriterOptions {
  readonly clock?: Clock;
  /** Aborts what is being saved. */
  readonly signal?: AbortSignal;
  /** Told of each file once it is durable; must not throw. */
  readonly onSaved?: (id: IndexId) => void;
  /** Blobs that make a file full; 50,000 when absent. */
  readonly targetBlobs?: number;
  /** How long a pack may wait for its index file; 10 minutes when absent. */
  readonly maxAgeMs?: number;
}

export class IndexWriter {
  readonly #access: FileAccess & { readonly index: BlobIndex };
  readonly #clock: Clock;
  readonly #options: IndexWriterOptions;
  readonly #targetBlobs: number;
  readonly #maxAgeMs: number;
  #packs: IndexPack[] = [];
  #blobCount = 0;
  #firstMs = 0;
  #saving: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  /** @param access a repository; its index is told where the blobs of each added pack are */
  constructor(access: FileAccess & { readonly index: BlobIndex }, options: IndexWriterOptions = {}) {
    this.#access = access;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#targetBlobs = options.targetBlobs ?? INDEX_TARGET_BLOBS;
    this.#maxAgeMs = options.maxAgeMs ?? 10 * 60_000;
  }

  /** Blobs of packs that no index file names yet. */
  get pendingBlobs(): number {
    return this.#blobCount;
  }

  /**
   * Adds a pack, which must be durable already. Its blobs are in the repository's index as soon as this is called.
   *
   * @param pack `id` and `header` are copied
   * @returns once there is room for more; it may be ignored until the next {@link flush}, which fails with whatever failed before
   * @throws PackInvalid when the header does not fit the pack; StoreFull, StoreDenied, StoreUnavailable; Cancelled
   */
  async add(pack: DurablePack): Promise<void> {
    this.#throwIfEnded();
    this.#collect(pack);
    const isDue = this.#blobCount >= this.#targetBlobs || this.#clock.monotonicMs() - this.#firstMs >= this.#maxAgeMs;
    if (isDue) await this.#startSave();
  }

  /** Writes what is collected, and waits until every file is durable. @throws what {@link add} throws */
  async flush(): Promise<void> {
    this.#throwIfEnded();
    await this.#startSave();
    await this.#saving;
  }

  #collect(pack: DurablePack): void {
    const { index } = this.#access;
    const header = parseHeader(pack.header, { id: parsePackId(hexOf(pack.id)), sizeBytes: pack.sizeBytes });
    if (this.#packs.length === 0) this.#firstMs = this.#clock.monotonicMs();
    const number = index.addPack(pack.id);
    const count = header.dataBlobs + header.treeBlobs;
    const entries = new Uint8Array(count * INDEX_ENTRY_BYTES);
    let at = 0;
    for (const entry of header.entries()) {
      at = writeIndexEntry(entries, at, entry);
      placeBlob(index, number, entry);
    }
    this.#packs.push({ packId: Uint8Array.from(pack.id), entries });
    this.#blobCount += count;
  }

  /** Begins to save what is collected. @returns when the save before it has ended, so that at most two files are in memory */
  #startSave(): Promise<void> {
    const before = this.#saving;
    if (this.#packs.length === 0) return before;
    const packs = this.#packs;
    this.#packs = [];
    this.#blobCount = 0;
    this.#saving = before.then(() => this.#save(packs));
    this.#saving.catch((error: unknown) => {
      this.#failure ??= { error };
    });
    return before;
  }

  #throwIfEnded(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
    throwIfCancelled(this.#options.signal);
  }

  async #save(packs: readonly IndexPack[]): Promise<void> {
    const json = encodeIndex(packs);
    const id = await saveFile(this.#access, { kind: "index", json }, this.#options.signal);
    releaseMemory(json);
    this.#options.onSaved?.(id);
  }
}

/** Tells where a blob is that was claimed, or that nobody claimed; a blob that has a place keeps it. */
function placeBlob(index: BlobIndex, pack: number, entry: HeaderEntry): void {
  const { offsetBytes, sealedBytes, plainBytes } = entry;
  const place = { pack, offsetBytes, sealedBytes, plainBytes, isTree: entry.type === "tree" };
  const known = index.find(entry.id, 0, place.isTree);
  if (known < 0) index.add(entry.id, 0, place);
  else if (index.placeOf(known) === undefined) index.place(known, place);
}
