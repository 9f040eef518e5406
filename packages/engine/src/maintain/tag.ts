/**
 * Changes the tags of snapshots. Files are written once, so each becomes a new snapshot, which names the first one as its original, and
 * only when that is durable the old one is removed. A crash between the two leaves both, and the next run removes the old one.
 *
 * Needs an exclusive lock, which the caller holds from before the snapshots are listed.
 */
import { Failure, isFailure } from "@granary/base/errors";
import { throwIfCancelled } from "@granary/base/cancel";
import "../errors.ts";
import type { SnapshotId } from "../format/ids.ts";
import { type FileAccess, saveFile } from "../repository/files.ts";
import { removeSnapshot, type StoredSnapshot } from "../repository/snapshots.ts";
import { isSameSnapshot, rewriteSnapshot } from "./snapshot-rewrite.ts";

/** How tags change: all are replaced, or some are added and then some removed. */
export type TagChange =
  | { readonly kind: "set"; readonly tags: readonly string[] }
  | { readonly kind: "edit"; readonly add: readonly string[]; readonly remove: readonly string[] };

/** What became of a snapshot. Those whose tags are as wanted already are not told of. */
export type TagEvent =
  | { readonly kind: "changed"; readonly oldId: SnapshotId; readonly newId: SnapshotId; readonly tags: readonly string[] }
  | { readonly kind: "failed"; readonly oldId: SnapshotId; readonly failure: Failure };

export interface TagOptions {
  /** Those whose tags are to be changed. */
  readonly chosen: readonly StoredSnapshot[];
  /** All of the repository. */
  readonly all: readonly StoredSnapshot[];
  readonly change: TagChange;
  /** Must not throw. */
  readonly onEvent?: (event: TagEvent) => void;
  readonly signal?: AbortSignal;
}

/**
 * Changes the tags of each chosen snapshot. One that cannot be changed is reported, and the others are changed all the same.
 *
 * @returns how many were changed, and how many could not be
 * @throws InvalidArgument when there is nothing to change; Cancelled
 */
export async function changeTags(access: FileAccess, options: TagOptions): Promise<{ readonly changed: number; readonly failed: number }> {
  const { all, change, chosen, onEvent, signal } = options;
  if (change.kind === "edit" && change.add.length === 0 && change.remove.length === 0) {
    throw new Failure("InvalidArgument", "Cannot change tags: none were given to set, to add or to remove");
  }
  const counts = { changed: 0, failed: 0 };
  for (const snapshot of chosen) {
    throwIfCancelled(signal);
    const tags = applyChange(snapshot.tags, change);
    if (tags.length === snapshot.tags.length && tags.every((tag, i) => tag === snapshot.tags[i])) continue;
    try {
      const newId = await replaceSnapshot(access, { snapshot, tags, all, ...(signal && { signal }) });
      counts.changed++;
      onEvent?.({ kind: "changed", oldId: snapshot.id, newId, tags });
    } catch (error) {
      if (!isFailure(error) || error.kind === "cancelled" || error.kind === "bug") throw error;
      counts.failed++;
      onEvent?.({ kind: "failed", oldId: snapshot.id, failure: error });
    }
  }
  return counts;
}

/** The tags after a change: without empty ones and without repeats, in the order in which they came. */
export function applyChange(tags: readonly string[], change: TagChange): string[] {
  const wanted = change.kind === "set" ? change.tags : [...tags, ...change.add].filter((tag) => !change.remove.includes(tag));
  return [...new Set(wanted)].filter((tag) => tag !== "");
}

async function replaceSnapshot(
  access: FileAccess,
  {
    snapshot,
    tags,
    all,
    signal,
  }: { snapshot: StoredSnapshot; tags: readonly string[]; all: readonly StoredSnapshot[]; signal?: AbortSignal },
): Promise<SnapshotId> {
  const original = snapshot.original ?? snapshot.id;
  // left by a run that ended before it removed the old one
  const successor = all.find(
    (other) => other.id !== snapshot.id && other.original === original && isSameSnapshot(other, { ...snapshot, tags }),
  );
  let newId = successor?.id;
  if (newId === undefined) {
    await access.store.stat({ kind: "snapshot", name: snapshot.id }, signal); // one that somebody forgot must not come back
    const json = rewriteSnapshot(snapshot, { tags, original });
    newId = await saveFile(access, { kind: "snapshot", json }, signal);
  }
  await removeSnapshot(access, snapshot.id, signal);
  return newId;
}
