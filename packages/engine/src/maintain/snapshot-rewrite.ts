/**
 * Snapshots that are written again, with other tags or into another repository: what stays of them stays as it is, the time included with
 * the offset of the clock it was read from, since `forget` counts days and weeks by that clock.
 */
import { mapOrdered } from "@granary/base/map-ordered";
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { quoteJson } from "../format/json.ts";
import { encodeSnapshot, parseSnapshot, type Snapshot } from "../format/snapshot.ts";
import { findTimeNs, formatTimeNs } from "../format/time.ts";
import { type FileAccess, loadFile } from "../repository/files.ts";
import type { StoredSnapshot } from "../repository/snapshots.ts";

/** What changes in a snapshot that is written again. */
export type SnapshotChange = Partial<Pick<Snapshot, "tags" | "parent" | "original">>;

/**
 * The JSON of a changed snapshot.
 *
 * @throws SnapshotInvalid, NameMismatch, StoreFileNotFound; StoreDenied, StoreUnavailable; Cancelled
 */
export async function rewriteSnapshot(
  access: FileAccess,
  snapshot: StoredSnapshot,
  options: { readonly change: SnapshotChange; readonly signal?: AbortSignal },
): Promise<Uint8Array> {
  const json = await loadFile(access, { kind: "snapshot", id: snapshot.id }, options.signal);
  const { timeNs, ...rest } = parseSnapshot(json, snapshot.id);
  const encoded = encodeSnapshot({ timeNs, ...rest, ...options.change }).toString("utf8");
  const head = `{"time":${quoteJson(formatTimeNs(timeNs))}`;
  if (!encoded.startsWith(head)) throw new Failure("Bug", `Cannot write snapshot "${snapshot.id}" again: it does not begin with its time`);
  return Buffer.from(`{"time":${quoteJson(readTimeText(json, timeNs))}${encoded.slice(head.length)}`, "utf8");
}

/** A snapshot with the offset of its clock. */
export interface TimedSnapshot extends StoredSnapshot {
  /** What the clock that gave its time is ahead of UTC. */
  readonly timeOffsetMinutes: number;
}

/** Reads the offsets of the times of snapshots, in the order given. @throws as {@link rewriteSnapshot} */
export async function loadTimeOffsets(
  access: FileAccess,
  snapshots: Iterable<StoredSnapshot>,
  signal?: AbortSignal,
): Promise<TimedSnapshot[]> {
  const limit = { limit: access.store.concurrency, ...(signal && { signal }) };
  const timed = mapOrdered(snapshots, limit, async (snapshot, stop) => {
    const json = await loadFile(access, { kind: "snapshot", id: snapshot.id }, stop);
    return { ...snapshot, timeOffsetMinutes: offsetOf(readTimeText(json, snapshot.timeNs)) };
  });
  return await Array.fromAsync(timed);
}

/** The time as it stands in the file; the same instant in UTC when it cannot be made out. */
function readTimeText(json: Uint8Array, timeNs: bigint): string {
  const fields: unknown = JSON.parse(Buffer.from(json).toString("utf8"));
  const time = typeof fields === "object" && fields !== null && "time" in fields ? fields.time : undefined;
  return typeof time === "string" && findTimeNs(time) === timeNs ? time : formatTimeNs(timeNs);
}

function offsetOf(time: string): number {
  const [, sign, hours, minutes] = /([+-])(\d\d):(\d\d)$/.exec(time) ?? [];
  return sign === undefined ? 0 : (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
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
