/** What the main thread and the workers of copy say to each other. */
import type { MasterKey } from "../crypto/seal.ts";
import type { BlobIndexHandle } from "../repository/blob-index.ts";
import type { PackBuffersHandle } from "../repository/pack-buffers.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import type { PackAccess } from "../repository/pack-reader.ts";

/** What each worker is given when it starts. */
export interface CopyWorkerData {
  readonly worker: number;
  /** Of the repository that is read. */
  readonly sourceKey: MasterKey;
  readonly sourceIndex: BlobIndexHandle;
  readonly packs: PackAccess;
  /** Of the repository that is written. */
  readonly targetKey: MasterKey;
  readonly dataBuffers: PackBuffersHandle;
  readonly treeBuffers: PackBuffersHandle;
  readonly dataPackBytes: number;
  readonly treePackBytes: number;
  /** zstd level for blobs that are not compressed in the source. */
  readonly level: number;
  /** What becomes of a blob's compression: it stays, is added where there is none, or is taken off. */
  readonly compression: "keep" | "add" | "remove";
}

/** Copies blobs of one pack. */
export interface CopyTask {
  readonly kind: "copy";
  /** Its number in the source's index. */
  readonly pack: number;
  /** Entries of the source's index, in the order of their offsets. */
  readonly entries: Uint32Array;
}

export type ToCopyWorker = CopyTask | { readonly kind: "flush" };

export type FromCopyWorker =
  | { readonly kind: "copied"; readonly blobs: number; readonly sealedBytes: number }
  | { readonly kind: "pack"; readonly pack: FinishedPack }
  | { readonly kind: "flushed" };
