/**
 * The backup verb: targets ─▶ slices ─▶ workers (scan, cut, hash, known?, compress + seal, pack) ─▶ store ─▶ index ─▶ SNAPSHOT.
 *
 * The snapshot is the commit. A backup that ends before it leaves packs and index files that the next one finds and uses, and that a prune
 * removes. Trouble with single files is reported and the backup goes on; the snapshot then says how many there were.
 *
 * The caller holds a shared lock and has loaded the index, after it listed the snapshots. One backup at a time uses an open repository:
 * another one would rely on blobs that this one has only promised to store.
 */
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, isFailure } from "@granary/base/errors";
import "../errors.ts";
import { deriveGearTable } from "../chunk/gear.ts";
import { type ByteString, findUtf8, toUtf8OrEscaped } from "../format/byte-string.ts";
import { blobIdOf, type SnapshotId } from "../format/ids.ts";
import type { Snapshot, SnapshotSummary } from "../format/snapshot.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import { IndexWriter } from "../repository/index-writer.ts";
import { findUser } from "../repository/lock.ts";
import type { Repository } from "../repository/repository.ts";
import { saveSnapshot, type StoredSnapshot } from "../repository/snapshots.ts";
import { type ExcludeRules, noExcludes } from "../selection/exclude.ts";
import type { BackupCounts } from "./counters.ts";
import { Crew } from "./crew.ts";
import type { BackupTrouble, BackupWorkerData } from "./messages.ts";
import { countFiles, isShrunken } from "./shrink-guard.ts";
import { findSources, spreadSources, spreadStream } from "./spread.ts";

/** How files are cut into chunks. */
export type CutChoice = "gear" | "rabin" | { readonly fixedBytes: number };

export interface BackupOptions {
  /** Paths as given, raw bytes; or one stream instead. */
  readonly targets: readonly ByteString[];
  /** Saved as a file of that name: what can be read from an open pipe, until its end. */
  readonly stream?: { readonly handle: number; readonly name: ByteString };
  /** Where relative targets start from; absolute. Default: the process's. */
  readonly directory?: ByteString;
  readonly excludes?: ExcludeRules;
  readonly tags?: readonly string[];
  readonly hostname: string;
  readonly username?: string;
  /** The snapshot's time; default: now. */
  readonly timeNs?: bigint;
  /** Unchanged files are not read again. Default: none, everything is read. */
  readonly parent?: StoredSnapshot | null;
  /** A file with the same size, modification time and inode is unchanged, whatever its change time says. */
  readonly ignoreCtime?: boolean;
  /** A file with the same size and modification time is unchanged, whatever its inode and its change time say. */
  readonly ignoreInode?: boolean;
  readonly withAtime?: boolean;
  /** Make no snapshot when its tree would be the parent's. */
  readonly skipIfUnchanged?: boolean;
  /** Read and count, but write nothing. */
  readonly dryRun?: boolean;
  /** Accept a source in which there is much less than in the parent. */
  readonly allowShrink?: boolean;
  /** Default: the gear cut. */
  readonly cut?: CutChoice;
  /** zstd level 1 to 19, 0 for none; default 1. */
  readonly level?: number;
  /** The size at which a pack is closed, 4 to 128 MiB; default 16. */
  readonly packBytes?: number;
  /** Worker threads; default one a processor, at most 8. */
  readonly workers?: number;
  readonly programVersion?: string;
  readonly clock?: Clock;
  /** Called about ten times a second; must neither throw nor take long. */
  readonly onProgress?: (counts: BackupCounts) => void;
  readonly onTrouble?: (trouble: BackupTrouble) => void;
  readonly signal?: AbortSignal;
}

export interface BackupReport {
  /** Absent after a dry run, or when nothing changed and `skipIfUnchanged` was set. */
  readonly snapshotId?: SnapshotId;
  readonly snapshot: Snapshot;
  readonly counts: BackupCounts;
  readonly troubles: number;
  readonly durationMs: number;
}

const defaultPackBytes = 16 * 1024 * 1024;
const progressMs = 100;
/** How long the index may still be written after a backup was cancelled. */
const lastWordsMs = 20_000;
const inUse = new WeakSet<BlobIndex>();

