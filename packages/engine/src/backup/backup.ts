/**
 * The backup verb: targets ─▶ slices ─▶ workers (scan, cut, hash, known?, compress + seal, pack) ─▶ store ─▶ index ─▶ SNAPSHOT.
 *
 * The snapshot is the commit. A backup that ends before it leaves packs and index files that the next one finds and uses, and that a prune
 * removes. Trouble with single files is reported and the backup goes on; the snapshot then says how many there were.
 *
 * The caller holds a shared lock and has loaded the index, after it listed the snapshots.
 */
import { userInfo } from "node:os";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, isFailure } from "@granary/base/errors";
import "../errors.ts";
import { deriveGearTable } from "../chunk/gear.ts";
import { ByteSink } from "../format/byte-sink.ts";
import { type ByteString, findUtf8, fromUtf8, toUtf8OrEscaped } from "../format/byte-string.ts";
import { blobIdOf, bytesOfId, type SnapshotId } from "../format/ids.ts";
import { writeNodeHead } from "../format/node.ts";
import type { Snapshot, SnapshotSummary } from "../format/snapshot.ts";
import { closeHandle, FileStatus, openAt, openFlags, readNames, statAt, workingDirectory } from "../native/libc.ts";
import { loadBlob } from "../repository/blob-load.ts";
import { IndexWriter } from "../repository/index-writer.ts";
import type { Repository } from "../repository/repository.ts";
import { saveSnapshot, type StoredSnapshot } from "../repository/snapshots.ts";
import { type ExcludeRules, noExcludes } from "../selection/exclude.ts";
import type { BackupCounts } from "./counters.ts";
import { Crew, rootFrame } from "./crew.ts";
import { describeErrno, HeadReader } from "./head-reader.ts";
import type { BackupTrouble, BackupWorkerData, Destination } from "./messages.ts";
import { ParentNodes } from "./parent-nodes.ts";
import { countFiles, isShrunken } from "./shrink-guard.ts";
import { type Placements, placeTargets } from "./targets.ts";

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
  /** A file with the same size and modification time is unchanged, whatever its change time (and inode) says. */
  readonly ignoreCtime?: boolean;
  /** A file with another inode may be unchanged. */
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

/**
 * Backs up the targets into a new snapshot.
 *
 * @throws SourceUnreadable when no target can be read; SourceShrunken; InvalidArgument; StoreFull, StoreDenied, StoreUnavailable; BlobInvalid
 *   when this machine's memory or processor is faulty; Cancelled
 */
export async function runBackup(repository: Repository, options: BackupOptions): Promise<BackupReport> {
  const clock = options.clock ?? systemClock;
  const startedMs = clock.nowMs();
  const startedAt = clock.monotonicMs();
  const { signal } = options;
  const writer = new IndexWriter(repository, { clock });
  let troubles = 0;
  const onTrouble = (trouble: BackupTrouble): void => {
    troubles++;
    options.onTrouble?.(trouble);
  };
  const crew = new Crew({
    store: repository.store,
    key: repository.key,
    index: repository.index,
    cut: chooseCut(repository, options.cut ?? "gear"),
    ...(options.workers === undefined ? {} : { workers: options.workers }),
    rules: {
      excludes: options.excludes ?? noExcludes,
      withAtime: options.withAtime === true,
      ignoreCtime: options.ignoreCtime === true,
      ignoreInode: options.ignoreInode === true,
    },
    level: options.level ?? 1,
    packBytes: options.packBytes ?? defaultPackBytes,
    dryRun: options.dryRun === true,
    onPackDurable: (pack) => writer.add(pack),
    onTrouble,
    ...(signal === undefined ? {} : { signal }),
  });
  const { onProgress } = options;
  const stopProgress = onProgress === undefined ? () => {} : clock.every(progressMs, () => onProgress(crew.counts()));
  try {
    const paths = await new Spread(repository, crew, { options, onTrouble }).run(Math.floor(startedMs / 1000));
    const root = await crew.finish();
    const counts = crew.counts();
    onProgress?.(counts);
    await checkSource(repository, options, counts);
    if (options.dryRun !== true) await writer.flush();
    const snapshot = describe(options, { paths, tree: root, counts, troubles, startedMs, endedMs: clock.nowMs() });
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
    await crew.close();
  }
}

function chooseCut(repository: Repository, cut: CutChoice): BackupWorkerData["cut"] {
  if (cut === "gear") return { kind: "gear", table: deriveGearTable(repository.key.encrypt) };
  if (cut === "rabin") return { kind: "rabin", polynomial: repository.config.chunkerPolynomial };
  return { kind: "fixed", sizeBytes: cut.fixedBytes };
}

/** Hands the targets to the workers, and makes frames for the directories above them. */
class Spread {
  readonly #repository: Repository;
  readonly #crew: Crew;
  readonly #options: BackupOptions;
  readonly #heads: HeadReader;
  readonly #status = new FileStatus();
  #frames = rootFrame;

  constructor(repository: Repository, crew: Crew, with_: { options: BackupOptions; onTrouble: (trouble: BackupTrouble) => void }) {
    this.#repository = repository;
    this.#crew = crew;
    this.#options = with_.options;
    const onTrouble = (path: ByteString, status: number, what: string): void =>
      with_.onTrouble({ path, reason: "attributes", message: `Cannot ${what}: ${describeErrno(-status)}` });
    this.#heads = new HeadReader({ withAtime: with_.options.withAtime === true, onTrouble });
  }

