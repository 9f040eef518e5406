/**
 * Snapshots: listing, finding, saving. One damaged snapshot does not hide the others.
 */
import { Failure, isFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { isId, parseSnapshotId, type SnapshotId } from "../format/ids.ts";
import { encodeSnapshot, parseSnapshot, type Snapshot } from "../format/snapshot.ts";
import { type FileAccess, listByPrefix, listFiles, loadFile, reportDamage, saveFile } from "./files.ts";

/** A snapshot that is in the repository. */
export interface StoredSnapshot extends Snapshot {
  readonly id: SnapshotId;
}

/** Which snapshots are meant, in restic's terms. Absent and empty lists ask for nothing. */
export interface SnapshotFilter {
  /** Made on one of these machines. */
  readonly hosts?: readonly string[];
  /** Made of all of these paths, perhaps of others too. */
  readonly paths?: readonly string[];
  /** With all tags of one of these lists; the list `[""]` stands for snapshots without tags. */
  readonly tags?: readonly (readonly string[])[];
}

/** How snapshots are read. */
export interface LoadSnapshotsOptions {
  /** Told of each that is damaged or has vanished; it is left out. Without it, loading fails. */
  readonly onDamaged?: (id: SnapshotId, failure: Failure) => void;
  readonly signal?: AbortSignal;
}

/** A snapshot as a user named it. */
export interface FoundSnapshot {
  readonly snapshot: StoredSnapshot;
  /** What stood behind the colon, or "": a path inside the snapshot. */
  readonly subpath: string;
}

/**
 * Loads all snapshots, oldest first.
 *
 * @throws SnapshotInvalid, NameMismatch, StoreFileNotFound, unless `onDamaged` takes them; StoreDenied, StoreUnavailable; Cancelled
 */
export async function loadSnapshots(access: FileAccess, options: LoadSnapshotsOptions = {}): Promise<StoredSnapshot[]> {
  const { onDamaged, signal } = options;
  const load = async ({ id }: { readonly id: SnapshotId }, stop: AbortSignal): Promise<StoredSnapshot | undefined> => {
    try {
      return await loadSnapshot(access, id, stop);
    } catch (error) {
      reportDamage(error, onDamaged && ((failure) => onDamaged(id, failure)));
      return undefined;
    }
  };
  const snapshots: StoredSnapshot[] = [];
  const limit = { limit: access.store.concurrency, ...(signal && { signal }) };
  for await (const snapshot of mapOrdered(listFiles(access.store, "snapshot", signal), limit, load)) {
    if (snapshot !== undefined) snapshots.push(snapshot);
  }
  return snapshots.sort(compareAge);
}

/** Loads one snapshot. @throws SnapshotNotFound; SnapshotInvalid, NameMismatch when it is damaged; StoreDenied, StoreUnavailable; Cancelled */
export async function loadSnapshot(access: FileAccess, id: SnapshotId, signal?: AbortSignal): Promise<StoredSnapshot> {
  try {
    return { ...parseSnapshot(await loadFile(access, { kind: "snapshot", id }, signal), id), id };
  } catch (error) {
    if (!isFailure(error, "StoreFileNotFound")) throw error;
    throw new Failure("SnapshotNotFound", `Cannot find snapshot "${id}": the repository has no such snapshot`, {
      details: { snapshotId: id },
      cause: error,
    });
  }
}

/** Saves a snapshot, the commit of a backup: everything it refers to must be durable and indexed. @returns its id, once it is durable */
export function saveSnapshot(access: FileAccess, snapshot: Snapshot, signal?: AbortSignal): Promise<SnapshotId> {
  return saveFile(access, { kind: "snapshot", json: encodeSnapshot(snapshot) }, signal);
}

/** Removes a snapshot; what only it refers to stays until the next prune. Needs an exclusive lock. */
export function removeSnapshot(access: FileAccess, id: SnapshotId, signal?: AbortSignal): Promise<void> {
  return access.store.remove({ kind: "snapshot", name: id }, signal);
}

/** Whether a filter lets a snapshot through. */
export function matchesFilter(snapshot: Snapshot, filter: SnapshotFilter): boolean {
  const { hosts = [], paths = [], tags = [] } = filter;
  return (
    (hosts.length === 0 || hosts.includes(snapshot.hostname)) &&
    paths.every((path) => snapshot.paths.includes(path)) &&
    (tags.length === 0 || tags.some((list) => hasTags(snapshot, list)))
  );
}

function hasTags(snapshot: Snapshot, wanted: readonly string[]): boolean {
  return wanted.every((tag) => (tag === "" ? snapshot.tags.length === 0 : snapshot.tags.includes(tag)));
}

/**
 * Finds the snapshot that a user names: `latest`, which obeys the filter, or the beginning of an id, which does not; either with
 * `:path` behind it for a folder inside.
 *
 * @throws SnapshotNotFound; SnapshotAmbiguous; what {@link loadSnapshots} throws
 */
export async function findSnapshot(
  access: FileAccess,
  name: string,
  options: SnapshotFilter & LoadSnapshotsOptions = {},
): Promise<FoundSnapshot> {
  const colonAt = name.indexOf(":");
  const wanted = colonAt < 0 ? name : name.slice(0, colonAt);
  const subpath = colonAt < 0 ? "" : name.slice(colonAt + 1);
  if (wanted !== "latest") {
    return { snapshot: await loadSnapshot(access, await resolvePrefix(access, wanted, options.signal), options.signal), subpath };
  }
  const snapshot = (await loadSnapshots(access, options)).findLast((candidate) => matchesFilter(candidate, options));
  if (snapshot !== undefined) return { snapshot, subpath };
  throw new Failure("SnapshotNotFound", "Cannot find the latest snapshot: none has the host, the paths and the tags that were asked for");
}

async function resolvePrefix(access: FileAccess, prefix: string, signal: AbortSignal | undefined): Promise<SnapshotId> {
  if (isId(prefix)) return parseSnapshotId(prefix);
  const ids = await listByPrefix(access.store, { kind: "snapshot", prefix }, signal);
  const [first] = ids;
  if (first !== undefined && ids.length === 1) return first;
  if (first === undefined) {
    throw new Failure("SnapshotNotFound", `Cannot find snapshot "${prefix}": no id begins so`, { details: { prefix } });
  }
  throw new Failure("SnapshotAmbiguous", `Cannot find snapshot "${prefix}": ${ids.length} ids begin so`, {
    details: { prefix, snapshotIds: ids.slice(0, 10) },
  });
}

/** What a new snapshot is to be compared with. */
export interface ParentQuery extends SnapshotFilter {
  /** The new snapshot's time; later ones are no parents. */
  readonly timeNs: bigint;
}

/**
 * Finds the parent of a new snapshot as restic does: the newest of the same host, with all of its paths, that is not after it.
 *
 * @param snapshots in any order
 */
export function findParent(snapshots: readonly StoredSnapshot[], query: ParentQuery): StoredSnapshot | undefined {
  let parent: StoredSnapshot | undefined;
  for (const snapshot of snapshots) {
    if (snapshot.timeNs > query.timeNs || !matchesFilter(snapshot, query)) continue;
    if (parent === undefined || compareAge(snapshot, parent) > 0) parent = snapshot;
  }
  return parent;
}

function compareAge(a: StoredSnapshot, b: StoredSnapshot): number {
  if (a.timeNs !== b.timeNs) return a.timeNs < b.timeNs ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}
