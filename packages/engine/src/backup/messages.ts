/**
 * What the main thread and the workers of a backup say to each other.
 *
 * The unit of work is a slice: some entries of one directory, with all that lies below them. A worker that has a slice goes through it depth
 * first; only when another worker is idle does it give part of what is left away, as a new slice. What a directory lacks meanwhile becomes a
 * hole, and the directory a frame, which the main thread completes when the results are in. So a tree that one worker can do alone costs no
 * message, and a large one is shared at its outermost level.
 */
import type { ByteString } from "../format/byte-string.ts";
import type { BlobIndexHandle } from "../repository/blob-index.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import type { PackBuffersHandle } from "../repository/pack-buffers.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import type { WorkerFailed } from "../repository/worker-pool.ts";
import type { ExcludeRules } from "../selection/exclude.ts";

/** Where a result goes: a hole of a frame. */
export interface Destination {
  readonly frame: number;
  readonly hole: number;
}

/** Entries of one directory to save. */
export interface SliceTask {
  readonly kind: "slice";
  readonly into: Destination;
  /** The directory, absolute or relative to the working directory. */
  readonly path: ByteString;
  /** The directory, open: by the time the slice's turn comes the path may lead elsewhere. Belongs to who runs the task. */
  readonly handle?: number;
  /** In ascending order of their bytes. */
  readonly names: readonly ByteString[];
  /** Those of the names that are, or may be, directories. */
  readonly directories: readonly ByteString[];
  /** A tree with the parent snapshot's nodes for these names (others are ignored), or none. */
  readonly parentNodes?: Uint8Array;
  /** The file system the directory is on, for `--one-file-system`; 0: do not compare. */
  readonly fileSystem: bigint;
}

/** A directory whose nodes are all known: to be stored as a tree. */
export interface TreeTask {
  readonly kind: "tree";
  readonly into: Destination;
  /** The whole tree blob. */
  readonly tree: Uint8Array;
  readonly directory: PendingDirectory;
}

/** What becomes a directory's node once its tree is stored. */
export interface PendingDirectory {
  /** The node's head (format/node.ts); empty for the root of the snapshot, whose result is the bare id. */
  readonly head: Uint8Array;
  /** The tree that the parent snapshot has here, 32 bytes. */
  readonly parentTree?: Uint8Array;
}

/** What a file's node is made of once all its content is stored. It is dropped when a part of the content fails. */
export interface PendingFile {
  /** All before the content ids. */
  readonly prefix: Uint8Array;
  /** All after them. */
  readonly suffix: Uint8Array;
}

/** A stream that the main thread feeds, such as standard input, saved as one file. */
export interface StreamTask {
  readonly kind: "stream";
  readonly into: Destination;
  /** Open in this process; read until its end. */
  readonly handle: number;
  readonly name: ByteString;
  readonly timeSeconds: number;
}

/** Part of a large file, already cut, to be read again and stored. */
export interface ExtentTask {
  readonly kind: "extent";
  readonly into: Destination;
  readonly path: ByteString;
  /** The file, open. Belongs to who runs the task. */
  readonly handle: number;
  readonly offsetBytes: number;
  /** Lengths of the chunks, one after the other. */
  readonly chunks: readonly number[];
  /** The file's `struct statx` from when it was looked at. */
  readonly status: Uint8Array;
}

/** Anything that a worker can be given to do. */
export type Task = SliceTask | TreeTask | StreamTask | ExtentTask;

export type ToWorker = Task | { readonly kind: "finish" };

/** Items joined by commas, of which some are still to come: nodes of a directory, or content ids of a file. */
export interface Frame {
  readonly kind: "frame";
  readonly id: number;
  readonly into: Destination;
  /** In order: joined items, or the number of a hole. */
  readonly parts: readonly (Uint8Array | number)[];
  /** With it, the parts are all nodes of this directory; without, part of a larger slice, or of a file. */
  readonly directory?: PendingDirectory;
  /** With it, the parts are the content of this file. */
  readonly file?: PendingFile;
}

/** One file that could not be saved, or not as it should. */
export interface BackupTrouble {
  readonly path: ByteString;
  readonly reason: "unreadable" | "vanished" | "changed" | "attributes" | "parent";
  readonly message: string;
}

export type FromWorker =
  | { readonly kind: "done"; readonly into: Destination; readonly nodes: Uint8Array }
  | { readonly kind: "task"; readonly task: SliceTask | ExtentTask }
  | { readonly kind: "idle" }
  | { readonly kind: "pack"; readonly pack: FinishedPack }
  | { readonly kind: "trouble"; readonly trouble: BackupTrouble }
  | { readonly kind: "finished" }
  | Frame
  | WorkerFailed;

/** What each worker is given when it starts. */
export interface BackupWorkerData {
  readonly worker: number;
  readonly key: { readonly encrypt: Uint8Array; readonly macK: Uint8Array; readonly macR: Uint8Array };
  readonly cut:
    | { readonly kind: "gear"; readonly table: Int32Array }
    | { readonly kind: "rabin"; readonly polynomial: bigint }
    | { readonly kind: "fixed"; readonly sizeBytes: number };
  readonly index: BlobIndexHandle;
  readonly dataBuffers: PackBuffersHandle;
  readonly treeBuffers: PackBuffersHandle;
  readonly counters: SharedArrayBuffer;
  /**
   * Two words. Idle workers less waiting tasks: above 0 somebody should share; at 0 a little in reserve does no harm. And 1 as soon as a tree
   * in the repository was found damaged: from then on others are read before they are relied upon.
   */
  readonly hunger: SharedArrayBuffer;
  readonly packs: PackAccess;
  readonly level: number;
  readonly dataPackBytes: number;
  readonly treePackBytes: number;
  readonly excludes: ExcludeRules;
  /** Absolute paths that the user named: these are entered whatever file system they are on. */
  readonly targets: readonly ByteString[];
  readonly withAtime: boolean;
  readonly ignoreCtime: boolean;
  readonly ignoreInode: boolean;
}
