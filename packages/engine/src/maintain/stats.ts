/**
 * Counts what snapshots hold, in restic's four ways. Memory: one bit a blob of the repository for `raw-data`; about 50 bytes a distinct file
 * content, and for `blobs-per-file` as much again for each file and each of its blobs.
 */
import { createHash } from "node:crypto";
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import type { ByteString } from "../format/byte-string.ts";
import { type BlobId, bytesOfId, hexOf, ID_BYTES } from "../format/ids.ts";
import type { TreeNode } from "../format/node.ts";
import { SEAL_BYTES } from "../format/pack.ts";
import type { BlobIndex, BlobPlace } from "../repository/blob-index.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import { BlobSet, IdSet } from "./id-set.ts";
import { type TreeEntry, walkTree } from "./tree-walk.ts";

/**
 * What is counted:
 * - `restore-size`: what a restore of each snapshot would write; hard links of one file count once
 * - `files-by-contents`: each distinct content once, over all snapshots
 * - `blobs-per-file`: of each distinct content, the distinct blobs of each path
 * - `raw-data`: each blob that a snapshot needs, as it is stored, trees included
 */
export type StatsMode = "restore-size" | "files-by-contents" | "blobs-per-file" | "raw-data";

export const statsModes: readonly StatsMode[] = ["restore-size", "files-by-contents", "blobs-per-file", "raw-data"];

export interface Stats {
  readonly snapshotsCount: number;
  /** Entries of any type; 0 for `raw-data`. */
  readonly fileCount: number;
  /** 0 for `restore-size` and `files-by-contents`. */
  readonly blobCount: number;
  readonly sizeBytes: number;
  /** Of `raw-data`: what the blobs would take without compression; else 0. */
  readonly uncompressedBytes: number;
  /** Of `raw-data`: stored bytes of those blobs that are compressed, and what these would take without. */
  readonly compressedBytes: number;
  readonly compressedPlainBytes: number;
}

export interface StatsOptions {
  readonly mode: StatsMode;
  /** Called after each snapshot; must not throw. */
  readonly onProgress?: (snapshotsDone: number) => void;
  readonly signal?: AbortSignal;
}

/** What is counted from. */
export interface StatsSource {
  readonly load: TreeLoader;
  readonly index: BlobIndex;
}

/**
 * Counts over these snapshots, given by their trees.
 *
 * @throws BlobMissing when a blob is in no index; what `load` throws; Cancelled
 */
export async function countStats(source: StatsSource, trees: Iterable<BlobId>, options: StatsOptions): Promise<Stats> {
  const { onProgress, signal } = options;
  const counter = openCounter(source.index, options.mode);
  let snapshotsCount = 0;
  for (const tree of trees) {
    const root = bytesOfId(tree);
    counter.begin(root);
    const enter = (entry: TreeEntry): boolean => counter.enter(entry.node);
    if (!counter.isDone) {
      for await (const batch of walkTree(source.load, root, { enter, ...(signal && { signal }) }))
        for (const entry of batch) counter.add(entry);
    }
    snapshotsCount++;
    onProgress?.(snapshotsCount);
  }
  return { ...emptyStats, snapshotsCount, ...counter.finish() };
}

const emptyStats: Omit<Stats, "snapshotsCount"> = {
  fileCount: 0,
  blobCount: 0,
  sizeBytes: 0,
  uncompressedBytes: 0,
  compressedBytes: 0,
  compressedPlainBytes: 0,
};

interface Counter {
  /** Whether the snapshot that was begun adds nothing. */
  readonly isDone: boolean;
  begin(root: Uint8Array): void;
  enter(node: TreeNode): boolean;
  add(entry: TreeEntry): void;
  finish(): Partial<Stats>;
}

function openCounter(index: BlobIndex, mode: StatsMode): Counter {
  switch (mode) {
    case "restore-size":
      return countRestoreSize();
    case "files-by-contents":
      return countContents();
    case "blobs-per-file":
      return countBlobsPerFile(index);
    case "raw-data":
      return countRawData(index);
  }
}

