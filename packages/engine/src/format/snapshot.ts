/**
 * Snapshot files: what was backed up, when, by whom, and the tree at the top of it.
 *
 * ```
 * {"time":…,"parent"?,"tree":…,"paths":[…],"hostname"?,"username"?,"uid"?,"gid"?,"excludes"?,"tags"?,"original"?,"program_version"?,"summary"?}
 * ```
 *
 * Fields that are unknown here are kept as they are and written again, so that changing the tags of a snapshot loses nothing that another
 * program put there. restic itself drops them.
 *
 * @see restic design.rst, "Snapshots"
 */
import { type BlobId, isId, parseBlobId, parseSnapshotId, type SnapshotId } from "./ids.ts";
import {
  findRecordField,
  findTimeField,
  type JsonRecord,
  parseRecord,
  readCountField,
  readTextField,
  readTextsField,
  readTimeField,
  unknownMembers,
  wrongField,
} from "./json-record.ts";
import { RecordWriter } from "./record-writer.ts";
import { formatTimeNs, offsetMinutesOf } from "./time.ts";

/** Fields that this program does not know: name to JSON text. */
export type UnknownFields = ReadonlyMap<string, string>;

/** What the writer counted. Sizes are bytes. */
export interface SnapshotSummary {
  readonly backupStartNs: bigint;
  readonly backupEndNs: bigint;
  readonly filesNew: number;
  readonly filesChanged: number;
  readonly filesUnmodified: number;
  readonly dirsNew: number;
  readonly dirsChanged: number;
  readonly dirsUnmodified: number;
  readonly dataBlobs: number;
  readonly treeBlobs: number;
  readonly dataAdded: number;
  readonly dataAddedPacked: number;
  readonly totalFilesProcessed: number;
  readonly totalBytesProcessed: number;
  readonly unknown: UnknownFields;
}

export interface Snapshot {
  /** Nanoseconds since 1970. */
  readonly timeNs: bigint;
  /** What the clock that gave the time is ahead of UTC, from -1439 to 1439: retention counts days by that clock, as restic does. */
  readonly timeOffsetMinutes: number;
  /** The snapshot that unchanged files were compared with. */
  readonly parent: SnapshotId | null;
  readonly tree: BlobId;
  /** Absolute paths, in UTF-8. */
  readonly paths: readonly string[];
  readonly hostname: string;
  readonly username: string;
  readonly uid: number;
  readonly gid: number;
  readonly excludes: readonly string[];
  readonly tags: readonly string[];
  /** The snapshot that this one was made from by a change of tags or a copy. */
  readonly original: SnapshotId | null;
  readonly programVersion: string;
  readonly summary: SnapshotSummary | null;
  readonly unknown: UnknownFields;
}

const COUNTS = [
  ["filesNew", "files_new"],
  ["filesChanged", "files_changed"],
  ["filesUnmodified", "files_unmodified"],
  ["dirsNew", "dirs_new"],
  ["dirsChanged", "dirs_changed"],
  ["dirsUnmodified", "dirs_unmodified"],
  ["dataBlobs", "data_blobs"],
  ["treeBlobs", "tree_blobs"],
  ["dataAdded", "data_added"],
  ["dataAddedPacked", "data_added_packed"],
  ["totalFilesProcessed", "total_files_processed"],
  ["totalBytesProcessed", "total_bytes_processed"],
] as const;

const SNAPSHOT_FIELDS: ReadonlySet<string> = new Set([
  "time",
  "parent",
  "tree",
  "paths",
  "hostname",
  "username",
  "uid",
  "gid",
  "excludes",
  "tags",
  "original",
  "program_version",
  "summary",
]);
const SUMMARY_FIELDS: ReadonlySet<string> = new Set(["backup_start", "backup_end", ...COUNTS.map(([, field]) => field)]);

// Go's zero time, 0001-01-01, which a missing time stands for.
const ZERO_TIME_NS = -62_135_596_800_000_000_000n;

