/**
 * Checks a repository.
 *
 * The structure: every index file can be read, and what it says can be true; every indexed pack is there with the size that follows; every
 * snapshot can be read; every tree that can be reached opens, has the hash that is its id, is in order, and refers to nothing that is not in
 * the index with the right type. Each tree is read once, however many snapshots share it.
 *
 * The content, when asked: every pack, or a chosen part, is read whole and proved blob by blob.
 *
 * Nothing is changed. Snapshots are listed first and packs last, so that what a backup adds meanwhile is no error; what removes (forget,
 * prune) must not run, which a lock sees to that the caller holds. Memory: the index, 8 bytes a tree, a bit a blob, and one pack a worker.
 */
import { hostname } from "node:os";
import { type Clock, systemClock } from "@granary/base/clock";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { toUtf8OrEscaped } from "../format/byte-string.ts";
import { bytesOfId, hexOf } from "../format/ids.ts";
import { listKeys } from "../repository/keys.ts";
import { isStale, listLocks } from "../repository/lock-list.ts";
import type { Repository } from "../repository/repository.ts";
import { loadSnapshots, type StoredSnapshot } from "../repository/snapshots.ts";
import { ContentCheck } from "./check-content.ts";
import {
  type CheckEvent,
  type CheckFinding,
  type CheckLevel,
  type CheckNote,
  type CheckReport,
  completeFinding,
  type CheckError,
} from "./check-report.ts";
import { IndexSurvey, surveyIndexes } from "./index-survey.ts";
import { MaintainCrew, type TreeFinding, type WalkRoot } from "./maintain-crew.ts";
import { type PackFiles, surveyPackFiles } from "./pack-files.ts";
import { type ReadDataSelection, selectPacks } from "./read-data-selection.ts";
import type { SharedWalk } from "./shared-walk.ts";
import { TreePlaces } from "./tree-places.ts";

export interface CheckOptions {
  /** Reads packs whole; none when absent. */
  readonly readData?: ReadDataSelection;
  /** Notes blobs that nothing needs. */
  readonly checkUnused?: boolean;
  /** By default one a processor. */
  readonly workers?: number;
  /** Must not throw. */
  readonly onProgress?: (event: CheckEvent) => void;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
}

const maxKept = 10_000;
const progressMs = 200;

/**
 * Checks a repository. The caller holds a lock, or knows that nobody removes anything meanwhile.
 *
 * @returns what is wrong, all of it: damage is reported, not thrown
 * @throws StoreDenied, StoreUnavailable; Cancelled
 */
export async function checkRepository(repository: Repository, options: CheckOptions = {}): Promise<CheckReport> {
  const check = new Check(repository, options);
  return await check.run();
}

class Check {
  readonly #repository: Repository;
  readonly #options: CheckOptions;
  readonly #clock: Clock;
  readonly #survey = new IndexSurvey();
  readonly #errors: CheckError[] = [];
  readonly #errorCounts: Record<CheckLevel, number> = { structure: 0, content: 0 };
  readonly #notes: CheckNote[] = [];
  readonly #noteCounts = new Map<string, number>();

