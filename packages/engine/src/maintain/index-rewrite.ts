/**
 * Replaces index files: writes new ones, which must be durable, and only then takes the old ones away. Killed at any point, the repository
 * has every blob in at least one index file, and none in a pack that is gone.
 */
import { Failure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { bytesOfId, type IndexId, parsePackId } from "../format/ids.ts";
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
  /** Replaces these index files whatever they list; damaged ones stay otherwise. */
  readonly replace?: (index: SurveyedIndex) => boolean;
  /** Takes an old index file away, once what it lists is in a new one. Removes it when absent. */
  readonly retire?: (id: IndexId) => Promise<void>;
  /** Told of each new index file that is durable; must not throw. */
  readonly onSaved?: (id: IndexId) => void;
  readonly signal?: AbortSignal;
}

/**
 * Makes the index files list what they should, and the survey with them.
 *
 * @param survey whose places of blobs are those to be written
 * @returns how many index files were written and taken away
 * @throws StoreFull, StoreDenied, StoreUnavailable; Cancelled. Whatever was thrown, running it again from a new survey completes it
 */
export async function rewriteIndexes(
  access: FileAccess,
  survey: IndexSurvey,
  options: RewriteOptions,
): Promise<{ readonly written: number; readonly retired: number }> {
  const { drop, add, signal } = options;
  const old = chooseIndexes(survey.indexes, options);
  const kept = survey.indexes.filter((index) => !old.has(index));
  const listed = new Set(kept.flatMap(({ packs }) => packs));
  const packs = [...new Set([...old].flatMap((index) => index.packs).concat(add))].filter((pack) => !drop.has(pack) && !listed.has(pack));
  const limit = { limit: 2, ...(signal && { signal }) };
  const written: SurveyedIndex[] = [];
  const save = async (chunk: Chunk, stop: AbortSignal): Promise<SurveyedIndex> => {
    const json = encodeIndex(chunk.contents);
    const id = await saveFile(access, { kind: "index", json }, stop);
    releaseMemory(json);
    options.onSaved?.(id);
    return { id, packs: chunk.packs, blobs: chunk.blobs };
  };
  for await (const index of mapOrdered(collectChunks(survey, packs), limit, save)) written.push(index);
  const isWritten = new Set(written.map(({ id }) => id));
  const retire = options.retire ?? ((id: IndexId): Promise<void> => access.store.remove({ kind: "index", name: id }, signal));
  // The very same content sealed twice has two names, so this can only be a file that was there before; then it is not old.
  const going = [...old].filter(({ id }) => !isWritten.has(id));
  const retiring = mapOrdered(going, { ...limit, limit: access.store.concurrency }, async ({ id }) => {
    await retire(id);
    return 1;
  });
  let retired = 0;
  for await (const count of retiring) retired += count;
  survey.indexes.splice(0, survey.indexes.length, ...kept, ...written);
  return { written: written.length, retired };
}

/** The index files to replace: those that list what must go, and small ones with them. */
function chooseIndexes(indexes: readonly SurveyedIndex[], { drop, add, replace }: RewriteOptions): Set<SurveyedIndex> {
  const old = new Set(indexes.filter((index) => replace?.(index) === true || index.packs.some((pack) => drop.has(pack))));
  if (old.size === 0 && add.length === 0) return old;
  const small = indexes.filter((index) => index.failure === undefined && index.blobs < fewBlobs);
  if (small.length > 1) for (const index of small) old.add(index);
  return old;
}

interface Chunk {
  readonly contents: readonly IndexPack[];
  readonly packs: readonly number[];
  readonly blobs: number;
}

/** The contents of new index files. */
function* collectChunks(survey: IndexSurvey, packs: readonly number[]): Generator<Chunk> {
  let chunk: { contents: IndexPack[]; packs: number[]; blobs: number } = { contents: [], packs: [], blobs: 0 };
  for (const group of groupPacks(survey, packs)) {
    for (const [pack, words] of survey.collectBlobs(group)) {
      const { blobs } = survey.packs[pack] ?? { blobs: 0 };
      if (words.length !== blobs * BLOB_WORDS)
        throw new Failure("Bug", `Pack "${survey.packIdOf(pack)}" has fewer blobs than were counted`);
      const entries = packEntries(survey, words);
      chunk.contents.push({ packId: bytesOfId(parsePackId(survey.packIdOf(pack))), entries });
      chunk.packs.push(pack);
      chunk.blobs += blobs;
      if (chunk.blobs < INDEX_TARGET_BLOBS) continue;
      yield chunk;
      chunk = { contents: [], packs: [], blobs: 0 };
    }
  }
  if (chunk.packs.length > 0) yield chunk;
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
