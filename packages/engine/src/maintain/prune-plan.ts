/**
 * What prune does with each pack, decided from numbers alone.
 *
 * Packs that nothing needs go. Of the others, those are repacked that free most for what must be copied, until what is wasted is within the
 * bound; the rest stays as it is. The same repository and options give the same decisions.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";

/** How much may stay wasted in packs that are kept. */
export type MaxUnused =
  | { readonly kind: "unlimited" }
  /** Of the size of the repository afterwards, 0 to below 100. */
  | { readonly kind: "percent"; readonly percent: number }
  | { readonly kind: "size"; readonly sizeBytes: number };

/** restic's default as well. */
export const defaultMaxUnused: MaxUnused = { kind: "percent", percent: 5 };

const units: Readonly<Record<string, number>> = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** Reads what `--max-unused` takes: `unlimited`, `5%`, `2.5%`, `0`, `500M`. @throws InvalidArgument */
export function parseMaxUnused(text: string): MaxUnused {
  if (text === "unlimited") return { kind: "unlimited" };
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text);
  if (percent !== null && Number(percent[1]) < 100) return { kind: "percent", percent: Number(percent[1]) };
  const size = /^(\d+)([bkmgt]?)$/i.exec(text);
  if (size === null) {
    throw new Failure(
      "InvalidArgument",
      `Cannot read "${text}" as what may stay unused: unlimited, a percentage below 100%, or a size as 500M needed`,
    );
  }
  return { kind: "size", sizeBytes: Number(size[1]) * (units[size[2]?.toLowerCase() ?? ""] ?? 1) };
}

/** How much of a pack is needed. Sizes are those of sealed blobs with their header entries. */
export interface PackUse {
  readonly pack: number;
  readonly packId: string;
  /** As it is in the store; 0 when it is not there. */
  readonly sizeBytes: number;
  /** Blobs that are needed, and are to be kept here. */
  readonly usedBlobs: number;
  readonly usedBytes: number;
  readonly unusedBlobs: number;
  /** Blobs that are needed, and are kept in another pack. */
  readonly redundantBlobs: number;
  /** Of unused and redundant blobs. */
  readonly unusedBytes: number;
  readonly kind: "data" | "tree" | "mixed";
  /** Some of its blobs could be compressed and are not. */
  readonly hasUncompressed: boolean;
}

/**
 * - `keep`: stays as it is
 * - `remove`: nothing in it is needed
 * - `replace`: all that is needed of it is in other packs; goes when those are settled
 * - `repack`: what is needed of it is copied into new packs, and then it goes
 */
export type PackAction = "keep" | "remove" | "replace" | "repack";

export interface DecideOptions {
  readonly maxUnused: MaxUnused;
  /** Bytes of packs that are repacked at most. */
  readonly maxRepackBytes: number;
  /** Repacks trees only. */
  readonly cacheableOnly: boolean;
  /** Repacks packs that are much smaller than they should be. */
  readonly small: boolean;
  /** Repacks packs with blobs that are not compressed. */
  readonly uncompressed: boolean;
  /** The sizes at which new packs are closed. */
  readonly dataPackBytes: number;
  readonly treePackBytes: number;
}

/** Decides on all packs. @returns the action for each, in the order given */
export function decidePacks(packs: readonly PackUse[], options: DecideOptions): PackAction[] {
  const actions = packs.map((use): PackAction => (use.usedBlobs > 0 ? "keep" : use.redundantBlobs > 0 ? "replace" : "remove"));
  const small = options.small ? findSmall(packs, options) : new Set<PackUse>();
  const candidates = packs
    .map((use, at) => ({ use, at, isForced: use.kind === "mixed" || (options.uncompressed && use.hasUncompressed) || small.has(use) }))
    .filter(
      ({ use, isForced }) => use.usedBlobs > 0 && (isForced || use.unusedBytes > 0) && !(options.cacheableOnly && use.kind === "data"),
    )
    .sort((a, b) => Number(b.isForced) - Number(a.isForced) || compareGain(a.use, b.use));
  const usedBytes = packs.reduce((sum, use) => sum + use.usedBytes, 0);
  const mayWasteBytes = boundUnused(options.maxUnused, usedBytes);
  let wastedBytes = packs.reduce((sum, use) => sum + (use.usedBlobs > 0 ? use.unusedBytes : 0), 0);
  let repackBytes = 0;
  for (const { use, at, isForced } of candidates) {
    if (!isForced && wastedBytes <= mayWasteBytes) break;
    if (repackBytes + use.sizeBytes > options.maxRepackBytes) continue;
    actions[at] = "repack";
    repackBytes += use.sizeBytes;
    wastedBytes -= use.unusedBytes;
  }
  return actions;
}

/** How many bytes may stay wasted beside so many used ones. */
export function boundUnused(maxUnused: MaxUnused, usedBytes: number): number {
  switch (maxUnused.kind) {
    case "unlimited":
      return Number.POSITIVE_INFINITY;
    case "percent":
      return (maxUnused.percent / (100 - maxUnused.percent)) * usedBytes;
    case "size":
      return maxUnused.sizeBytes;
  }
}

/** Most bytes freed for each byte copied first. */
function compareGain(a: PackUse, b: PackUse): number {
  return b.unusedBytes * a.usedBytes - a.unusedBytes * b.usedBytes || (a.packId < b.packId ? -1 : 1);
}

/** Packs that could be put together into fewer. */
function findSmall(packs: readonly PackUse[], options: DecideOptions): ReadonlySet<PackUse> {
  const chosen = new Set<PackUse>();
  for (const kind of ["data", "tree"] as const) {
    const fullBytes = kind === "data" ? options.dataPackBytes : options.treePackBytes;
    const small = packs.filter((use) => use.kind === kind && use.usedBlobs > 0 && use.sizeBytes < fullBytes * 0.8);
    const togetherBytes = small.reduce((sum, use) => sum + use.usedBytes, 0);
    // Otherwise the same packs would be repacked each time.
    if (Math.ceil(togetherBytes / fullBytes) < small.length) for (const use of small) chosen.add(use);
  }
  return chosen;
}
