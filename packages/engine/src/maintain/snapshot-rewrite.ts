/**
 * Snapshots that are written again, with other tags or into another repository: what stays of them stays as it is.
 */
import { encodeSnapshot, type Snapshot } from "../format/snapshot.ts";
import type { StoredSnapshot } from "../repository/snapshots.ts";

/** What changes in a snapshot that is written again. */
export type SnapshotChange = Partial<Pick<Snapshot, "tags" | "parent" | "original" | "tree">>;

/** The JSON of a changed snapshot. */
export function rewriteSnapshot(snapshot: StoredSnapshot, change: SnapshotChange): Uint8Array {
  const { id: _, ...rest } = snapshot;
  return encodeSnapshot({ ...rest, ...change });
}

/**
 * Whether two snapshots say the same, apart from their parents and originals: then one is a copy of the other. The order of paths and
 * tags does not matter.
 */
export function isSameSnapshot(a: Snapshot, b: Snapshot): boolean {
  return (
    a.timeNs === b.timeNs &&
    a.tree === b.tree &&
    a.hostname === b.hostname &&
    a.username === b.username &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    isSameList(a.excludes, b.excludes) &&
    isSameList(a.paths.toSorted(), b.paths.toSorted()) &&
    isSameList(a.tags.toSorted(), b.tags.toSorted())
  );
}

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}
