/**
 * What the main thread and the workers of a restore say to each other.
 *
 * All bulk data is in shared memory (entry-table.ts); messages name spans of it. Small files cost no message: a task is hundreds of them.
 */
import type { ByteString } from "../format/byte-string.ts";
import type { BlobIndexHandle } from "../repository/blob-index.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import type { WorkerFailed } from "../repository/worker-pool.ts";
import type { EntryTableHandle } from "./entry-table.ts";
import type { RestoreSelection } from "./selection.ts";

/**
 * What to do with files that are there already. `always` compares their content and writes what differs; `if-changed` takes a file with the
 * same size and modification time for unchanged; `if-newer` writes only files that are newer in the snapshot.
 */
export type OverwriteMode = "always" | "if-changed" | "if-newer" | "never";

/** A directory of the snapshot whose tree is to be read. */
export interface DirectoryToPlan {
  readonly entry: number;
  /** Id of its tree, 32 bytes. */
  readonly tree: Uint8Array;
}

/** Reads trees, and all that lies below, into the plan. */
export interface PlanTask {
  readonly kind: "plan";
  readonly directories: readonly DirectoryToPlan[];
}

/** Writes pieces of files: `order[from, to)` are pieces of one pack, by offset. */
export interface PiecesTask {
  readonly kind: "pieces";
  readonly order: SharedArrayBuffer;
  readonly from: number;
  readonly to: number;
}

/** Does one step with the entries `order[from, to)`. */
export interface EntriesTask {
  readonly kind: "make" | "link" | "remove" | "finish" | "verify";
  readonly order: SharedArrayBuffer;
  readonly from: number;
  readonly to: number;
}

export type RestoreTask = PlanTask | PiecesTask | EntriesTask;

export type ToWorker = RestoreTask | { readonly kind: "close" };

/** Why something is not as in the snapshot. */
export type TroubleReason =
  /** The repository lacks it, or it is damaged there. */
  | "damaged"
  /** The snapshot says something that cannot be, or must not be, restored. */
  | "invalid"
  /** Something is in the way. */
  | "blocked"
  /** The target's file system refused. */
  | "target"
  /** The content is restored, but not all that belongs to it. */
  | "metadata"
  /** A second look found other content than was written. */
  | "verify";

/** One entry that was not restored as it should be. */
export interface RestoreTrouble {
  /** Below the target, as in `/home/alice`. */
  readonly path: ByteString;
  readonly reason: TroubleReason;
  readonly message: string;
}

export type FromWorker =
  | { readonly kind: "idle" }
  | { readonly kind: "given"; readonly task: PlanTask }
  | { readonly kind: "trouble"; readonly trouble: RestoreTrouble }
  | WorkerFailed;

/** How the plan is made and carried out. */
export interface RestoreRules {
  readonly selection: RestoreSelection;
  readonly overwrite: OverwriteMode;
  /** Whether what is in the target but not in the snapshot is removed. */
  readonly deleteExtra: boolean;
  /** Whether long runs of zeros become holes. */
  readonly sparse: boolean;
  /** Whether the content of each file is remembered for a second look. */
  readonly verify: boolean;
}

/** What each worker is given when it starts. */
export interface RestoreWorkerData {
  readonly worker: number;
  readonly key: { readonly encrypt: Uint8Array; readonly macK: Uint8Array; readonly macR: Uint8Array };
  readonly index: BlobIndexHandle;
  readonly table: EntryTableHandle;
  readonly state: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  readonly packs: PackAccess;
  readonly rules: RestoreRules;
}
