/**
 * Takes what cannot be read out of snapshots, so that the rest of them is whole again: files of which a piece is missing, directories whose
 * tree cannot be read, entries that are none. A repaired snapshot is a new one, with the tag `repaired` and the id of the original; originals
 * stay until they are forgotten, and even then they are set aside.
 *
 * What counts as readable is what the index lists in packs that are there; that packs are whole `check --read-data` finds out, and
 * `repair packs` and `repair index` make the index say. Back up the same files again first: what that brings back needs no repair.
 *
 * Planning reads, running writes: new trees first, index files, snapshots, and then originals are set aside. The caller holds an exclusive
 * lock. Memory: 200 bytes a tree, and the trees on the way from the root to the one at hand.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { sha256 } from "../crypto/hash.ts";
import { type BlobId, blobIdOf, type SnapshotId } from "../format/ids.ts";
import { saveFile } from "../repository/files.ts";
import type { Repository } from "../repository/repository.ts";
import { loadSnapshots, type StoredSnapshot } from "../repository/snapshots.ts";
import { type IndexSurvey, surveyIndexes } from "./index-survey.ts";
import { surveyPackFiles } from "./pack-files.ts";
import { requireQuarantine, setAside, type SetAsideOptions } from "./set-aside.ts";
import { rewriteSnapshot } from "./snapshot-rewrite.ts";
import { type RepairedEntry, TreeRewriter } from "./tree-rewriter.ts";
import { TreeSaver } from "./tree-saver.ts";

export interface PlanSnapshotsOptions {
  /** All when absent. */
  readonly snapshotIds?: readonly SnapshotId[];
  /** Keeps files of which pieces are missing, without those, as restic does: shorter, with the rest moved together. */
  readonly keepPartialFiles?: boolean;
  /** Called after each snapshot; must not throw. */
  readonly onProgress?: (event: { readonly snapshotsDone: number; readonly snapshotsTotal: number }) => void;
  readonly signal?: AbortSignal;
}

export interface SnapshotRepair {
  readonly snapshotId: SnapshotId;
  /** `lost`: not even its root, or the snapshot itself, can be read. */
  readonly state: "whole" | "damaged" | "lost";
  /** The first 1000, in the order of the tree; what is in a directory that several snapshots share is told with the first. */
  readonly changes: readonly RepairedEntry[];
  readonly changeCount: number;
  /** Why it is lost. */
  readonly message?: string;
}

/** What repairing snapshots would do; plain data, to be shown. */
export interface SnapshotRepairPlan {
  readonly snapshots: readonly SnapshotRepair[];
}

interface Work {
  readonly survey: IndexSurvey;
  readonly isPresent: (pack: number) => boolean;
  readonly damaged: readonly StoredSnapshot[];
  readonly all: readonly StoredSnapshot[];
  readonly keepPartialFiles: boolean;
}
const works = new WeakMap<SnapshotRepairPlan, Work>();