  /** @returns the snapshot's paths */
  async run(nowSeconds: number): Promise<readonly ByteString[]> {
    const { stream, targets, directory } = this.#options;
    if (stream !== undefined) {
      this.#crew.addFrame({ id: rootFrame, parts: [1], directory: { head: new Uint8Array(0) } });
      this.#crew.submit({
        kind: "stream",
        into: { frame: rootFrame, hole: 1 },
        handle: stream.handle,
        name: stream.name,
        timeSeconds: nowSeconds,
      });
      return [`/${stream.name}`];
    }
    const placed = placeTargets(targets, { directory: directory ?? fromUtf8(process.cwd()), list: listNames });
    this.#checkTargets(placed.paths);
    const parentTree = this.#options.parent == null ? undefined : bytesOfId(this.#options.parent.tree);
    await this.#spread(placed.root, { frame: rootFrame, head: new Uint8Array(0), parentTree });
    return placed.paths;
  }

  /** A target that is missing is trouble; that all are is a failure. */
  #checkTargets(paths: readonly ByteString[]): void {
    const found = paths.map((path) => statAt(workingDirectory, path, this.#status));
    if (found.every((status) => status < 0)) {
      const shown = paths.map((path, at) => `${toUtf8OrEscaped(path)} (${describeErrno(-(found[at] ?? 0))})`);
      throw new Failure("SourceUnreadable", `Cannot back up: none of the targets can be read: ${shown.join(", ")}`, {
        details: { paths: shown },
      });
    }
  }

  async #spread(
    children: Placements,
    above: { frame: number; into?: Destination; head: Uint8Array; parentTree: Uint8Array | undefined },
  ): Promise<void> {
    const parent = await this.#loadParent(above.parentTree);
    const entries = [...children].sort(([a], [b]) => (a < b ? -1 : 1));
    this.#crew.addFrame({
      id: above.frame,
      ...(above.into === undefined ? {} : { into: above.into }),
      parts: entries.map((_, at) => at + 1),
      directory: { head: above.head, ...(above.parentTree === undefined ? {} : { parentTree: above.parentTree }) },
    });
    for (const [at, [name, placement]] of entries.entries()) {
      const into: Destination = { frame: above.frame, hole: at + 1 };
      if (placement.kind === "target") {
        const parentNodes = parent?.slice(name, name);
        this.#crew.submit({
          kind: "slice",
          into,
          path: placement.directory,
          names: [name],
          directories: [name],
          ...(parentNodes === undefined ? {} : { parentNodes }),
          fileSystem: 0n,
        });
        continue;
      }
      const parentTree = parent?.seek(name) === true ? parent.findSubtree() : undefined;
      await this.#spread(placement.children, { frame: ++this.#frames, into, head: this.#headOf(placement.path, name), parentTree });
    }
  }

  async #loadParent(tree: Uint8Array | undefined): Promise<ParentNodes | undefined> {
    if (tree === undefined) return undefined;
    try {
      return new ParentNodes(await loadBlob(this.#repository, tree));
    } catch (error) {
      if (!isFailure(error) || error.kind !== "corrupt") throw error;
      return undefined; // everything is read anew, which heals what can be healed
    }
  }

  /** The head of a directory above the targets. One that cannot be looked at is a plain directory of nobody. */
  #headOf(path: ByteString, name: ByteString): Uint8Array {
    const looked = statAt(workingDirectory, path, this.#status);
    if (looked < 0) throw new Failure("SourceUnreadable", `Cannot look at "${toUtf8OrEscaped(path)}": ${describeErrno(-looked)}`);
    const sink = new ByteSink(512);
    const head = this.#heads.read(this.#status, { directory: workingDirectory, name, path });
    writeNodeHead(sink, { ...head, type: "dir" });
    return sink.copy();
  }
}

function listNames(path: ByteString): readonly ByteString[] {
  const handle = openAt(workingDirectory, path, openFlags.readOnly | openFlags.directory);
  const names: ByteString[] = [];
  const status = handle < 0 ? handle : readNames(handle, names);
  if (handle >= 0) closeHandle(handle);
  if (status < 0) throw new Failure("SourceUnreadable", `Cannot list "${toUtf8OrEscaped(path)}": ${describeErrno(-status)}`);
  return names.sort();
}

async function checkSource(repository: Repository, options: BackupOptions, counts: BackupCounts): Promise<void> {
  const { parent, allowShrink, stream } = options;
  if (parent == null || allowShrink === true || stream !== undefined) return;
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
  readonly troubles: number;
  readonly startedMs: number;
  readonly endedMs: number;
}

const nsPerMs = 1_000_000n;

function describe(options: BackupOptions, outcome: Outcome): Snapshot {
  const { counts } = outcome;
  const backupStartNs = BigInt(Math.floor(outcome.startedMs)) * nsPerMs;
  const user = userInfo();
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
    unknown: outcome.troubles === 0 ? new Map() : new Map([["granary", JSON.stringify({ warnings: outcome.troubles })]]),
  };
}