  constructor(repository: Repository, options: CheckOptions) {
    this.#repository = repository;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  async run(): Promise<CheckReport> {
    const { store, key } = this.#repository;
    const { signal, workers, readData, checkUnused } = this.#options;
    // The workers start while the index is read.
    await using crew = new MaintainCrew({ store, key, survey: this.#survey, ...(workers && { workers }), ...(signal && { signal }) });
    await this.#checkKeysAndLocks();
    const snapshots = await loadSnapshots(this.#repository, {
      onDamaged: (snapshotId, { message }) => this.#add({ kind: "snapshotDamaged", snapshotId, message }),
      ...(signal && { signal }),
    });
    await surveyIndexes(this.#repository, {
      survey: this.#survey,
      onProgress: (progress) => this.#options.onProgress?.({ kind: "indexes", ...progress }),
      ...(signal && { signal }),
    });
    const files = await surveyPackFiles(store, this.#survey, signal);
    files.preferPresent();
    this.#judgeIndexes();
    this.#judgePacks(files);
    const walk = await this.#walk(crew, snapshots);
    this.#judgeMissing(files, walk);
    if (checkUnused === true) this.#noteUnused(walk);
    const structureVerifiedMs = this.#errorCounts.structure === 0 ? this.#clock.nowMs() : null;
    const content = readData === undefined ? undefined : await this.#readData(crew, files, readData);
    const isContentWhole = content !== undefined && this.#errorCounts.structure + this.#errorCounts.content === 0;
    return {
      errors: this.#errors,
      errorCount: this.#errorCounts.structure + this.#errorCounts.content,
      notes: this.#notes,
      counts: {
        snapshots: snapshots.length,
        indexes: this.#survey.indexes.length,
        packs: this.#survey.packs.length,
        packBytes: files.totalBytes,
        dataBlobs: this.#survey.data.size,
        treeBlobs: this.#survey.trees.size,
        duplicates: this.#survey.copies.length,
        unreferencedPacks: files.unreferenced.length,
        treesRead: walk.treesDone,
        dataBlobsNeeded: walk.blobsSeen,
        packsRead: content?.packs ?? 0,
        packBytesRead: content?.bytes ?? 0,
        blobsRead: content?.blobs ?? 0,
      },
      structureVerifiedMs,
      contentVerifiedMs: isContentWhole && content.packs > 0 ? this.#clock.nowMs() : null,
      selection: readData ?? null,
    };
  }

  async #checkKeysAndLocks(): Promise<void> {
    const { signal } = this.#options;
    const signalOption = signal && { signal };
    await listKeys(this.#repository, { onDamagedKey: ({ message }) => this.#add({ kind: "keyDamaged", message }), ...signalOption });
    const onDamaged = (lockId: string): void => this.#note({ kind: "locked", lockId, isStale: false });
    for (const lock of await listLocks(this.#repository, { clock: this.#clock, onDamaged, ...signalOption })) {
      const isOurs = lock.hostname === hostname() && lock.pid === process.pid;
      if (!isOurs) this.#note({ kind: "locked", lockId: lock.id, isStale: isStale(lock, this.#clock.nowMs()) });
    }
  }

  #judgeIndexes(): void {
    const listings = new Uint32Array(this.#survey.packs.length);
    for (const { packs } of this.#survey.indexes) for (const pack of packs) listings[pack] = (listings[pack] ?? 0) + 1;
    for (const { id, packs, failure } of this.#survey.indexes) {
      if (failure !== undefined) this.#add({ kind: "indexDamaged", indexId: id, message: failure.message });
      else if (packs.every((pack) => (listings[pack] ?? 0) > 1)) this.#note({ kind: "indexRedundant", indexId: id });
    }
  }

  #judgePacks(files: PackFiles): void {
    this.#survey.packs.forEach((pack, number) => {
      const packId = this.#survey.packIdOf(number);
      const sizeBytes = files.sizeOf(number);
      if (pack.fault !== "") {
        this.#add({ kind: "packListing", packId, message: `What index files say of pack "${packId}" cannot be true: ${pack.fault}` });
      }
      if (sizeBytes !== undefined && sizeBytes !== pack.expectedBytes) {
        const message = `Pack "${packId}" has ${sizeBytes} bytes, but its blobs and header take ${pack.expectedBytes}`;
        this.#add({ kind: "packSize", packId, sizeBytes, expectedBytes: pack.expectedBytes, message });
      }
      if (pack.hasData && pack.hasTrees) this.#note({ kind: "packMixed", packId });
    });
    for (const { packId, sizeBytes } of files.unreferenced) this.#note({ kind: "packUnreferenced", packId, sizeBytes });
  }

