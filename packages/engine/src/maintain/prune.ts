/**
 * Removes what no snapshot needs.
 *
 * Planning reads every index file, snapshot and tree, and refuses to go on when anything that is needed is damaged or missing: what cannot be
 * read might name the very blobs that would be removed. Nothing is changed. A plan can be shown, and run.
 *
 * Running is in two parts, each of which leaves a repository in which every needed blob is in an index file and in a pack that is there:
 * first all packs go of which nothing is needed, which frees space; then packs of which little is needed are repacked, some at a time: blobs
 * are proved and copied, new packs are durable, new index files are durable, old index files go, old packs go. Killed anywhere, what is left
 * over is packs that no index file lists, or index files that say the same twice; the next prune takes them away and goes on.
 *
 * An exclusive lock must be held by the caller from before the planning until after the running, and its signal given to both.
 * Memory: that of the index, 8 bytes a tree, a bit a blob, and pack buffers for each worker.
 */
import { availableParallelism } from "node:os";
import { throwIfCancelled } from "@granary/base/cancel";
import { Failure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { hexOf } from "../format/ids.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import type { Repository } from "../repository/repository.ts";
import { rewriteIndexes } from "./index-rewrite.ts";
import type { BlobNumber } from "./index-survey.ts";
import { MaintainCrew } from "./maintain-crew.ts";
import type { CopyTask } from "./maintain-messages.ts";
import type { UnreferencedPack } from "./pack-files.ts";
import { type DecideOptions, decidePacks, defaultMaxUnused, type MaxUnused, type PackAction, type PackUse } from "./prune-plan.ts";
import { type FindUsedOptions, findUsedBlobs, pruneUnsafe, type UsedBlobs, type UsedBlobsEvent } from "./used-blobs.ts";

const mebibyte = 1024 * 1024;
const defaultPackBytes = 16 * mebibyte;
/** Packs repacked before the old ones go: bounds what a crash makes one do again, and the space that is needed for a while. */
const batchBytes = 1024 * mebibyte;
const batchBlobs = 250_000;

export interface PlanPruneOptions extends FindUsedOptions {
  /** 5 % when absent. */
  readonly maxUnused?: MaxUnused;
  /** Bytes of packs that are repacked at most; no bound when absent. */
  readonly maxRepackBytes?: number;
  readonly repackCacheableOnly?: boolean;
  readonly repackSmall?: boolean;
  /** Of no effect in repositories of version 1, which know no compression. */
  readonly repackUncompressed?: boolean;
  /** The size at which new data packs are closed; 16 MiB when absent. */
  readonly packBytes?: number;
}

/** A pack and what is to become of it. */
export interface PlannedPack extends PackUse {
  readonly action: PackAction;
}

export interface PruneSummary {
  readonly snapshots: number;
  readonly usedBlobs: number;
  readonly unusedBlobs: number;
  /** Copies of needed blobs beyond the one that is kept. */
  readonly redundantBlobs: number;
  readonly usedBytes: number;
  /** Of packs that go without being copied, those that no index file lists included. */
  readonly removeBytes: number;
  /** Of packs that are repacked. */
  readonly repackBytes: number;
  /** What repacking frees of them. */
  readonly repackFreesBytes: number;
  /** What stays wasted in packs that are kept. */
  readonly unusedAfterBytes: number;
  readonly packs: Readonly<Record<PackAction | "unreferenced", number>>;
}

/** What prune would do; plain data, to be shown. */
export interface PrunePlan {
  readonly summary: PruneSummary;
  readonly packs: readonly PlannedPack[];
  readonly unreferenced: readonly UnreferencedPack[];
}

interface PruneWork extends UsedBlobs {
  readonly packBytes: number;
  readonly recompress: boolean;
}
/** What it takes to run a plan, apart from what is shown of it. */
const works = new WeakMap<PrunePlan, PruneWork>();

/**
 * Finds out what can be removed. Changes nothing.
 *
 * @throws PruneUnsafe; StoreDenied, StoreUnavailable; Cancelled
 */
export async function planPrune(repository: Repository, options: PlanPruneOptions = {}): Promise<PrunePlan> {
  const used = await findUsedBlobs(repository, options);
  const packBytes = options.packBytes ?? defaultPackBytes;
  const canCompress = repository.config.version > 1;
  const decide: DecideOptions = {
    maxUnused: options.maxUnused ?? defaultMaxUnused,
    maxRepackBytes: options.maxRepackBytes ?? Number.POSITIVE_INFINITY,
    cacheableOnly: options.repackCacheableOnly ?? false,
    small: options.repackSmall ?? false,
    uncompressed: canCompress && (options.repackUncompressed ?? false),
    dataPackBytes: packBytes,
    treePackBytes: Math.min(4 * mebibyte, packBytes),
  };
  const actions = decidePacks(used.packs, decide);
  const packs = used.packs.map((use, i): PlannedPack => ({ ...use, action: actions[i] ?? "keep" }));
  const { unreferenced } = used.files;
  const plan: PrunePlan = { summary: summarize(packs, unreferenced, used.snapshots), packs, unreferenced };
  works.set(plan, { ...used, packBytes, recompress: decide.uncompressed });
  return plan;
}

function summarize(packs: readonly PlannedPack[], unreferenced: readonly UnreferencedPack[], snapshots: number): PruneSummary {
  const counts = { keep: 0, remove: 0, replace: 0, repack: 0, unreferenced: unreferenced.length };
  for (const { action } of packs) counts[action]++;
  const sum = (wanted: readonly PackAction[], value: (pack: PlannedPack) => number): number =>
    packs.reduce((total, pack) => (wanted.includes(pack.action) ? total + value(pack) : total), 0);
  const all: readonly PackAction[] = ["keep", "remove", "replace", "repack"];
  return {
    snapshots,
    usedBlobs: sum(all, (pack) => pack.usedBlobs),
    unusedBlobs: sum(all, (pack) => pack.unusedBlobs),
    redundantBlobs: sum(all, (pack) => pack.redundantBlobs),
    usedBytes: sum(all, (pack) => pack.usedBytes),
    removeBytes: sum(["remove", "replace"], (pack) => pack.sizeBytes) + unreferenced.reduce((total, pack) => total + pack.sizeBytes, 0),
    repackBytes: sum(["repack"], (pack) => pack.sizeBytes),
    repackFreesBytes: sum(["repack"], (pack) => pack.unusedBytes),
    unusedAfterBytes: sum(["keep"], (pack) => pack.unusedBytes),
    packs: counts,
  };
}

/** How far running has come. */
export type PruneEvent =
  | UsedBlobsEvent
  | {
      readonly kind: "repack";
      readonly packsDone: number;
      readonly packsTotal: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
    }
  | { readonly kind: "indexSaved"; readonly indexId: string }
  | { readonly kind: "remove"; readonly packsDone: number; readonly packsTotal: number };

export interface RunPruneOptions {
  /** zstd level 1 to 19 for what is compressed anew; 3 when absent. */
  readonly level?: number;
  readonly workers?: number;
  /** Must not throw. */
  readonly onProgress?: (event: PruneEvent) => void;
  /** Must be that of the lock, or follow it: when it is aborted, nothing more is removed. */
  readonly signal?: AbortSignal;
}

export interface PruneReport {
  readonly packsRemoved: number;
  readonly bytesRemoved: number;
  readonly packsRepacked: number;
  readonly packsWritten: number;
  readonly bytesWritten: number;
  readonly indexesWritten: number;
  readonly indexesRemoved: number;
}

/**
 * Does what was planned, under the same lock. A plan can be run once. An index that was loaded before is then out of date.
 *
 * @throws PruneUnsafe when a blob that is to be copied turns out to be damaged, and has no other copy: what was removed until then was not
 *   needed; InvalidArgument for a plan that was run; StoreFull, StoreDenied, StoreUnavailable; Cancelled, LockLost. Running a new plan
 *   goes on where this one stopped
 */
export async function runPrune(repository: Repository, plan: PrunePlan, options: RunPruneOptions = {}): Promise<PruneReport> {
  const work = works.get(plan);
  if (work === undefined) throw new Failure("InvalidArgument", "Cannot run the plan: it was run before; make a new one");
  works.delete(plan);
  return await new PruneRun(repository, plan, { ...options, work }).run();
}

class PruneRun {
  readonly #repository: Repository;
  readonly #plan: PrunePlan;
  readonly #work: PruneWork;
  readonly #options: RunPruneOptions;
  readonly #newPacks: FinishedPack[] = [];
  readonly #report = {
    packsRemoved: 0,
    bytesRemoved: 0,
    packsRepacked: 0,
    packsWritten: 0,
    bytesWritten: 0,
    indexesWritten: 0,
    indexesRemoved: 0,
  };

  constructor(repository: Repository, plan: PrunePlan, options: RunPruneOptions & { readonly work: PruneWork }) {
    this.#repository = repository;
    this.#plan = plan;
    this.#work = options.work;
    this.#options = options;
  }

  async run(): Promise<PruneReport> {
    const { packs, unreferenced } = this.#plan;
    await this.#removeFiles(unreferenced);
    await this.#drop(packs.filter(({ action }) => action === "remove"));
    const replaced = packs.filter(({ action }) => action === "replace");
    const repacked = packs.filter(({ action }) => action === "repack");
    if (repacked.length > 0) await this.#repackAll(repacked);
    await this.#drop(replaced);
    return this.#report;
  }

  async #repackAll(packs: readonly PlannedPack[]): Promise<void> {
    const { store, key } = this.#repository;
    const { signal, level = 3 } = this.#options;
    const { survey, packBytes, recompress } = this.#work;
    const bytesTotal = packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    // Each worker leaves one pack that is not full: little work is for few.
    const workers = Math.min(
      this.#options.workers ?? Math.min(8, availableParallelism()),
      Math.max(1, Math.floor(bytesTotal / (2 * packBytes))),
    );
    const writing = { packBytes, level, recompress, onPackDurable: (pack: FinishedPack): void => void this.#newPacks.push(pack) };
    await using crew = new MaintainCrew({ store, key, survey, workers, writing, ...(signal && { signal }) });
    let bytesDone = 0;
    for (const batch of splitBatches(packs)) {
      await this.#copy(crew, batch, (pack) => {
        bytesDone += pack.sizeBytes;
        const packsDone = ++this.#report.packsRepacked;
        this.#options.onProgress?.({ kind: "repack", packsDone, packsTotal: packs.length, bytesDone, bytesTotal });
      });
      const added = this.#takeNewPacks(batch);
      await this.#drop(batch, added);
    }
  }

  /** Copies what is needed of these packs. @throws PruneUnsafe when a blob is damaged in all its copies */
  async #copy(crew: MaintainCrew, batch: readonly PlannedPack[], onPack: (pack: PlannedPack) => void): Promise<void> {
    const { survey, isUsed } = this.#work;
    const byNumber = new Map(batch.map((pack) => [pack.pack, pack]));
    const tries = new Map<BlobNumber, number>();
    const problems: string[] = [];
    const tasks = Array.from(survey.collectBlobs(byNumber.keys(), isUsed), ([pack, blobs]): CopyTask => ({ kind: "copy", pack, blobs }));
    await crew.copy(tasks, (task, bad) => {
      const again: CopyTask[] = [];
      for (const { blob, failure } of bad) {
        const tried = tries.get(blob) ?? 0;
        const other = survey.findCopies(blob)[tried];
        tries.set(blob, tried + 1);
        if (other === undefined) problems.push(`Pack "${survey.packIdOf(task.pack)}": ${failure.message}`);
        else {
          const { pack, offsetBytes, sealedBytes, plainBytes } = other.place;
          again.push({ kind: "copy", pack, blobs: Uint32Array.of(blob, offsetBytes, sealedBytes, plainBytes) });
        }
      }
      const pack = byNumber.get(task.pack);
      if (pack !== undefined && byNumber.delete(task.pack)) onPack(pack);
      return again;
    });
    if (problems.length > 0) throw pruneUnsafe(problems.slice(0, 20), problems.length);
  }

  /** Tells the survey where the copied blobs are now. @returns the numbers of the new packs */
  #takeNewPacks(batch: readonly PlannedPack[]): number[] {
    const { survey } = this.#work;
    const added: number[] = [];
    for (const pack of this.#newPacks.splice(0)) {
      added.push(survey.adopt(pack));
      this.#report.packsWritten++;
      this.#report.bytesWritten += pack.sizeBytes;
    }
    const needed = batch.reduce((sum, { usedBlobs }) => sum + usedBlobs, 0);
    const copied = added.reduce((sum, pack) => sum + (survey.packs[pack]?.blobs ?? 0), 0);
    if (copied !== needed) throw new Failure("Bug", `${copied} blobs were copied, ${needed} are needed; nothing was removed`);
    return added;
  }

  /** Takes packs out of the index, and then away. @param added new packs for the index */
  async #drop(packs: readonly PlannedPack[], added: readonly number[] = []): Promise<void> {
    if (packs.length === 0) return;
    const { survey } = this.#work;
    const { signal, onProgress } = this.#options;
    const drop = new Set(packs.map(({ pack }) => pack));
    this.#proveSafe(drop);
    const { written, retired } = await rewriteIndexes(this.#repository, survey, {
      drop,
      add: added,
      onSaved: (indexId) => onProgress?.({ kind: "indexSaved", indexId }),
      ...(signal && { signal }),
    });
    this.#report.indexesWritten += written;
    this.#report.indexesRemoved += retired;
    await this.#removeFiles(packs);
  }

  /** The last look before anything goes: no needed blob is in these packs any more. */
  #proveSafe(drop: ReadonlySet<number>): void {
    const { survey, isUsed } = this.#work;
    survey.forEachBlob((blob, { pack }) => {
      if (!drop.has(pack) || !isUsed(blob)) return;
      const blobId = hexOf(survey.idOf(blob));
      throw new Failure("Bug", `Pack "${survey.packIdOf(pack)}" was to be removed, but has the needed blob "${blobId}"`, {
        details: { blobId },
      });
    });
  }

  async #removeFiles(packs: readonly { readonly packId: string; readonly sizeBytes: number }[]): Promise<void> {
    const { store } = this.#repository;
    const { signal, onProgress } = this.#options;
    throwIfCancelled(signal);
    const removed = mapOrdered(packs, { limit: store.concurrency, ...(signal && { signal }) }, async (pack) => {
      await store.remove({ kind: "pack", name: pack.packId }, signal);
      return pack;
    });
    let packsDone = 0;
    for await (const { sizeBytes } of removed) {
      this.#report.packsRemoved++;
      this.#report.bytesRemoved += sizeBytes;
      onProgress?.({ kind: "remove", packsDone: ++packsDone, packsTotal: packs.length });
    }
  }
}

/** Packs in the order of the index, so that what lay together stays together. */
function* splitBatches(packs: readonly PlannedPack[]): Generator<PlannedPack[]> {
  let batch: PlannedPack[] = [];
  let bytes = 0;
  let blobs = 0;
  for (const pack of packs) {
    batch.push(pack);
    bytes += pack.sizeBytes;
    blobs += pack.usedBlobs;
    if (bytes < batchBytes && blobs < batchBlobs) continue;
    yield batch;
    batch = [];
    bytes = 0;
    blobs = 0;
  }
  if (batch.length > 0) yield batch;
}