/**
 * Backs up the targets into a new snapshot.
 *
 * @throws SourceUnreadable when no target can be read, or the stream breaks off; SourceShrunken; InvalidArgument; StoreFull, StoreDenied,
 *   StoreUnavailable; BlobInvalid when this machine's memory or processor is faulty; Cancelled
 */
export async function runBackup(repository: Repository, options: BackupOptions): Promise<BackupReport> {
  checkOptions(options);
  const { index } = repository;
  if (inUse.has(index)) throw new Failure("Bug", "Cannot back up: another backup is using this open repository; open it once more");
  inUse.add(index);
  let isDone = false;
  try {
    const report = await backUp(repository, options);
    isDone = options.dryRun !== true;
    return report;
  } finally {
    // What was promised and not stored must not be found by who uses the repository next.
    if (!isDone) index.dropClaims();
    inUse.delete(index);
  }
}

function checkOptions({ workers = 1, packBytes = defaultPackBytes, level = 1 }: BackupOptions): void {
  const expect = (isRight: boolean, what: string): void => {
    if (!isRight) throw new Failure("InvalidArgument", `Cannot back up with ${what}`);
  };
  expect(Number.isInteger(workers) && workers >= 1 && workers <= 256, `${workers} workers: 1 to 256 needed`);
  expect(Number.isInteger(packBytes) && packBytes >= 1 && packBytes <= 2 ** 30, `packs of ${packBytes} bytes: 1 to 2^30 needed`);
  expect(Number.isInteger(level) && level >= 0 && level <= 19, `compression level ${level}: 0 to 19 needed`);
}

async function backUp(repository: Repository, options: BackupOptions): Promise<BackupReport> {
  const clock = options.clock ?? systemClock;
  const startedMs = clock.nowMs();
  const startedAt = clock.monotonicMs();
  const { signal, stream } = options;
  const stopWriting = new AbortController();
  const writer = new IndexWriter(repository, { clock, signal: stopWriting.signal });
  let troubles = 0;
  let shortfalls = 0;
  const onTrouble = (trouble: BackupTrouble): void => {
    troubles++;
    if (trouble.reason !== "parent") shortfalls++;
    options.onTrouble?.(trouble);
  };
  const sources = stream === undefined ? findSources(options, onTrouble) : undefined;
  const crew = new Crew({
    store: repository.store,
    key: repository.key,
    index: repository.index,
    cut: chooseCut(repository, options.cut ?? "gear"),
    ...(options.workers === undefined ? {} : { workers: options.workers }),
    rules: {
      excludes: options.excludes ?? noExcludes,
      targets: sources?.paths ?? [],
      withAtime: options.withAtime === true,
      ignoreCtime: options.ignoreCtime === true,
      ignoreInode: options.ignoreInode === true,
    },
    level: repository.config.version < 2 ? 0 : (options.level ?? 1), // version 1 knows no compression
    packBytes: options.packBytes ?? defaultPackBytes,
    dryRun: options.dryRun === true,
    onPackDurable: (pack) => writer.add(pack),
    onTrouble,
    ...(signal === undefined ? {} : { signal }),
  });
  const { onProgress } = options;
  const stopProgress =
    onProgress === undefined
      ? () => {}
      : clock.every(progressMs, () => {
          onProgress(crew.counts());
        });
  // A store that does not answer must not hold back who gave up waiting for it.
  const onAbort = (): void => {
    const stop = new Failure("StoreUnavailable", `The store did not take the index within ${lastWordsMs / 1000} seconds`);
    void clock.sleep(lastWordsMs, ended.signal).then(
      () => stopWriting.abort(stop),
      () => undefined,
    );
  };
  const ended = new AbortController();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    if (stream !== undefined) spreadStream(crew, stream, Math.floor(startedMs / 1000));
    else if (sources !== undefined) await spreadSources(repository, crew, { options, sources, onTrouble });
    const paths = sources?.paths ?? (stream === undefined ? [] : [`/${stream.name}`]);
    const root = await crew.finish();
    const counts = crew.counts();
    onProgress?.(counts);
    await checkSource(repository, options, counts);
    if (options.dryRun !== true) await writer.flush();
    const snapshot = describe(options, { paths, tree: root, counts, shortfalls, startedMs, endedMs: clock.nowMs() });
    const isUnchanged = options.skipIfUnchanged === true && options.parent?.tree === snapshot.tree;
    const saved = options.dryRun === true || isUnchanged ? {} : { snapshotId: await saveSnapshot(repository, snapshot, signal) };
    return { ...saved, snapshot, counts, troubles, durationMs: clock.monotonicMs() - startedAt };
  } catch (error) {
    // What is durable should be found by the next try, unless others may be at work by now. A failure of that adds nothing to this one.
    await crew.close();
    if (options.dryRun !== true && !isFailure(error, "LockLost")) await writer.flush().catch(() => {});
    throw error;
  } finally {
    stopProgress();
    signal?.removeEventListener("abort", onAbort);
    ended.abort();
    await crew.close();
  }
}