  /** Names the packs that are not there; after the walk, since how bad that is depends on what is needed. */
  #judgeMissing(files: PackFiles, walk: SharedWalk): void {
    const missing = this.#survey.packs.map((_, number) => files.sizeOf(number) === undefined);
    if (!missing.includes(true)) return;
    const needed = new Uint32Array(missing.length);
    const count = (pack: number): void => {
      needed[pack] = (needed[pack] ?? 0) + 1;
    };
    this.#survey.forEachBlob((blob, { pack }) => {
      const isNeeded = (blob & 1) === 1 ? walk.hasSeenTree(blob >>> 1) : walk.hasSeenData(blob >>> 1);
      if (missing[pack] === true && isNeeded) count(pack);
    });
    missing.forEach((isMissing, number) => {
      if (!isMissing) return;
      const packId = this.#survey.packIdOf(number);
      const { blobs } = this.#survey.packs[number] ?? { blobs: 0 };
      const neededBlobs = needed[number] ?? 0;
      const message = `Pack "${packId}" is missing; of its ${blobs} blobs ${neededBlobs} are needed and in no other pack`;
      this.#add({ kind: "packMissing", packId, blobs, neededBlobs, message });
    });
  }

  async #walk(crew: MaintainCrew, snapshots: readonly StoredSnapshot[]): Promise<SharedWalk> {
    const survey = this.#survey;
    const roots: WalkRoot[] = [];
    snapshots.forEach(({ id, tree }, snapshot) => {
      const entry = survey.trees.find(bytesOfId(tree));
      if (entry >= 0) roots.push({ tree: entry, snapshot });
      else {
        const message = `Snapshot "${id}" needs tree "${tree}", which no index file lists${survey.data.find(bytesOfId(tree)) >= 0 ? " but as data" : ""}`;
        this.#add({ kind: "treeMissing", treeId: tree, snapshotId: id, path: "", message });
      }
    });
    const findings: TreeFinding[] = [];
    let stopProgress = (): void => {};
    try {
      const walk = await crew.walk(roots, {
        onFinding: (finding) => {
          if (findings.length < maxKept) findings.push(finding);
          else this.#errorCounts.structure++;
        },
        onStart: (started) => {
          const report = (): void => {
            const { treesDone, blobsSeen } = started;
            this.#options.onProgress?.({ kind: "trees", treesDone, treesTotal: survey.trees.size, blobsSeen });
          };
          stopProgress = this.#clock.every(progressMs, report);
        },
      });
      const places = new TreePlaces(this.#repository, survey, walk);
      const { signal } = this.#options;
      const described = mapOrdered(findings, { limit: 4, ...(signal && { signal }) }, async (finding) => {
        const { snapshot, path } = await places.find(finding.tree, signal);
        return describeFinding(finding, { survey, snapshotId: snapshots[snapshot]?.id ?? "", directory: path });
      });
      for await (const finding of described) this.#add(finding);
      return walk;
    } finally {
      stopProgress();
    }
  }

  #noteUnused(walk: SharedWalk): void {
    this.#survey.forEachBlob((blob, { pack, isTree }) => {
      if (isTree ? walk.hasSeenTree(blob >>> 1) : walk.hasSeenData(blob >>> 1)) return;
      const blobId = hexOf(this.#survey.idOf(blob));
      this.#note({ kind: "blobUnused", blobId, blobType: isTree ? "tree" : "data", packId: this.#survey.packIdOf(pack) });
    });
  }

  async #readData(crew: MaintainCrew, files: PackFiles, selection: ReadDataSelection): Promise<ContentCheck> {
    const survey = this.#survey;
    const present = survey.packs.flatMap((_, pack) => {
      const sizeBytes = files.sizeOf(pack);
      return sizeBytes === undefined ? [] : [{ pack, sizeBytes, packId: survey.data.packId(pack) }];
    });
    const chosen = selectPacks(present, selection);
    const bytesTotal = chosen.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const content = new ContentCheck(survey, (finding) => this.#add(finding));
    await crew.verify(chosen, (pack, findings) => {
      content.take(pack, files.sizeOf(pack) ?? 0, findings);
      const { packs: packsDone, bytes: bytesDone } = content;
      this.#options.onProgress?.({ kind: "content", packsDone, packsTotal: chosen.length, bytesDone, bytesTotal });
    });
    await content.finish(this.#repository, this.#options.signal);
    return content;
  }

  #add(finding: CheckFinding): void {
    const error = completeFinding(finding);
    this.#errorCounts[error.level]++;
    if (this.#errors.length < maxKept) this.#errors.push(error);
    this.#options.onProgress?.({ kind: "error", error });
  }

  #note(note: CheckNote): void {
    const count = this.#noteCounts.get(note.kind) ?? 0;
    this.#noteCounts.set(note.kind, count + 1);
    if (count < maxKept) this.#notes.push(note);
  }
}

function describeFinding(
  finding: TreeFinding,
  at: { readonly survey: IndexSurvey; readonly snapshotId: string; readonly directory: string },
): CheckFinding {
  const { survey, snapshotId, directory } = at;
  const { problem, hasOtherCopy } = finding;
  const treeId = hexOf(survey.trees.idOf(finding.tree));
  const path = problem.name === "" ? directory : `${directory}/${problem.name}`;
  const shown = toUtf8OrEscaped(path === "" ? "/" : path);
  const place = `${shown} in snapshot "${snapshotId}"`;
  if (problem.kind === "missing") {
    const id = problem.blobId ?? "";
    if (problem.blobType === "tree")
      return { kind: "treeMissing", treeId: id, snapshotId, path, message: `${place}: ${problem.failure.message}` };
    return { kind: "blobMissing", blobId: id, treeId, snapshotId, path, message: `${place}: ${problem.failure.message}` };
  }
  const message = `Tree "${treeId}", ${place}: ${problem.failure.message}`;
  if (problem.kind !== "unreadable") return { kind: "treeInvalid", treeId, snapshotId, path, message };
  const packId = survey.packIdOf(finding.pack);
  return { kind: "treeDamaged", treeId, packId, hasOtherCopy, snapshotId, path, message };
}
