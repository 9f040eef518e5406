/**
 * Copies snapshots into another repository, with all that they need and it does not have.
 *
 * Workers read the missing blobs pack by pack, prove each, and pack it anew under the other key. Snapshots are committed in batches, so that
 * small ones share packs: packs first, then the index, then the snapshots that need them. What was copied before an interruption is in the
 * index within ten minutes, and is not copied again; a snapshot that was copied before is recognized and left out.
 *
 * Both repositories are locked, not exclusively, and have their indexes loaded, by the caller, in this order: snapshots before index.
 * Chunks are not cut again: the two repositories share data with each other's backups only where both cut alike.
 */
import { throwIfCancelled } from "@granary/base/cancel";
import { Failure, isFailure, withContext } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { bytesOfId, hexOf, type SnapshotId } from "../format/ids.ts";
import { createTreeLoader } from "../repository/blob-load.ts";
import { saveFile } from "../repository/files.ts";
import { IndexWriter } from "../repository/index-writer.ts";
import type { Repository } from "../repository/repository.ts";
import type { StoredSnapshot } from "../repository/snapshots.ts";
import { CopyCrew } from "./copy-crew.ts";
import type { CopyTask } from "./copy-messages.ts";
import { BlobSet } from "./id-set.ts";
import { isSameSnapshot, rewriteSnapshot } from "./snapshot-rewrite.ts";
import { scanReferences } from "./tree-references.ts";

/** What happens during a copy. */
export type CopyEvent =
  /** The target has the snapshot already. */
  | { readonly kind: "skipped"; readonly snapshot: StoredSnapshot; readonly copyId: SnapshotId }
  /** What a snapshot needs and the target does not have was found out. */
  | { readonly kind: "planned"; readonly snapshot: StoredSnapshot; readonly blobs: number; readonly sealedBytes: number }
  /** Sums over all snapshots; the totals are of what is known to be missing by now. */
  | {
      readonly kind: "progress";
      readonly blobsDone: number;
      readonly blobsTotal: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
    }
  /** The snapshot is in the target, durably. */
  | { readonly kind: "saved"; readonly snapshot: StoredSnapshot; readonly copyId: SnapshotId };

export interface CopyOptions {
  /** What to copy; in this order. */
  readonly snapshots: readonly StoredSnapshot[];
  /** All snapshots of the target. */
  readonly existing: readonly StoredSnapshot[];
  /** The size at which a data pack is closed; 16 MiB when absent. */
  readonly packBytes?: number;
  /** zstd level for blobs that are not compressed in the source; 3 when absent. */
  readonly level?: number;
  /** As in {@link CopyCrew}. */
  readonly workers?: number;
  /** Must not throw. */
  readonly onEvent?: (event: CopyEvent) => void;
  readonly signal?: AbortSignal;
}

export interface CopyReport {
  /** Which snapshot became which. */
  readonly saved: ReadonlyMap<SnapshotId, SnapshotId>;
  /** Which snapshot was there as which. */
  readonly skipped: ReadonlyMap<SnapshotId, SnapshotId>;
  readonly blobs: number;
  /** As they were stored in the source. */
  readonly sealedBytes: number;
}

/** Bytes, or blobs, to copy after which they are copied, and the snapshots so far are committed. */
const BATCH_BYTES = 2 ** 30;
const BATCH_BLOBS = 500_000;
const TREES_AHEAD = 16;

/**
 * Copies snapshots.
 *
 * @throws BlobMissing, BlobInvalid, TreeInvalid and others, naming the snapshot, when the source is damaged: snapshots committed before stay;
 *   StoreFull, StoreDenied, StoreUnavailable; Cancelled
 */
export async function copySnapshots(source: Repository, target: Repository, options: CopyOptions): Promise<CopyReport> {
  await using copying = new Copying(source, target, options);
  return await copying.run();
}