/** Finds out what is to be taken out of which snapshots. Changes nothing. @throws StoreDenied, StoreUnavailable; Cancelled */
export async function planSnapshotRepair(repository: Repository, options: PlanSnapshotsOptions = {}): Promise<SnapshotRepairPlan> {
  const { snapshotIds, keepPartialFiles = false, onProgress, signal } = options;
  const wanted = snapshotIds === undefined ? undefined : new Set<string>(snapshotIds);
  const repairs: SnapshotRepair[] = [];
  const loaded = await loadSnapshots(repository, {
    onDamaged: (snapshotId, { message }) => {
      if (wanted?.has(snapshotId) !== false) repairs.push({ snapshotId, state: "lost", changes: [], changeCount: 0, message });
    },
    ...(signal && { signal }),
  });
  const snapshots = loaded.filter(({ id }) => wanted?.has(id) !== false);
  const survey = await surveyIndexes(repository, { ...(signal && { signal }) });
  const files = await surveyPackFiles(repository.store, survey, signal);
  files.preferPresent();
  const isPresent = (pack: number): boolean => files.sizeOf(pack) !== undefined;
  const damaged: StoredSnapshot[] = [];
  const rewriter = new TreeRewriter(repository, {
    survey,
    isPresent,
    keepPartialFiles,
    save: (tree) => Promise.resolve(blobIdOf(sha256(tree))),
  });
  for (const snapshot of snapshots) {
    const { root, changes, changeCount, message } = await rewriter.rewriteRoot(snapshot.tree, signal);
    const state = root === undefined ? "lost" : root === snapshot.tree ? "whole" : "damaged";
    if (state === "damaged") damaged.push(snapshot);
    repairs.push({ snapshotId: snapshot.id, state, changes, changeCount, ...(message === undefined ? {} : { message }) });
    onProgress?.({ snapshotsDone: repairs.length, snapshotsTotal: snapshots.length });
  }
  const plan: SnapshotRepairPlan = { snapshots: repairs };
  works.set(plan, { survey, isPresent, damaged, all: loaded, keepPartialFiles });
  return plan;
}

export interface RunSnapshotsOptions extends SetAsideOptions {
  /** Sets the originals of repaired snapshots, and lost snapshots, aside. */
  readonly forget?: boolean;
}

export interface SnapshotRepairReport {
  /** The originals and what was made of them. */
  readonly repaired: readonly { readonly from: SnapshotId; readonly to: SnapshotId }[];
  readonly treesWritten: number;
  readonly setAside: readonly SnapshotId[];
}

/**
 * Does what was planned, under the same lock.
 *
 * @throws InvalidArgument when originals are to be forgotten and files cannot be set aside; StoreFull, StoreDenied, StoreUnavailable; Cancelled
 */
export async function runSnapshotRepair(
  repository: Repository,
  plan: SnapshotRepairPlan,
  options: RunSnapshotsOptions = {},
): Promise<SnapshotRepairReport> {
  const work = works.get(plan);
  if (work === undefined) throw new Failure("InvalidArgument", "Cannot run the plan: it was run before; make a new one");
  const { forget = false, signal } = options;
  const { store } = repository;
  if (forget) requireQuarantine(store, options);
  works.delete(plan);
  const saver = new TreeSaver(repository, signal);
  const rewriter = new TreeRewriter(repository, { ...work, save: (tree) => saver.save(tree) });
  const roots: { readonly snapshot: StoredSnapshot; readonly root: BlobId }[] = [];
  for (const snapshot of work.damaged) {
    const { root } = await rewriter.rewriteRoot(snapshot.tree, signal);
    if (root !== undefined && root !== snapshot.tree) roots.push({ snapshot, root });
  }
  await saver.finish();
  const repaired: { from: SnapshotId; to: SnapshotId }[] = [];
  for (const { snapshot, root } of roots) {
    const { id, tags } = snapshot;
    const original = snapshot.original ?? id;
    // An earlier run made it, and was not told to forget the original.
    const known = work.all.find((other) => other.tree === root && other.original === original);
    if (known !== undefined) {
      repaired.push({ from: id, to: known.id });
      continue;
    }
    const change = { tree: root, original, parent: null, tags: tags.includes("repaired") ? tags : [...tags, "repaired"] };
    const json = rewriteSnapshot(snapshot, change);
    repaired.push({ from: id, to: await saveFile(repository, { kind: "snapshot", json }, signal) });
  }
  const gone: SnapshotId[] = [];
  if (forget) {
    const lost = plan.snapshots.flatMap(({ state, snapshotId }) => (state === "lost" ? [snapshotId] : []));
    for (const snapshotId of [...repaired.map(({ from }) => from), ...lost]) {
      await setAside(store, { kind: "snapshot", name: snapshotId }, options);
      gone.push(snapshotId);
    }
  }
  return { repaired, treesWritten: saver.trees, setAside: gone };
}