/** The JSON of a snapshot file; the caller owns it. */
export function encodeSnapshot(snapshot: Snapshot): Buffer {
  const writer = new RecordWriter()
    .addText("time", formatTimeNs(snapshot.timeNs, snapshot.timeOffsetMinutes))
    .addTextIfAny("parent", snapshot.parent)
    .addText("tree", snapshot.tree)
    .addTexts("paths", snapshot.paths)
    .addTextIfAny("hostname", snapshot.hostname)
    .addTextIfAny("username", snapshot.username)
    .addNumberIfAny("uid", snapshot.uid)
    .addNumberIfAny("gid", snapshot.gid)
    .addTextsIfAny("excludes", snapshot.excludes)
    .addTextsIfAny("tags", snapshot.tags)
    .addTextIfAny("original", snapshot.original)
    .addTextIfAny("program_version", snapshot.programVersion);
  if (snapshot.summary !== null) writer.add("summary", encodeSummary(snapshot.summary));
  return Buffer.from(writer.addAll(snapshot.unknown).toJson(), "utf8");
}

function encodeSummary(summary: SnapshotSummary): string {
  const writer = new RecordWriter()
    .addText("backup_start", formatTimeNs(summary.backupStartNs))
    .addText("backup_end", formatTimeNs(summary.backupEndNs));
  for (const [name, field] of COUNTS) writer.addNumber(field, summary[name]);
  return writer.addAll(summary.unknown).toJson();
}

/** Reads a snapshot file. @param id its name, for messages; @throws SnapshotInvalid */
export function parseSnapshot(bytes: Uint8Array, id: SnapshotId): Snapshot {
  const record = parseRecord(bytes, { code: "SnapshotInvalid", subject: `snapshot "${id}"` });
  const tree = readTextField(record, "tree");
  if (!isId(tree)) throw wrongField(record, "tree", "64 lower-case hex characters");
  const summary = findRecordField(record, "summary");
  return {
    timeNs: readTimeField(record, "time"),
    timeOffsetMinutes: offsetMinutesOf(readTextField(record, "time")),
    parent: findSnapshotId(record, "parent"),
    tree: parseBlobId(tree),
    paths: readTextsField(record, "paths"),
    hostname: readTextField(record, "hostname"),
    username: readTextField(record, "username"),
    uid: readCountField(record, "uid", 0xffffffff),
    gid: readCountField(record, "gid", 0xffffffff),
    excludes: readTextsField(record, "excludes"),
    tags: readTextsField(record, "tags"),
    original: findSnapshotId(record, "original"),
    programVersion: readTextField(record, "program_version"),
    summary: summary === undefined ? null : readSummary(summary),
    unknown: unknownMembers(record, SNAPSHOT_FIELDS),
  };
}

function findSnapshotId(record: JsonRecord, field: string): SnapshotId | null {
  const text = readTextField(record, field);
  if (text === "") return null;
  if (!isId(text)) throw wrongField(record, field, "64 lower-case hex characters");
  return parseSnapshotId(text);
}

function readSummary(record: JsonRecord): SnapshotSummary {
  return {
    backupStartNs: findTimeField(record, "backup_start") ?? ZERO_TIME_NS,
    backupEndNs: findTimeField(record, "backup_end") ?? ZERO_TIME_NS,
    filesNew: readCountField(record, "files_new"),
    filesChanged: readCountField(record, "files_changed"),
    filesUnmodified: readCountField(record, "files_unmodified"),
    dirsNew: readCountField(record, "dirs_new"),
    dirsChanged: readCountField(record, "dirs_changed"),
    dirsUnmodified: readCountField(record, "dirs_unmodified"),
    dataBlobs: readCountField(record, "data_blobs"),
    treeBlobs: readCountField(record, "tree_blobs"),
    dataAdded: readCountField(record, "data_added"),
    dataAddedPacked: readCountField(record, "data_added_packed"),
    totalFilesProcessed: readCountField(record, "total_files_processed"),
    totalBytesProcessed: readCountField(record, "total_bytes_processed"),
    unknown: unknownMembers(record, SUMMARY_FIELDS),
  };
}