function countRestoreSize(): Counter {
  let fileCount = 0;
  let sizeBytes = 0;
  let hardLinks = new Set<string>();
  return {
    isDone: false,
    begin() {
      hardLinks = new Set();
    },
    enter: () => true,
    add({ node }) {
      fileCount++;
      if (node.type !== "dir" && node.links !== 1 && node.inode !== 0) {
        const file = `${node.deviceId}:${node.inode}`;
        if (hardLinks.has(file)) return;
        hardLinks.add(file);
      }
      sizeBytes += Number(node.size);
    },
    finish: () => ({ fileCount, sizeBytes }),
  };
}

/** Like restic, takes whatever has no content for one empty file. */
function countContents(): Counter {
  const seen = new IdSet();
  let sizeBytes = 0;
  return {
    isDone: false,
    begin() {},
    enter: () => true,
    add({ node }) {
      if (seen.add(hashOf("", node.content ?? nothing))) sizeBytes += Number(node.size);
    },
    finish: () => ({ fileCount: seen.size, sizeBytes }),
  };
}

function countBlobsPerFile(index: BlobIndex): Counter {
  const contents = new IdSet();
  const paths = new IdSet();
  const blobs = new IdSet();
  let sizeBytes = 0;
  return {
    isDone: false,
    begin() {},
    enter: () => true,
    add({ node, path }) {
      const { content } = node;
      if (content === null || content.length === 0 || !contents.add(hashOf("", content))) return;
      paths.add(hashOf(path, nothing));
      for (let at = 0; at < content.length; at += ID_BYTES) {
        const id = content.subarray(at, at + ID_BYTES);
        if (blobs.add(hashOf(path, id))) sizeBytes += plainBytesOf(getPlace(index, index.find(id), id));
      }
    },
    finish: () => ({ fileCount: paths.size, blobCount: blobs.size, sizeBytes }),
  };
}

function countRawData(index: BlobIndex): Counter {
  const used = new BlobSet(index);
  const use = (id: Uint8Array): boolean => {
    const added = used.add(id);
    if (added < 0) getPlace(index, -1, id);
    return added === 1;
  };
  let isDone = false;
  return {
    get isDone() {
      return isDone;
    },
    begin(root) {
      isDone = !use(root);
    },
    enter: ({ subtree }) => subtree !== null && use(subtree),
    add({ node: { content } }) {
      if (content === null) return;
      for (let at = 0; at < content.length; at += ID_BYTES) use(content.subarray(at, at + ID_BYTES));
    },
    finish() {
      const sums = { blobCount: 0, sizeBytes: 0, uncompressedBytes: 0, compressedBytes: 0, compressedPlainBytes: 0 };
      for (const entry of used.entries()) {
        const place = getPlace(index, entry, index.idOf(entry));
        const uncompressed = plainBytesOf(place) + SEAL_BYTES;
        sums.blobCount++;
        sums.sizeBytes += place.sealedBytes;
        sums.uncompressedBytes += uncompressed;
        if (place.plainBytes === 0) continue;
        sums.compressedBytes += place.sealedBytes;
        sums.compressedPlainBytes += uncompressed;
      }
      return sums;
    },
  };
}

const nothing = new Uint8Array(0);

function hashOf(path: ByteString, content: Uint8Array): Uint8Array {
  return createHash("sha256").update(path, "latin1").update("\0").update(content).digest();
}

function plainBytesOf(place: BlobPlace): number {
  return place.plainBytes === 0 ? place.sealedBytes - SEAL_BYTES : place.plainBytes;
}

function getPlace(index: BlobIndex, entry: number, id: Uint8Array): BlobPlace {
  const place = entry < 0 ? undefined : index.placeOf(entry);
  if (place !== undefined) return place;
  const blobId = hexOf(id);
  throw new Failure("BlobMissing", `Cannot count blob "${blobId}": no pack in the index has it`, { details: { blobId } });
}
