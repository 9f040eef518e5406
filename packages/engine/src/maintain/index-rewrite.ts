/**
 * Replaces index files: writes new ones, which must be durable, and only then takes the old ones away. Killed at any point, the repository
 * has every blob in at least one index file, and none in a pack that is gone.
 */
import { Failure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import type { IndexId } from "../format/ids.ts";
import { encodeIndex, INDEX_ENTRY_BYTES, INDEX_TARGET_BLOBS, type IndexPack, writeIndexEntry } from "../format/index-file.ts";
import { releaseMemory } from "../native/memory.ts";
import { type FileAccess, saveFile } from "../repository/files.ts";
import { BLOB_WORDS, type IndexSurvey, type SurveyedIndex } from "./index-survey.ts";

/** Index files below this are put together when any is rewritten anyway. */
const fewBlobs = INDEX_TARGET_BLOBS / 10;
/** Entries that are collected at a time: 22 MB. */
const collectBlobs = 500_000;

export interface RewriteOptions {
  /** Packs that must not be listed any more. */
  readonly drop: ReadonlySet<number>;
  /** Packs that no index file lists yet. */
  readonly add: readonly number[];
  /** Takes an old index file away, once what it lists is in a new one. Removes it when absent. */
  readonly retire?: (id: IndexId) => Promise<void>;
  /** Told of each new index file that is durable; must not throw. */
  readonly onSaved?: (id: IndexId) => void;
  readonly signal?: AbortSignal;
}

/** How many index files came and went. */
export interface RewriteReport {
  readonly written: number;
  readonly retired: number;
}

/**
 * Makes the index files list what they should, and the survey with them.
 *
 * @param survey whose places of blobs are those to be written
 * @throws StoreFull, StoreDenied, StoreUnavailable; Cancelled. Whatever was thrown, running it again from a new survey completes it
 */
export async function rewriteIndexes(access: FileAccess, survey: IndexSurvey, options: RewriteOptions): Promise<RewriteReport> {
  const { drop, add } = options;
  const old = chooseIndexes(survey.indexes, options);
  const kept = survey.indexes.filter((index) => !old.has(index));
  const listed = new Set(kept.flatMap(({ packs }) => packs));
  const packs = [...new Set([...old].flatMap((index) => index.packs).concat(add))].filter((pack) => !drop.has(pack) && !listed.has(pack));
  const written = await writeIndexFiles(access, listContents(survey, packs), options);
  const numberOf = (packId: Uint8Array): number => survey.addPack(packId);
  survey.indexes.splice(0, survey.indexes.length, ...kept);
  for (const { id, packIds, blobs } of written) survey.indexes.push({ id, packs: packIds.map(numberOf), blobs });
  const retired = await retireIndexFiles(
    access,
    Array.from(old, ({ id }) => id),
    options,
  );
  return { written: written.length, retired };
}

/** The index files to replace: those that list what must go, and small ones with them. */
function chooseIndexes(indexes: readonly SurveyedIndex[], { drop, add }: RewriteOptions): Set<SurveyedIndex> {
  const old = new Set(indexes.filter((index) => index.packs.some((pack) => drop.has(pack))));
  if (old.size === 0 && add.length === 0) return old;
  const small = indexes.filter((index) => index.failure === undefined && index.blobs < fewBlobs);
  if (small.length > 1) for (const index of small) old.add(index);
  return old;
}

/** An index file that is durable. */
interface WrittenIndex {
  readonly id: IndexId;
  readonly packIds: readonly Uint8Array[];
  readonly blobs: number;
}

/** Writes index files that list these packs, each as full as it should be. @returns once they are durable */
export async function writeIndexFiles(
  access: FileAccess,
  packs: Iterable<IndexPack>,
  options: Pick<RewriteOptions, "onSaved" | "signal">,
): Promise<readonly WrittenIndex[]> {
  const { onSaved, signal } = options;
  const written: WrittenIndex[] = [];
  const save = async (contents: readonly IndexPack[], stop: AbortSignal): Promise<WrittenIndex> => {
    const json = encodeIndex(contents);
    const id = await saveFile(access, { kind: "index", json }, stop);
    releaseMemory(json);
    onSaved?.(id);
    return { id, packIds: contents.map(({ packId }) => packId), blobs: contents.reduce((sum, pack) => sum + countEntries(pack), 0) };
  };
  for await (const index of mapOrdered(splitFull(packs), { limit: 1, ...(signal && { signal }) }, save)) written.push(index);
  return written;
}

/** Takes index files away whose contents are in others that are durable. @returns how many */
export async function retireIndexFiles(
  access: FileAccess,
  ids: readonly IndexId[],
  options: Pick<RewriteOptions, "retire" | "signal">,
): Promise<number> {
  const { signal } = options;
  const retire = options.retire ?? ((id: IndexId): Promise<void> => access.store.remove({ kind: "index", name: id }, signal));
  const retiring = mapOrdered(ids, { limit: access.store.concurrency, ...(signal && { signal }) }, async (id) => {
    await retire(id);
    return 1;
  });
  let retired = 0;
  for await (const count of retiring) retired += count;
  return retired;
}

function countEntries({ entries }: IndexPack): number {
  return entries.length / INDEX_ENTRY_BYTES;
}

function* splitFull(packs: Iterable<IndexPack>): Generator<readonly IndexPack[]> {
  let contents: IndexPack[] = [];
  let blobs = 0;
  for (const pack of packs) {
    contents.push(pack);
    blobs += countEntries(pack);
    if (blobs < INDEX_TARGET_BLOBS) continue;
    yield contents;
    contents = [];
    blobs = 0;
  }
  if (contents.length > 0) yield contents;
}

/** What index files say of these packs of a survey: all copies of blobs that are in them. */
export function* listContents(survey: IndexSurvey, packs: readonly number[]): Generator<IndexPack> {
  for (const group of groupPacks(survey, packs)) {
    for (const [pack, words] of survey.collectBlobs(group)) {
      const { blobs } = survey.packs[pack] ?? { blobs: 0 };
      if (words.length !== blobs * BLOB_WORDS)
        throw new Failure("Bug", `Pack "${survey.packIdOf(pack)}" has fewer blobs than were counted`);
      yield { packId: Uint8Array.from(survey.data.packId(pack)), entries: packEntries(survey, words) };
    }
  }
}

function* groupPacks(survey: IndexSurvey, packs: readonly number[]): Generator<number[]> {
  let group: number[] = [];
  let blobs = 0;
  for (const pack of packs) {
    group.push(pack);
    blobs += survey.packs[pack]?.blobs ?? 0;
    if (blobs < collectBlobs) continue;
    yield group;
    group = [];
    blobs = 0;
  }
  if (group.length > 0) yield group;
}

/** The packed entries of these blobs. @param words as {@link IndexSurvey.collectBlobs} gives them */
function packEntries(survey: IndexSurvey, words: Uint32Array): Uint8Array {
  const packed = new Uint8Array((words.length / BLOB_WORDS) * INDEX_ENTRY_BYTES);
  let at = 0;
  for (let word = 0; word < words.length; word += BLOB_WORDS) {
    const blob = words[word] ?? 0;
    at = writeIndexEntry(packed, at, {
      type: (blob & 1) === 1 ? "tree" : "data",
      id: survey.idOf(blob),
      offsetBytes: words[word + 1] ?? 0,
      sealedBytes: words[word + 2] ?? 0,
      plainBytes: words[word + 3] ?? 0,
    });
  }
  return packed;
}