class Copying implements AsyncDisposable {
  readonly #source: Repository;
  readonly #target: Repository;
  readonly #options: CopyOptions;
  readonly #writer: IndexWriter;
  readonly #load: (id: Uint8Array, signal?: AbortSignal) => Promise<Uint8Array>;
  /** Trees of the source that were read. */
  readonly #visited: BlobSet;
  /** Blobs of the source that are copied, or will be with this batch. */
  readonly #taken: BlobSet;
  readonly #copies: Map<SnapshotId, StoredSnapshot[]>;
  readonly #saved = new Map<SnapshotId, SnapshotId>();
  readonly #skipped = new Map<SnapshotId, SnapshotId>();
  #crew: CopyCrew | undefined;
  /** Entries of the source's index that are to be copied next. */
  #batch: number[] = [];
  #batchBytes = 0;
  #hasCopied = false;
  #planned: StoredSnapshot[] = [];
  readonly #sums = { blobsDone: 0, blobsTotal: 0, bytesDone: 0, bytesTotal: 0 };

  constructor(source: Repository, target: Repository, options: CopyOptions) {
    this.#source = source;
    this.#target = target;
    this.#options = options;
    this.#writer = new IndexWriter(target);
    this.#load = createTreeLoader(source);
    this.#visited = new BlobSet(source.index);
    this.#taken = new BlobSet(source.index);
    this.#copies = new Map();
    for (const snapshot of options.existing) this.#remember(snapshot);
  }

