/**
 * What check finds: errors, each naming the object that is wrong and what to run; notes, which are no errors; and two dates, because that
 * the structure holds together says nothing of the content of packs that were not read.
 */
import type { ByteString } from "../format/byte-string.ts";
import type { ReadDataSelection } from "./read-data-selection.ts";

/** Found by looking at names, sizes, indexes, snapshots and trees; or only by reading whole packs. */
export type CheckLevel = "structure" | "content";

interface ErrorText {
  readonly level: CheckLevel;
  /** What was found, naming the object. */
  readonly message: string;
  /** What to run, or do. */
  readonly hint: string;
}

/** Where a tree or a blob is needed. */
export interface NeededAt {
  /** One of the snapshots that need it. */
  readonly snapshotId: string;
  /** In that snapshot, raw bytes, as in `/home/alice`. */
  readonly path: ByteString;
}

/** One thing that is wrong. Ids are 64 hex digits. */
export type CheckError = ErrorText &
  (
    | { readonly kind: "keyDamaged" }
    | { readonly kind: "indexDamaged"; readonly indexId: string }
    /** An indexed pack is not in the store. */
    | { readonly kind: "packMissing"; readonly packId: string; readonly blobs: number; readonly neededBlobs: number }
    /** A pack has not the size that its blobs and header must take. */
    | { readonly kind: "packSize"; readonly packId: string; readonly sizeBytes: number; readonly expectedBytes: number }
    /** What index files say of a pack cannot be true, contradicts itself, or contradicts the pack's own header. */
    | { readonly kind: "packListing"; readonly packId: string }
    | { readonly kind: "packUnreadable" | "packHash" | "packHeader"; readonly packId: string }
    | { readonly kind: "blobDamaged"; readonly packId: string; readonly blobId: string; readonly blobType: "data" | "tree" }
    | { readonly kind: "snapshotDamaged"; readonly snapshotId: string }
    /** No index file lists a tree that is needed. */
    | (NeededAt & { readonly kind: "treeMissing"; readonly treeId: string })
    /** A tree cannot be read from its pack; `hasOtherCopy` tells that it can be read from another. */
    | (NeededAt & { readonly kind: "treeDamaged"; readonly treeId: string; readonly packId: string; readonly hasOtherCopy: boolean })
    /** A tree can be read, but an entry of it is wrong. */
    | (NeededAt & { readonly kind: "treeInvalid"; readonly treeId: string })
    /** No index file lists a piece of a file. `path` is the file. */
    | (NeededAt & { readonly kind: "blobMissing"; readonly blobId: string; readonly treeId: string })
  );

/** One thing that is worth knowing, and harmless. */
export type CheckNote =
  /** No index file lists the pack: a backup that was interrupted, or one that is running, wrote it. Prune removes it. */
  | { readonly kind: "packUnreferenced"; readonly packId: string; readonly sizeBytes: number }
  /** A pack holds data and trees, as programs of version 1 wrote them. */
  | { readonly kind: "packMixed"; readonly packId: string }
  /** Everything that the index file lists is listed by others too. */
  | { readonly kind: "indexRedundant"; readonly indexId: string }
  /** Nothing needs the blob; only looked for when asked. */
  | { readonly kind: "blobUnused"; readonly blobId: string; readonly blobType: "data" | "tree"; readonly packId: string }
  /** Another process uses the repository; or did, and died, when the lock is stale. */
  | { readonly kind: "locked"; readonly lockId: string; readonly isStale: boolean };

export interface CheckCounts {
  readonly snapshots: number;
  readonly indexes: number;
  readonly packs: number;
  readonly packBytes: number;
  readonly dataBlobs: number;
  readonly treeBlobs: number;
  /** Copies of blobs beyond the first. */
  readonly duplicates: number;
  readonly unreferencedPacks: number;
  readonly treesRead: number;
  /** Data blobs that snapshots need. */
  readonly dataBlobsNeeded: number;
  /** Of packs that were read whole. */
  readonly packsRead: number;
  readonly packBytesRead: number;
  readonly blobsRead: number;
}

