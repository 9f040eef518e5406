/**
 * Finds what snapshots need, for those who remove the rest: reads every index file, snapshot and tree, and accepts nothing that is damaged.
 */
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { toUtf8OrEscaped } from "../format/byte-string.ts";
import { bytesOfId, hexOf, type SnapshotId } from "../format/ids.ts";
import { headerEntryBytes, SEAL_BYTES } from "../format/pack.ts";
import type { BlobPlace } from "../repository/blob-index.ts";
import type { Repository } from "../repository/repository.ts";
import { loadSnapshots, type StoredSnapshot } from "../repository/snapshots.ts";
import { type BlobNumber, IndexSurvey, surveyIndexes } from "./index-survey.ts";
import { MaintainCrew, type TreeFinding, type WalkRoot } from "./maintain-crew.ts";
import { type PackFiles, surveyPackFiles } from "./pack-files.ts";
import type { PackUse } from "./prune-plan.ts";
import type { SharedWalk } from "./shared-walk.ts";
import { TreePlaces } from "./tree-places.ts";

/** How far the search has come. */
export type UsedBlobsEvent =
  | {
      readonly kind: "indexes";
      readonly filesDone: number;
      readonly filesTotal: number;
      readonly bytesDone: number;
      readonly bytesTotal: number;
    }
  /** `treesTotal` is what the index has, some of which may not be needed. */
  | { readonly kind: "trees"; readonly treesDone: number; readonly treesTotal: number; readonly blobsSeen: number };

export interface FindUsedOptions {
  /** Snapshots that count as removed already: for a dry run of forget and prune together. */
  readonly ignoreSnapshots?: ReadonlySet<SnapshotId>;
  readonly workers?: number;
  /** Must not throw. */
  readonly onProgress?: (event: UsedBlobsEvent) => void;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
}

/** What is needed, and where everything is. */
export interface UsedBlobs {
  readonly snapshots: number;
  readonly survey: IndexSurvey;
  readonly files: PackFiles;
  readonly isUsed: (blob: BlobNumber) => boolean;
  /** For each pack of the survey, by its number. */
  readonly packs: readonly PackUse[];
}

const progressMs = 200;
const maxTold = 20;

/**
 * Finds what all snapshots together need, and chooses of each needed blob that is in several packs the copy that is to be kept.
 *
 * @throws PruneUnsafe when an index file, a snapshot, a tree, or a pack with needed blobs is damaged or missing, naming the first 20;
 *   StoreDenied, StoreUnavailable; Cancelled
 */
export async function findUsedBlobs(repository: Repository, options: FindUsedOptions = {}): Promise<UsedBlobs> {
  const { signal, workers, ignoreSnapshots, onProgress } = options;
  const { store, key } = repository;
  const signalOption = signal && { signal };
  const survey = new IndexSurvey();
  const problems = new Problems();
  // The workers start while the index is read.
  await using crew = new MaintainCrew({ store, key, survey, ...(workers && { workers }), ...signalOption });
  const onDamaged = (_: unknown, failure: Failure): void => problems.add(failure.message);
  const all = await loadSnapshots(repository, { onDamaged, ...signalOption });
  const snapshots = all.filter(({ id }) => ignoreSnapshots?.has(id) !== true);
  await surveyIndexes(repository, { survey, onProgress: (progress) => onProgress?.({ kind: "indexes", ...progress }), ...signalOption });
  for (const { failure } of survey.indexes) if (failure !== undefined) problems.add(failure.message);
  const files = await surveyPackFiles(store, survey, signal);
  problems.throwIfAny(); // what follows reads much, and would only find consequences
  files.preferPresent();
  const walk = await walkAll(repository, { crew, survey, snapshots, problems }, options);
  const isUsed = (blob: BlobNumber): boolean => ((blob & 1) === 1 ? walk.hasSeenTree(blob >>> 1) : walk.hasSeenData(blob >>> 1));
  chooseCopies(survey, files, isUsed);
  const packs = tally(survey, files, isUsed);
  for (const use of packs) if (use.usedBlobs > 0) problems.add(findFault(survey, files, use));
  problems.throwIfAny();
  return { snapshots: snapshots.length, survey, files, isUsed, packs };
}

interface WalkAll {
  readonly crew: MaintainCrew;
  readonly survey: IndexSurvey;
  readonly snapshots: readonly StoredSnapshot[];
  readonly problems: Problems;
}

async function walkAll(repository: Repository, all: WalkAll, options: FindUsedOptions): Promise<SharedWalk> {
  const { crew, survey, snapshots, problems } = all;
  const { clock = systemClock, onProgress, signal } = options;
  const roots: WalkRoot[] = [];
  snapshots.forEach(({ id, tree }, snapshot) => {
    const entry = survey.trees.find(bytesOfId(tree));
    if (entry >= 0) roots.push({ tree: entry, snapshot });
    else problems.add(`Snapshot "${id}" needs tree "${tree}", which no index file lists`);
  });
  const findings: TreeFinding[] = [];
  let stopProgress = (): void => {};
  try {
    const walk = await crew.walk(roots, {
      onFinding: (finding) => {
        // An entry that is wrong in another way names nothing that was missed.
        if (finding.problem.kind !== "entry") findings.push(finding);
      },
      onStart: (started) => {
        const report = (): void => {
          const { treesDone, blobsSeen } = started;
          onProgress?.({ kind: "trees", treesDone, treesTotal: survey.trees.size, blobsSeen });
        };
        stopProgress = clock.every(progressMs, report);
      },
    });
    const places = new TreePlaces(repository, survey, walk);
    for (const [i, { tree, problem }] of findings.entries()) {
      const { snapshot, path } = i < maxTold ? await places.find(tree, signal) : { snapshot: -1, path: "" };
      const where = `${toUtf8OrEscaped(`${path}/`)} in snapshot "${snapshots[snapshot]?.id ?? ""}"`;
      problems.add(`Tree "${hexOf(survey.trees.idOf(tree))}", ${where}: ${problem.failure.message}`);
    }
    return walk;
  } finally {
    stopProgress();
  }
}