  async run(): Promise<CopyReport> {
    try {
      for (const snapshot of this.#options.snapshots) {
        throwIfCancelled(this.#options.signal);
        const copy = this.#findCopy(snapshot);
        if (copy === undefined) await this.#plan(snapshot);
        else {
          this.#skipped.set(snapshot.id, copy.id);
          this.#options.onEvent?.({ kind: "skipped", snapshot, copyId: copy.id });
        }
        if (this.#hasCopied || this.#isBatchFull) await this.#commit();
      }
      await this.#commit();
    } catch (error) {
      await this.#keepWhatIsCopied();
      throw error;
    }
    return { saved: this.#saved, skipped: this.#skipped, blobs: this.#sums.blobsDone, sealedBytes: this.#sums.bytesDone };
  }

  get #isBatchFull(): boolean {
    return this.#batchBytes >= BATCH_BYTES || this.#batch.length >= BATCH_BLOBS;
  }

  /** Lets the next run find what is durable, unless the lock is lost: then others may be removing it. */
  async #keepWhatIsCopied(): Promise<void> {
    await this[Symbol.asyncDispose]();
    if (isFailure(this.#options.signal?.reason, "LockLost")) return;
    await this.#writer.flush().catch(() => undefined); // what went wrong before is what counts
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#crew?.[Symbol.asyncDispose]();
  }

  /** A snapshot and its copies have one original, and say the same. */
  #findCopy(snapshot: StoredSnapshot): StoredSnapshot | undefined {
    return this.#copies.get(snapshot.original ?? snapshot.id)?.find((copy) => isSameSnapshot(copy, snapshot));
  }

  #remember(snapshot: StoredSnapshot): void {
    for (const key of new Set([snapshot.id, snapshot.original ?? snapshot.id])) {
      const copies = this.#copies.get(key);
      if (copies === undefined) this.#copies.set(key, [snapshot]);
      else copies.push(snapshot);
    }
  }

  async #plan(snapshot: StoredSnapshot): Promise<void> {
    const { blobsTotal, bytesTotal } = this.#sums;
    await this.#collect(snapshot);
    this.#planned.push(snapshot);
    const [blobs, sealedBytes] = [this.#sums.blobsTotal - blobsTotal, this.#sums.bytesTotal - bytesTotal];
    this.#options.onEvent?.({ kind: "planned", snapshot, blobs, sealedBytes });
  }

  /** Finds the blobs below a tree that must be copied. The target having a tree says nothing of what is below it: a copy may have stopped there. */
  async #collect({ id: snapshotId, tree }: StoredSnapshot): Promise<void> {
    const inSnapshot = (error: unknown): never => {
      throw withContext(error, { snapshotId });
    };
    const root = bytesOfId(tree);
    let level: Uint8Array[] = [];
    try {
      if (this.#visit(root)) level = [root];
    } catch (error) {
      inSnapshot(error);
    }
    const limit = { limit: TREES_AHEAD, ...(this.#options.signal && { signal: this.#options.signal }) };
    while (level.length > 0) {
      const next: Uint8Array[] = [];
      for await (const bytes of mapOrdered(level, limit, (id, stop) => this.#load(id, stop).catch(inSnapshot))) {
        try {
          this.#readTree(bytes, next);
        } catch (error) {
          inSnapshot(error);
        }
        if (this.#isBatchFull) await this.#copyBatch();
      }
      level = next;
    }
  }

  #readTree(bytes: Uint8Array, subtrees: Uint8Array[]): void {
    scanReferences(bytes, {
      entry() {},
      data: (id) => this.#need(id),
      tree: (id) => {
        if (this.#visit(id)) subtrees.push(Uint8Array.from(id));
      },
      problem(problem) {
        throw problem;
      },
    });
  }

  /** @returns whether the tree was not met before */
  #visit(id: Uint8Array): boolean {
    if (this.#visited.add(id) === 0) return false;
    this.#need(id);
    return true;
  }

  #need(id: Uint8Array): void {
    const { index } = this.#target;
    const known = index.find(id);
    if (known >= 0 && index.placeOf(known) !== undefined) return;
    const added = this.#taken.add(id);
    if (added === 0) return;
    const entry = added < 0 ? -1 : this.#source.index.find(id);
    const place = entry < 0 ? undefined : this.#source.index.placeOf(entry);
    if (place === undefined) {
      const blobId = hexOf(id);
      throw new Failure("BlobMissing", `Cannot copy blob "${blobId}": no pack in the index has it`, { details: { blobId } });
    }
    this.#batch.push(entry);
    this.#batchBytes += place.sealedBytes;
    this.#sums.blobsTotal++;
    this.#sums.bytesTotal += place.sealedBytes;
  }

  async #copyBatch(): Promise<void> {
    const entries = this.#batch;
    if (entries.length === 0) return;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#hasCopied = true;
    this.#crew ??= this.#startCrew();
    await this.#crew.copy(planTasks(this.#source, entries));
  }

  /** Makes everything durable that the planned snapshots need, and then them. */
  async #commit(): Promise<void> {
    await this.#copyBatch();
    await this.#writer.flush();
    this.#hasCopied = false;
    for (const snapshot of this.#planned) await this.#saveSnapshot(snapshot);
    this.#planned = [];
  }

  #startCrew(): CopyCrew {
    const { level = 3, packBytes = 16 * 2 ** 20, workers, onEvent, signal } = this.#options;
    return new CopyCrew({
      source: this.#source,
      target: this.#target,
      level,
      packBytes,
      ...(workers === undefined ? {} : { workers }),
      onPackDurable: (pack) => this.#writer.add(pack),
      onCopied: (blobs, sealedBytes) => {
        this.#sums.blobsDone += blobs;
        this.#sums.bytesDone += sealedBytes;
        onEvent?.({ kind: "progress", ...this.#sums });
      },
      ...(signal && { signal }),
    });
  }

  async #saveSnapshot(snapshot: StoredSnapshot): Promise<void> {
    const { onEvent, signal } = this.#options;
    const original = snapshot.original ?? snapshot.id;
    // the parent is a snapshot of the source, and means nothing in the target
    const change = { parent: null, original };
    const json = rewriteSnapshot(snapshot, change);
    const copyId = await saveFile(this.#target, { kind: "snapshot", json }, signal);
    this.#saved.set(snapshot.id, copyId);
    this.#remember({ ...snapshot, ...change, id: copyId });
    onEvent?.({ kind: "saved", snapshot, copyId });
  }
}

/** One task for each pack of the source, its blobs in the order in which they lie there. */
function* planTasks({ index }: Repository, entries: readonly number[]): Generator<CopyTask, void, undefined> {
  const byPack = new Map<number, { entry: number; offsetBytes: number }[]>();
  for (const entry of entries) {
    const place = index.placeOf(entry);
    if (place === undefined) continue;
    const blobs = byPack.get(place.pack);
    if (blobs === undefined) byPack.set(place.pack, [{ entry, offsetBytes: place.offsetBytes }]);
    else blobs.push({ entry, offsetBytes: place.offsetBytes });
  }
  for (const [pack, blobs] of byPack) {
    blobs.sort((a, b) => a.offsetBytes - b.offsetBytes);
    yield { kind: "copy", pack, entries: Uint32Array.from(blobs, ({ entry }) => entry) };
    byPack.delete(pack);
  }
}