function chooseCut(repository: Repository, cut: CutChoice): BackupWorkerData["cut"] {
  if (cut === "gear") return { kind: "gear", table: deriveGearTable(repository.key.encrypt) };
  if (cut === "rabin") return { kind: "rabin", polynomial: repository.config.chunkerPolynomial };
  return { kind: "fixed", sizeBytes: cut.fixedBytes };
}

async function checkSource(repository: Repository, options: BackupOptions, counts: BackupCounts): Promise<void> {
  const { parent, allowShrink, stream } = options;
  if (parent === undefined || parent === null || allowShrink === true || stream !== undefined) return;
  const now = filesOf(counts);
  const before = parent.summary?.totalFilesProcessed ?? (await countFiles(repository, parent.tree));
  if (!isShrunken(before, now)) return;
  throw new Failure(
    "SourceShrunken",
    `Refused to back up: only ${now} files were found, the parent snapshot ${parent.id.slice(0, 8)} has ${before}`,
    {
      details: { filesFound: now, filesBefore: before, parent: parent.id },
    },
  );
}

function filesOf(counts: BackupCounts): number {
  return counts.filesNew + counts.filesChanged + counts.filesUnmodified;
}

interface Outcome {
  readonly paths: readonly ByteString[];
  readonly tree: Uint8Array;
  readonly counts: BackupCounts;
  /** Troubles for which the snapshot lacks something. */
  readonly shortfalls: number;
  readonly startedMs: number;
  readonly endedMs: number;
}

const nsPerMs = 1_000_000n;

function describe(options: BackupOptions, outcome: Outcome): Snapshot {
  const { counts } = outcome;
  const backupStartNs = BigInt(Math.floor(outcome.startedMs)) * nsPerMs;
  const user = findUser();
  const excludes = options.excludes ?? noExcludes;
  const summary: SnapshotSummary = {
    backupStartNs,
    backupEndNs: BigInt(Math.floor(outcome.endedMs)) * nsPerMs,
    filesNew: counts.filesNew,
    filesChanged: counts.filesChanged,
    filesUnmodified: counts.filesUnmodified,
    dirsNew: counts.dirsNew,
    dirsChanged: counts.dirsChanged,
    dirsUnmodified: counts.dirsUnmodified,
    dataBlobs: counts.dataBlobs,
    treeBlobs: counts.treeBlobs,
    dataAdded: counts.dataAddedBytes,
    dataAddedPacked: counts.dataAddedPackedBytes,
    totalFilesProcessed: filesOf(counts),
    totalBytesProcessed: counts.bytesProcessed,
    unknown: new Map(),
  };
  return {
    timeNs: options.timeNs ?? backupStartNs,
    timeOffsetMinutes: -new Date(Number((options.timeNs ?? backupStartNs) / nsPerMs)).getTimezoneOffset(),
    parent: options.parent?.id ?? null,
    tree: blobIdOf(outcome.tree),
    paths: outcome.paths.map((path) => findUtf8(path) ?? toUtf8OrEscaped(path)),
    hostname: options.hostname,
    username: options.username ?? user.username,
    uid: user.uid,
    gid: user.gid,
    excludes: [...excludes.patterns, ...excludes.insensitivePatterns],
    tags: options.tags ?? [],
    original: null,
    programVersion: options.programVersion ?? "granary",
    summary,
    // Readers that do not know it ignore it; ours shows that this snapshot lacks something.
    unknown: outcome.shortfalls === 0 ? new Map() : new Map([["granary", JSON.stringify({ warnings: outcome.shortfalls })]]),
  };
}