class Problems {
  readonly #told: string[] = [];
  #count = 0;

  /** @param problem empty when there is none */
  add(problem: string): void {
    if (problem === "") return;
    this.#count++;
    if (this.#told.length < maxTold) this.#told.push(problem);
  }

  throwIfAny(): void {
    if (this.#count > 0) throw pruneUnsafe(this.#told, this.#count);
  }
}

/** @param problems at least one @param count of all, those not told included */
export function pruneUnsafe(problems: readonly string[], count: number = problems.length): Failure {
  const more = count > 1 ? `; and ${count - 1} more` : "";
  return new Failure("PruneUnsafe", `Cannot prune: ${problems[0] ?? ""}${more}`, { details: { problems, problemCount: count } });
}

function findFault(survey: IndexSurvey, files: PackFiles, { pack, packId }: PackUse): string {
  const sizeBytes = files.sizeOf(pack);
  const known = survey.packs[pack];
  if (sizeBytes === undefined) return `Pack "${packId}", which snapshots need, is missing`;
  if (known === undefined || known.fault !== "")
    return `What index files say of pack "${packId}", which snapshots need, cannot be true: ${known?.fault}`;
  if (sizeBytes !== known.expectedBytes)
    return `Pack "${packId}", which snapshots need, has ${sizeBytes} bytes, but its blobs and header take ${known.expectedBytes}`;
  return "";
}

/**
 * Chooses which copy of each needed blob is kept: one that is there; in the pack that has most of what is nowhere else, so that others
 * become empty; else in the one that wastes least; else in the one whose id is lowest.
 */
function chooseCopies(survey: IndexSurvey, files: PackFiles, isUsed: (blob: BlobNumber) => boolean): void {
  if (survey.copies.length === 0) return;
  const aloneBytes = new Float64Array(survey.packs.length);
  const wastedBytes = new Float64Array(survey.packs.length);
  survey.forEachBlob((blob, place) => {
    const isNeeded = isUsed(blob);
    if (isNeeded && survey.findCopies(blob).length > 0) return;
    const bytes = isNeeded ? aloneBytes : wastedBytes;
    bytes[place.pack] = (bytes[place.pack] ?? 0) + place.sealedBytes;
  });
  const isGood = survey.packs.map((known, pack) => known.fault === "" && files.sizeOf(pack) === known.expectedBytes);
  const rank = (pack: number): readonly number[] => [isGood[pack] === true ? 1 : 0, aloneBytes[pack] ?? 0, -(wastedBytes[pack] ?? 0)];
  survey.chooseFirst((first, second) => {
    if (first.pack === second.pack) return second.offsetBytes < first.offsetBytes;
    const [ranksOfFirst, ranksOfSecond] = [rank(first.pack), rank(second.pack)];
    for (const [i, ofFirst] of ranksOfFirst.entries()) {
      const ofSecond = ranksOfSecond[i] ?? 0;
      if (ofFirst !== ofSecond) return ofSecond > ofFirst;
    }
    return survey.packIdOf(second.pack) < survey.packIdOf(first.pack);
  });
}

function tally(survey: IndexSurvey, files: PackFiles, isUsed: (blob: BlobNumber) => boolean): PackUse[] {
  const uses = survey.packs.map(({ hasData, hasTrees }, pack) => ({
    pack,
    packId: survey.packIdOf(pack),
    sizeBytes: files.sizeOf(pack) ?? 0,
    usedBlobs: 0,
    usedBytes: 0,
    unusedBlobs: 0,
    redundantBlobs: 0,
    unusedBytes: 0,
    kind: hasData && hasTrees ? ("mixed" as const) : hasTrees ? ("tree" as const) : ("data" as const),
    hasUncompressed: false,
  }));
  const count = (blob: BlobNumber, place: BlobPlace, isFirst: boolean): void => {
    const use = uses[place.pack];
    if (use === undefined) return;
    const bytes = place.sealedBytes + headerEntryBytes(place.plainBytes);
    if (!isUsed(blob)) use.unusedBlobs++;
    else if (!isFirst) use.redundantBlobs++;
    else {
      use.usedBlobs++;
      use.usedBytes += bytes;
      if (place.plainBytes === 0 && place.sealedBytes > SEAL_BYTES) use.hasUncompressed = true;
      return;
    }
    use.unusedBytes += bytes;
  };
  survey.forEachBlob((blob, place) => count(blob, place, true));
  for (const { blob, place } of survey.copies) count(blob, place, false);
  return uses;
}