export interface CheckReport {
  /** The first 10,000, in the order in which they were found. */
  readonly errors: readonly CheckError[];
  /** All errors, those left out of `errors` included. */
  readonly errorCount: number;
  /** The first 10,000 of each kind. */
  readonly notes: readonly CheckNote[];
  readonly counts: CheckCounts;
  /** When the structure was looked at and found whole, in epoch milliseconds; null when it is not. */
  readonly structureVerifiedMs: number | null;
  /** When every pack that was chosen was read and found whole; null when one is not, or none was read. */
  readonly contentVerifiedMs: number | null;
  /** Which packs were chosen, with the seed of a choice by lot; null when none was to be read. */
  readonly selection: ReadDataSelection | null;
}

/** How far check has come, and each error as it is found. */
export type CheckEvent =
  | {
      readonly kind: "indexes";
      readonly filesDone: number;
      readonly filesTotal: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
    }
  /** `treesTotal` is what the index has, some of which may not be needed. */
  | { readonly kind: "trees"; readonly treesDone: number; readonly treesTotal: number; readonly blobsSeen: number }
  | {
      readonly kind: "content";
      readonly packsDone: number;
      readonly packsTotal: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
    }
  | { readonly kind: "error"; readonly error: CheckError };

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
/** An error without what its kind decides. */
export type CheckFinding = DistributiveOmit<CheckError, "level" | "hint">;

const guidance: Readonly<Record<CheckError["kind"], { readonly level: CheckLevel; readonly hint: string }>> = {
  keyDamaged: { level: "structure", hint: "Remove the damaged key with `granary repo key remove`, and add a new one." },
  indexDamaged: {
    level: "structure",
    hint: "Run `granary repo repair index`, which sets it aside and reads what it lists from the packs.",
  },
  packMissing: {
    level: "structure",
    hint: "Bring the pack back from a copy of the repository, if there is one. Else run `granary repo repair index`, back the same files up again, and run `granary repo repair snapshots` for what is still missing.",
  },
  packSize: { level: "structure", hint: "Run `granary repo repair packs` with the pack's id, which saves the blobs that are whole." },
  packListing: {
    level: "structure",
    hint: "Run `granary repo repair index --read-all-packs`, which reads what packs hold from their own headers.",
  },
  packUnreadable: { level: "content", hint: "Check the disk or the server; then run `granary repo repair packs` with the pack's id." },
  packHash: { level: "content", hint: "Run `granary repo repair packs` with the pack's id, which saves the blobs that are whole." },
  packHeader: { level: "content", hint: "Run `granary repo repair packs` with the pack's id, which saves the blobs that the index lists." },
  blobDamaged: {
    level: "content",
    hint: "Run `granary repo repair packs` with the pack's id; back the same files up again, and run `granary repo repair snapshots` for what is still missing.",
  },
  snapshotDamaged: {
    level: "structure",
    hint: "Bring the file back from a copy of the repository, or run `granary repo repair snapshots`, which sets it aside.",
  },
  treeMissing: { level: "structure", hint: "Run `granary repo repair index`; if it is still missing, `granary repo repair snapshots`." },
  treeDamaged: {
    level: "structure",
    hint: "Run `granary repo repair packs` with the pack's id, and then `granary repo repair snapshots`.",
  },
  treeInvalid: { level: "structure", hint: "Run `granary repo repair snapshots`." },
  blobMissing: {
    level: "structure",
    hint: "Run `granary repo repair index`; back the same files up again, and run `granary repo repair snapshots` for what is still missing.",
  },
};

/** Completes an error with the level and the hint of its kind. @param level when it is not what the kind decides */
export function completeFinding(finding: CheckFinding, level?: CheckLevel): CheckError {
  const known = guidance[finding.kind];
  return { ...finding, level: level ?? known.level, hint: known.hint };
}
