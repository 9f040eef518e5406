/**
 * Saves what is whole of damaged packs: copies it into new packs, makes the index list those, and sets the damaged packs aside. What cannot be
 * saved is named; a new backup of the same files brings it back, else `repair snapshots` takes what needs it out of the snapshots.
 *
 * Planning reads, running writes. An exclusive lock must be held by the caller from the planning until after the running. Killed anywhere,
 * what was whole is still listed somewhere, and another run completes it.
 */
import { createHash } from "node:crypto";
import { Failure, isFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { hexOf, type PackId } from "../format/ids.ts";
import type { PackHeader } from "../format/pack.ts";
import type { BlobPlace } from "../repository/blob-index.ts";
import { BlobDecoder } from "../repository/blob-reader.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import type { Repository } from "../repository/repository.ts";
import { rewriteIndexes } from "./index-rewrite.ts";
import { BLOB_WORDS, type BlobNumber, type IndexSurvey, surveyIndexes } from "./index-survey.ts";
import { MaintainCrew } from "./maintain-crew.ts";
import type { CopyTask } from "./maintain-messages.ts";
import { type PackFiles, surveyPackFiles } from "./pack-files.ts";
import { loadPackHeader } from "./rebuild-index.ts";
import type { Store } from "../store/store.ts";
import { requireQuarantine, setAside, type SetAsideOptions } from "./set-aside.ts";

const pieceBytes = 8 * 1024 * 1024;
const defaultPackBytes = 16 * 1024 * 1024;

export interface PlanPacksOptions {
  /** Called after each pack; must not throw. */
  readonly onProgress?: (event: { readonly packsDone: number; readonly packsTotal: number }) => void;
  readonly signal?: AbortSignal;
}

/** A blob that cannot be saved from a pack. */
export interface LostBlob {
  readonly blobId: string;
  readonly blobType: "data" | "tree";
  /** Another pack has it, so nothing is lost. */
  readonly hasOtherCopy: boolean;
}

/** What is to become of a pack. */
export interface PackRepair {
  readonly packId: string;
  /** `whole` packs are left alone, and so are those that are `missing`. */
  readonly state: "whole" | "damaged" | "missing";
  readonly sizeBytes: number;
  /** What is wrong, in words; empty for a whole pack. */
  readonly problems: readonly string[];
  /** Blobs that can be read. */
  readonly savedBlobs: number;
  readonly lost: readonly LostBlob[];
}

/** What repairing packs would do; plain data, to be shown. */
export interface PackRepairPlan {
  readonly packs: readonly PackRepair[];
}

interface Work {
  readonly survey: IndexSurvey;
  /** By the number of each damaged pack: its readable blobs, as `IndexSurvey.collectBlobs` gives them. */
  readonly saved: ReadonlyMap<number, Uint32Array>;
}
const works = new WeakMap<PackRepairPlan, Work>();

/**
 * Reads these packs and finds out what can be saved of them. Changes nothing.
 *
 * @throws StoreDenied, StoreUnavailable; Cancelled
 */
export async function planPackRepair(
  repository: Repository,
  packIds: readonly PackId[],
  options: PlanPacksOptions = {},
): Promise<PackRepairPlan> {
  const { onProgress, signal } = options;
  const survey = await surveyIndexes(repository, { ...(signal && { signal }) });
  const files = await surveyPackFiles(repository.store, survey, signal);
  const wanted = new Set<string>(packIds);
  const isElsewhere = (place: BlobPlace): boolean => !wanted.has(survey.packIdOf(place.pack)) && files.sizeOf(place.pack) !== undefined;
  const packs: PackRepair[] = [];
  const saved = new Map<number, Uint32Array>();
  for (const packId of wanted) {
    const sizeBytes = sizeOf(packId, survey, files);
    if (sizeBytes === undefined) {
      packs.push({ packId, state: "missing", sizeBytes: 0, problems: [`Pack "${packId}" is not in the store`], savedBlobs: 0, lost: [] });
    } else {
      const proof = await provePack(repository, { survey, packId, sizeBytes }, signal);
      const hasOtherCopy = (blob: BlobNumber): boolean =>
        isElsewhere(survey.placeOf(blob)) || survey.findCopies(blob).some(({ place }) => isElsewhere(place));
      if (proof.problems.length > 0) saved.set(proof.pack, skipKnown(proof.good, hasOtherCopy));
      packs.push({
        packId,
        state: proof.problems.length > 0 ? "damaged" : "whole",
        sizeBytes,
        problems: proof.problems,
        savedBlobs: proof.good.length / BLOB_WORDS,
        lost: proof.bad.map((blob) => ({
          blobId: hexOf(survey.idOf(blob)),
          blobType: (blob & 1) === 1 ? "tree" : "data",
          hasOtherCopy: hasOtherCopy(blob),
        })),
      });
    }
    onProgress?.({ packsDone: packs.length, packsTotal: wanted.size });
  }
  const plan: PackRepairPlan = { packs };
  works.set(plan, { survey, saved });
  return plan;
}

function sizeOf(packId: string, survey: IndexSurvey, files: PackFiles): number | undefined {
  const pack = survey.findPack(packId);
  return pack === undefined ? files.unreferenced.find((file) => file.packId === packId)?.sizeBytes : files.sizeOf(pack);
}

/** Blobs that no other pack has. */
function skipKnown(words: Uint32Array, isKnown: (blob: BlobNumber) => boolean): Uint32Array {
  const left: number[] = [];
  for (let at = 0; at < words.length; at += BLOB_WORDS) if (!isKnown(words[at] ?? 0)) left.push(...words.subarray(at, at + BLOB_WORDS));
  return Uint32Array.from(left);
}

interface Proof {
  readonly pack: number;
  /** Empty when everything is as it should be. */
  readonly problems: readonly string[];
  readonly good: Uint32Array;
  readonly bad: readonly BlobNumber[];
}

/** Reads all of a pack: what its header lists, and what the index lists, which may be more. */
async function provePack(
  repository: Repository,
  subject: { readonly survey: IndexSurvey; readonly packId: string; readonly sizeBytes: number },
  signal: AbortSignal | undefined,
): Promise<Proof> {
  const { survey, packId, sizeBytes } = subject;
  const problems: string[] = [];
  const note = (error: unknown): void => void problems.push(expectDamage(repository.store, error).message);
  try {
    const found = await hashPack(repository, subject, signal);
    if (found !== packId) problems.push(`Pack "${packId}" has the hash "${found}"`);
  } catch (error) {
    note(error);
  }
  try {
    listHeader(survey, packId, await loadPackHeader(repository, { packId, sizeBytes }, signal));
  } catch (error) {
    note(error);
  }
  const pack = survey.addPack(Buffer.from(packId, "hex"));
  const words = survey.collectBlobs([pack]).get(pack) ?? new Uint32Array();
  const decoder = new BlobDecoder(repository.sealer);
  const ref = { kind: "pack", name: packId } as const;
  const limit = { limit: repository.store.concurrency, ...(signal && { signal }) };
  const loads = mapOrdered(blobsAt(words), limit, async (at, stop) => {
    const [blob = 0, offsetBytes = 0, lengthBytes = 0] = words.subarray(at, at + BLOB_WORDS);
    try {
      return { at, blob, sealed: await repository.store.load(ref, { offsetBytes, lengthBytes }, stop) };
    } catch (error) {
      return { at, blob, damage: expectDamage(repository.store, error) };
    }
  });
  const good: number[] = [];
  const bad: BlobNumber[] = [];
  for await (const loaded of loads) {
    try {
      if ("damage" in loaded) throw loaded.damage;
      decoder.decode(survey.idOf(loaded.blob), loaded.sealed, words[loaded.at + 3] ?? 0);
      good.push(...words.subarray(loaded.at, loaded.at + BLOB_WORDS));
    } catch (error) {
      note(error);
      bad.push(loaded.blob);
    }
  }
  return { pack, problems, good: Uint32Array.from(good), bad };
}

function* blobsAt(words: Uint32Array): Generator<number> {
  for (let at = 0; at < words.length; at += BLOB_WORDS) yield at;
}

async function hashPack(
  { store }: Repository,
  { packId, sizeBytes }: { readonly packId: string; readonly sizeBytes: number },
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash("sha256");
  for (let offsetBytes = 0; offsetBytes < sizeBytes; offsetBytes += pieceBytes) {
    const lengthBytes = Math.min(pieceBytes, sizeBytes - offsetBytes);
    hash.update(await store.load({ kind: "pack", name: packId }, { offsetBytes, lengthBytes }, signal));
  }
  return hash.digest("hex");
}

/** Tells the survey what a pack's own header lists. */
function listHeader(survey: IndexSurvey, packId: string, header: PackHeader): void {
  survey.pack(Buffer.from(packId, "hex"));
  for (const entry of header.entries()) survey.blob({ ...entry, isTree: entry.type === "tree" });
  survey.endFile();
}

/** A disk that cannot read one file may read the next; of a server that does not answer nothing follows. */
function expectDamage(store: Store, error: unknown): Failure {
  const isLocal = store.pathOf !== undefined;
  if (isFailure(error) && (error.kind === "corrupt" || error.kind === "notFound" || (isLocal && error.kind === "unavailable")))
    return error;
  throw error;
}

export interface RunPacksOptions extends SetAsideOptions {
  /** The size at which new data packs are closed; 16 MiB when absent. */
  readonly packBytes?: number;
  readonly workers?: number;
}

export interface PackRepairReport {
  readonly packsSetAside: number;
  readonly packsWritten: number;
  readonly blobsSaved: number;
  readonly indexesWritten: number;
  readonly indexesSetAside: number;
}

/**
 * Does what was planned, under the same lock; whole and missing packs are left alone.
 *
 * @throws InvalidArgument when files cannot be set aside; BlobInvalid when a blob that was whole is damaged now; StoreFull, StoreDenied,
 *   StoreUnavailable; Cancelled
 */
export async function runPackRepair(
  repository: Repository,
  plan: PackRepairPlan,
  options: RunPacksOptions = {},
): Promise<PackRepairReport> {
  const work = works.get(plan);
  if (work === undefined) throw new Failure("InvalidArgument", "Cannot run the plan: it was run before; make a new one");
  const { store } = repository;
  const { signal } = options;
  if (work.saved.size > 0) requireQuarantine(store, options);
  works.delete(plan);
  if (work.saved.size === 0) return { packsSetAside: 0, packsWritten: 0, blobsSaved: 0, indexesWritten: 0, indexesSetAside: 0 };
  const { survey, saved } = work;
  const finished = await copySaved(repository, work, options);
  const added = finished.map((pack) => survey.adopt(pack));
  const { written, retired } = await rewriteIndexes(repository, survey, {
    drop: new Set(saved.keys()),
    add: added,
    retire: (name) => setAside(store, { kind: "index", name }, options),
    ...(signal && { signal }),
  });
  for (const pack of saved.keys()) await setAside(store, { kind: "pack", name: survey.packIdOf(pack) }, options);
  return {
    packsSetAside: saved.size,
    packsWritten: finished.length,
    blobsSaved: added.reduce((sum, pack) => sum + (survey.packs[pack]?.blobs ?? 0), 0),
    indexesWritten: written,
    indexesSetAside: retired,
  };
}

async function copySaved(repository: Repository, { survey, saved }: Work, options: RunPacksOptions): Promise<readonly FinishedPack[]> {
  const { signal, packBytes = defaultPackBytes, workers = 1 } = options;
  const finished: FinishedPack[] = [];
  const writing = { packBytes, level: 0, recompress: false, onPackDurable: (pack: FinishedPack): void => void finished.push(pack) };
  const { store, key } = repository;
  await using crew = new MaintainCrew({ store, key, survey, workers, writing, ...(signal && { signal }) });
  const done = new Set<BlobNumber>(); // a blob may be in several of the packs
  const isDone = (blob: BlobNumber): boolean => {
    const isKnown = done.has(blob);
    done.add(blob);
    return isKnown;
  };
  const tasks = Array.from(saved, ([pack, words]): CopyTask => ({ kind: "copy", pack, blobs: skipKnown(words, isDone) }));
  await crew.copy(tasks, (_task, bad) => {
    for (const { failure } of bad) throw failure;
    return [];
  });
  return finished;
}
