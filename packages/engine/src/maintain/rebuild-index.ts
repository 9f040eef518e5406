/**
 * Makes the index say again what the packs hold: reads the headers of packs that no index file lists, or that are not what index files say,
 * and drops packs that are gone or whose header cannot be read. Damaged packs stay where they are; `repair packs` saves what is whole in them.
 *
 * Planning reads, running writes: new index files first, then the old ones are set aside. Killed in between, index files say the same
 * twice, and another run completes it. An exclusive lock must be held by the caller from the planning until after the running.
 */
import { Failure, toFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { bytesOfId, type IndexId, parsePackId } from "../format/ids.ts";
import { INDEX_ENTRY_BYTES, type IndexPack, writeIndexEntry } from "../format/index-file.ts";
import { HEADER_LENGTH_BYTES, HEADER_READ_AHEAD_BYTES, type PackHeader, parseHeader, parseHeaderLength } from "../format/pack.ts";
import type { FileAccess } from "../repository/files.ts";
import { listContents, retireIndexFiles, writeIndexFiles } from "./index-rewrite.ts";
import { type IndexSurvey, surveyIndexes } from "./index-survey.ts";
import { surveyPackFiles, type UnreferencedPack } from "./pack-files.ts";
import { requireQuarantine, setAside, type SetAsideOptions } from "./set-aside.ts";

export interface PlanIndexOptions {
  /** Believes no index file and reads the header of every pack. */
  readonly readAllPacks?: boolean;
  /** Must not throw. */
  readonly onProgress?: (event: IndexRepairEvent) => void;
  readonly signal?: AbortSignal;
}

export type IndexRepairEvent =
  | {
      readonly kind: "indexes";
      readonly filesDone: number;
      readonly filesTotal: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
    }
  | { readonly kind: "headers"; readonly packsDone: number; readonly packsTotal: number }
  | { readonly kind: "indexSaved"; readonly indexId: string };

/** A pack whose header was read. */
export interface ReindexedPack {
  readonly packId: string;
  readonly blobs: number;
}

/** A pack that cannot be listed. */
export interface DroppedPack {
  readonly packId: string;
  readonly reason: "missing" | "damaged";
  /** Blobs that index files listed in it. */
  readonly blobs: number;
  readonly message: string;
}

/** What repairing the index would do; plain data, to be shown. */
export interface IndexRepairPlan {
  /** Packs that are listed as their headers say. */
  readonly reindexed: readonly ReindexedPack[];
  /** Packs that are not listed any more. Those that are damaged stay in the store. */
  readonly dropped: readonly DroppedPack[];
  /** Index files that are set aside, and why those that are damaged are. */
  readonly replaced: readonly { readonly indexId: string; readonly damage?: string }[];
  /** Index files that stay. */
  readonly keptIndexes: number;
}

interface Work {
  readonly survey: IndexSurvey;
  /** Packs whose listing is right, and is in index files that are replaced. */
  readonly carried: readonly number[];
  readonly contents: readonly IndexPack[];
  readonly replaced: readonly IndexId[];
}
const works = new WeakMap<IndexRepairPlan, Work>();

/** Finds out what the index should say. Changes nothing. @throws StoreDenied, StoreUnavailable; Cancelled */
export async function planIndexRepair(access: FileAccess, options: PlanIndexOptions = {}): Promise<IndexRepairPlan> {
  const { onProgress, signal, readAllPacks = false } = options;
  const survey = await surveyIndexes(access, {
    onProgress: (progress) => onProgress?.({ kind: "indexes", ...progress }),
    ...(signal && { signal }),
  });
  const files = await surveyPackFiles(access.store, survey, signal);
  const believed = new Set(survey.indexes.flatMap(({ packs, failure }) => (failure === undefined ? packs : [])));
  const isRight = survey.packs.map(
    ({ fault, expectedBytes }, pack) => !readAllPacks && fault === "" && believed.has(pack) && files.sizeOf(pack) === expectedBytes,
  );
  const replaced = survey.indexes.filter(
    ({ packs, failure }) => readAllPacks || failure !== undefined || packs.some((pack) => isRight[pack] !== true),
  );
  const kept = survey.indexes.filter((index) => !replaced.includes(index));
  const keptPacks = new Set(kept.flatMap(({ packs }) => packs));
  const toRead: UnreferencedPack[] = [...files.unreferenced];
  const dropped: DroppedPack[] = [];
  survey.packs.forEach(({ blobs }, pack) => {
    const packId = survey.packIdOf(pack);
    const sizeBytes = files.sizeOf(pack);
    if (sizeBytes === undefined) dropped.push({ packId, reason: "missing", blobs, message: `Pack "${packId}" is missing` });
    else if (isRight[pack] !== true) toRead.push({ packId, sizeBytes });
  });
  const { contents, reindexed, damaged } = await readHeaders(access, toRead, options);
  for (const { packId, failure } of damaged) {
    const { blobs } = survey.packs[survey.findPack(packId) ?? -1] ?? { blobs: 0 };
    dropped.push({ packId, reason: "damaged", blobs, message: failure.message });
  }
  const plan: IndexRepairPlan = {
    reindexed,
    dropped,
    replaced: replaced.map(({ id, failure }) => ({ indexId: id, ...(failure && { damage: failure.message }) })),
    keptIndexes: kept.length,
  };
  const carried = [...new Set(replaced.flatMap(({ packs }) => packs))].filter((pack) => isRight[pack] === true && !keptPacks.has(pack));
  works.set(plan, { survey, carried, contents, replaced: replaced.map(({ id }) => id) });
  return plan;
}

interface HeadersRead {
  readonly contents: readonly IndexPack[];
  readonly reindexed: readonly ReindexedPack[];
  readonly damaged: readonly { readonly packId: string; readonly failure: Failure }[];
}

async function readHeaders(access: FileAccess, packs: readonly UnreferencedPack[], options: PlanIndexOptions): Promise<HeadersRead> {
  const { onProgress, signal } = options;
  const read = async (
    pack: UnreferencedPack,
    stop: AbortSignal,
  ): Promise<{ readonly packId: string; readonly found: IndexPack | Failure }> => {
    try {
      const header = await loadPackHeader(access, pack, stop);
      return { packId: pack.packId, found: { packId: bytesOfId(parsePackId(pack.packId)), entries: packHeaderEntries(header) } };
    } catch (error) {
      const failure = toFailure(error);
      if (failure.kind !== "corrupt" && failure.code !== "StoreFileNotFound") throw failure;
      return { packId: pack.packId, found: failure };
    }
  };
  const contents: IndexPack[] = [];
  const reindexed: ReindexedPack[] = [];
  const damaged: { packId: string; failure: Failure }[] = [];
  let packsDone = 0;
  for await (const { packId, found } of mapOrdered(packs, { limit: access.store.concurrency, ...(signal && { signal }) }, read)) {
    if ("entries" in found) {
      contents.push(found);
      reindexed.push({ packId, blobs: found.entries.length / INDEX_ENTRY_BYTES });
    } else damaged.push({ packId, failure: found });
    onProgress?.({ kind: "headers", packsDone: ++packsDone, packsTotal: packs.length });
  }
  return { contents, reindexed, damaged };
}

/**
 * Reads the header of a pack: its end first, which is enough for most, and the rest when it is not.
 *
 * @throws PackInvalid, SealBroken; StoreFileNotFound, StoreTruncated, StoreDenied, StoreUnavailable; Cancelled
 */
export async function loadPackHeader(access: FileAccess, pack: UnreferencedPack, signal?: AbortSignal): Promise<PackHeader> {
  const { sizeBytes } = pack;
  const file = { id: parsePackId(pack.packId), sizeBytes };
  const ref = { kind: "pack", name: pack.packId } as const;
  const tailBytes = Math.min(sizeBytes, HEADER_READ_AHEAD_BYTES);
  const tail = await access.store.load(ref, { offsetBytes: sizeBytes - tailBytes, lengthBytes: tailBytes }, signal);
  const sealedBytes = parseHeaderLength(tail, file);
  const offsetBytes = sizeBytes - HEADER_LENGTH_BYTES - sealedBytes;
  const sealed =
    sealedBytes + HEADER_LENGTH_BYTES <= tailBytes
      ? tail.subarray(tailBytes - HEADER_LENGTH_BYTES - sealedBytes, tailBytes - HEADER_LENGTH_BYTES)
      : await access.store.load(ref, { offsetBytes, lengthBytes: sealedBytes }, signal);
  return parseHeader(access.sealer.open(sealed), file);
}

function packHeaderEntries(header: PackHeader): Uint8Array {
  const entries = new Uint8Array((header.dataBlobs + header.treeBlobs) * INDEX_ENTRY_BYTES);
  let at = 0;
  for (const entry of header.entries()) at = writeIndexEntry(entries, at, entry);
  return entries;
}

export interface RunIndexRepairOptions extends SetAsideOptions {
  /** Must not throw. */
  readonly onProgress?: (event: IndexRepairEvent) => void;
}

/**
 * Does what was planned, under the same lock. Does nothing when nothing is wrong.
 *
 * @returns how many index files were written and set aside
 * @throws InvalidArgument when files cannot be set aside; StoreFull, StoreDenied, StoreUnavailable; Cancelled
 */
export async function runIndexRepair(
  access: FileAccess,
  plan: IndexRepairPlan,
  options: RunIndexRepairOptions = {},
): Promise<{ readonly indexesWritten: number; readonly indexesSetAside: number }> {
  const { onProgress, signal } = options;
  const work = works.get(plan);
  if (work === undefined) throw new Failure("InvalidArgument", "Cannot run the plan: it was run before; make a new one");
  if (work.replaced.length > 0) requireQuarantine(access.store, options);
  works.delete(plan);
  function* listAll({ survey, carried, contents }: Work): Generator<IndexPack> {
    yield* listContents(survey, carried);
    yield* contents;
  }
  const signalOption = signal && { signal };
  const written = await writeIndexFiles(access, listAll(work), {
    onSaved: (indexId) => onProgress?.({ kind: "indexSaved", indexId }),
    ...signalOption,
  });
  const retire = (name: IndexId): Promise<void> => setAside(access.store, { kind: "index", name }, options);
  const indexesSetAside = await retireIndexFiles(access, work.replaced, { retire, ...signalOption });
  return { indexesWritten: written.length, indexesSetAside };
}
