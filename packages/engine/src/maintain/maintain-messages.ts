/** What the main thread and the workers of check, prune and repair say to each other. */
import type { FailureRecord } from "@granary/base/errors";
import type { MasterKey } from "../crypto/seal.ts";
import type { ByteString } from "../format/byte-string.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import type { PackBuffersHandle } from "../repository/pack-buffers.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import type { WorkerFailed } from "../repository/worker-pool.ts";
import type { BlobNumber, IndexSurveyHandle } from "./index-survey.ts";
import type { SharedWalkHandle } from "./shared-walk.ts";

/** What each worker is given when it starts. */
export interface MaintainWorkerData {
  readonly worker: number;
  readonly key: MasterKey;
  readonly survey: IndexSurveyHandle;
  readonly packs: PackAccess;
  /** For those that write packs. */
  readonly writing?: WritingData;
}

export interface WritingData {
  readonly dataBuffers: PackBuffersHandle;
  readonly treeBuffers: PackBuffersHandle;
  readonly dataPackBytes: number;
  readonly treePackBytes: number;
  readonly level: number;
  /** Compresses blobs that are stored as they are. */
  readonly recompress: boolean;
}

/** Takes part in a walk over all trees until it is over. */
export interface WalkTask {
  readonly kind: "walk";
  readonly walk: SharedWalkHandle;
}

/** Reads whole packs and compares them with the index, until none is left. */
export interface VerifyTask {
  readonly kind: "verify";
  /** Numbers of packs. */
  readonly packs: SharedArrayBuffer;
  /** Their sizes in the store, as 64-bit floats. */
  readonly sizes: SharedArrayBuffer;
  /** One word: how many have been taken. */
  readonly cursor: SharedArrayBuffer;
}

/** Copies blobs of one pack into new packs. */
export interface CopyTask {
  readonly kind: "copy";
  /** Its number in the index. */
  readonly pack: number;
  /** As `IndexSurvey.collectBlobs` gives them. */
  readonly blobs: Uint32Array;
}

export type ToMaintainWorker = WalkTask | VerifyTask | CopyTask | { readonly kind: "flush" };

/** One thing that is wrong with a tree. */
export interface TreeProblem {
  /**
   * - `unreadable`: the tree itself cannot be read, or is no tree
   * - `entry`: an entry is wrong; nothing it names was missed
   * - `name`: an entry's name is impossible, and what it refers to is not known
   * - `missing`: no index file has what an entry refers to
   */
  readonly kind: "unreadable" | "entry" | "name" | "missing";
  /** The entry's name; empty when it is not about one. */
  readonly name: ByteString;
  readonly failure: FailureRecord;
  /** Of `missing`: what is. */
  readonly blobId?: string;
  readonly blobType?: "data" | "tree";
}

/** One thing that is wrong with a pack that was read. */
export interface PackProblem {
  /**
   * - `unreadable`: the store could not give it
   * - `hash`: its content is not what its name says
   * - `header`: its header cannot be read
   * - `blob`: a blob is damaged
   */
  readonly kind: "unreadable" | "hash" | "header" | "blob";
  readonly failure: FailureRecord;
  /** Of `blob`. */
  readonly blobId?: string;
  readonly blobType?: "data" | "tree";
}

/** What reading a whole pack showed. */
export interface PackFindings {
  /** Blobs that are proved. */
  readonly blobs: number;
  readonly problems: readonly PackProblem[];
  /** Whether the header could be read; without it nothing was compared with the index. */
  readonly hasHeader: boolean;
  /** Blobs of the header that the index has at this very place. */
  readonly matched: number;
  /** The others, as packed index entries (format/index-file.ts): the index has another copy of them, or does not know them. */
  readonly unmatched: Uint8Array;
}

export type FromMaintainWorker =
  | { readonly kind: "tree"; readonly tree: number; readonly problems: readonly TreeProblem[] }
  | { readonly kind: "walked" }
  | { readonly kind: "verified"; readonly pack: number; readonly findings: PackFindings }
  | { readonly kind: "verifiedAll" }
  | { readonly kind: "pack"; readonly pack: FinishedPack }
  | { readonly kind: "copied"; readonly pack: number; readonly bad: readonly BadBlob[] }
  | { readonly kind: "flushed" }
  | WorkerFailed;

/** A blob that was to be copied and is damaged. */
export interface BadBlob {
  readonly blob: BlobNumber;
  readonly failure: FailureRecord;
}
