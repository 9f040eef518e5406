/**
 * All that the index files say, nothing left out: which blobs lie where, in how many copies, which file says so, and whether what is said of
 * a pack can be true. For those who judge or change a repository; who only looks blobs up loads the plain index.
 *
 * Data and trees have an index each, so that one id that names both (a file may hold the very bytes of a directory) is two blobs.
 *
 * Memory: about 57 bytes a blob, some 200 more for each further copy, about 250 a pack. The tables are shared with workers through `handle`.
 */
import { Failure } from "@granary/base/errors";
import { hexOf, type IndexId, parsePackId } from "../format/ids.ts";
import type { IndexBlob } from "../format/index-file.ts";
import { HEADER_LENGTH_BYTES, headerEntryBytes, parseHeader, SEAL_BYTES } from "../format/pack.ts";
import { BlobIndex, type BlobIndexHandle, type BlobPlace } from "../repository/blob-index.ts";
import type { FileAccess } from "../repository/files.ts";
import { type AllIndexesVisitor, type LoadIndexOptions, scanAllIndexes } from "../repository/index-load.ts";

/** A blob of a survey: twice its entry's number, plus 1 for a tree. */
export type BlobNumber = number;

/** Words that a blob takes in what {@link IndexSurvey.collectBlobs} answers. */
export const BLOB_WORDS = 4;

/** What another thread needs to read a survey that is complete. */
export interface IndexSurveyHandle {
  readonly data: BlobIndexHandle;
  readonly trees: BlobIndexHandle;
}

/** One more copy of a blob whose first copy is in the index. */
export interface BlobCopy {
  readonly blob: BlobNumber;
  readonly place: BlobPlace;
}

interface MovableCopy extends BlobCopy {
  place: BlobPlace;
}

/** What is said of one pack. */
export interface SurveyedPack {
  /** Blobs that the index files list in it, each once. */
  blobs: number;
  /** Bytes the listed blobs take in it, seals included. */
  blobBytes: number;
  /** Bytes the whole pack must have: blobs, header, and the header's length. */
  expectedBytes: number;
  hasData: boolean;
  hasTrees: boolean;
  /** Some of its blobs are stored as they are. */
  hasUncompressed: boolean;
  /** Why what is listed cannot be true, or "". */
  fault: string;
}

/** An index file and what it lists. */
export interface SurveyedIndex {
  readonly id: IndexId;
  /** Numbers of its packs. */
  readonly packs: readonly number[];
  readonly blobs: number;
  /** Why it could not be read to its end. */
  readonly failure?: Failure;
}

export interface SurveyOptions extends Pick<LoadIndexOptions, "onProgress" | "signal"> {
  /** An empty one to fill, for who has given it to workers already. */
  readonly survey?: IndexSurvey;
}

/**
 * Reads all index files of a repository. List snapshots before, so that all their blobs are found, and packs after, so that all that are
 * listed are seen.
 *
 * @throws StoreDenied, StoreUnavailable; Cancelled. What is wrong with a file is in the survey
 */
export async function surveyIndexes(access: FileAccess, options: SurveyOptions = {}): Promise<IndexSurvey> {
  const { survey = new IndexSurvey() } = options;
  await scanAllIndexes(access, survey, { ...options, onDamaged: (id, failure) => survey.damaged(id, failure) });
  survey.endFile();
  return survey;
}

/** As a visitor, it is told of each index file, its packs and their blobs. */
export class IndexSurvey implements AllIndexesVisitor {
  readonly data: BlobIndex;
  readonly trees: BlobIndex;
  readonly #copies: MovableCopy[] = [];
  readonly packs: SurveyedPack[] = [];
  readonly indexes: SurveyedIndex[] = [];
  readonly #numbers = new Map<string, number>();
  #file: { id: IndexId; packs: number[]; blobs: number; failure?: Failure } | undefined;
  #listing: Listing | undefined;
  #copiesOf: Map<BlobNumber, MovableCopy[]> | undefined;

  constructor() {
    this.data = new BlobIndex();
    this.trees = new BlobIndex();
  }

  get handle(): IndexSurveyHandle {
    return { data: this.data.handle, trees: this.trees.handle };
  }

  /** How many blobs there are, copies not counted. */
  get blobs(): number {
    return this.data.size + this.trees.size;
  }

  /** Copies beyond the one that `data` or `trees` has the place of. */
  get copies(): readonly BlobCopy[] {
    return this.#copies;
  }

  /** The number of a pack, or `undefined` when no index file lists it. */
  findPack(packId: string): number | undefined {
    return this.#numbers.get(packId);
  }

  packIdOf(pack: number): string {
    return hexOf(this.data.packId(pack));
  }

  /** The blob's id, 32 bytes; a view. */
  idOf(blob: BlobNumber): Uint8Array {
    return (blob & 1) === 1 ? this.trees.idOf(blob >>> 1) : this.data.idOf(blob >>> 1);
  }

  /** Where the blob's first copy is. @throws Bug when there is no such blob */
  placeOf(blob: BlobNumber): BlobPlace {
    const place = (blob & 1) === 1 ? this.trees.placeOf(blob >>> 1) : this.data.placeOf(blob >>> 1);
    if (place === undefined) throw new Failure("Bug", `Blob ${blob} of the survey has no place`);
    return place;
  }

  /** The pack's number, and a new one when it is not known yet. */
  addPack(packId: Uint8Array): number {
    const name = hexOf(packId);
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const number = this.data.addPack(packId);
    if (this.trees.addPack(packId) !== number) throw new Failure("Bug", "The two indexes of a survey number packs differently");
    this.#numbers.set(name, number);
    this.packs.push({ blobs: 0, blobBytes: 0, expectedBytes: 0, hasData: false, hasTrees: false, hasUncompressed: false, fault: "" });
    return number;
  }

  /**
   * Takes in a new pack with copies of blobs that the survey knows; they become the first copies, and where those were is forgotten.
   *
   * @returns its number
   */
  adopt(finished: { readonly id: Uint8Array; readonly sizeBytes: number; readonly header: Uint8Array }): number {
    const { id, sizeBytes, header } = finished;
    const pack = this.addPack(id);
    const known = this.packs[pack];
    if (known === undefined) throw new Failure("Bug", `Pack ${pack} was added to the survey and is not there`);
    known.expectedBytes = sizeBytes;
    for (const entry of parseHeader(header, { id: parsePackId(hexOf(id)), sizeBytes }).entries()) {
      const isTree = entry.type === "tree";
      const number = (isTree ? this.trees : this.data).find(entry.id);
      if (number < 0) throw new Failure("Bug", `Pack "${hexOf(id)}" has a blob that the survey does not know`);
      this.setPlace(number * 2 + (isTree ? 1 : 0), { ...entry, pack, isTree });
      known.blobs++;
      known.blobBytes += entry.sealedBytes;
    }
    return pack;
  }

  /** An index file begins. */
  file(id: IndexId): void {
    this.endFile();
    this.#file = { id, packs: [], blobs: 0 };
  }

  /** A pack of the file begins. */
  pack(packId: Uint8Array): void {
    this.#closeListing();
    const pack = this.addPack(packId);
    this.#file?.packs.push(pack);
    this.#listing = new Listing(pack, (this.packs[pack]?.blobs ?? 0) > 0);
  }

  /** A blob of the pack. */
  blob(blob: IndexBlob): void {
    if (this.#file !== undefined) this.#file.blobs++;
    if (this.#listing !== undefined) this.#addBlob(this.#listing, blob);
  }

  /** The file that began last is damaged, or one that cannot be read at all. */
  damaged(id: IndexId, failure: Failure): void {
    if (this.#file?.id !== id) this.file(id);
    if (this.#file !== undefined) this.#file.failure = failure;
    this.endFile();
  }

  /** No more of the file comes. */
  endFile(): void {
    this.#closeListing();
    if (this.#file !== undefined) this.indexes.push(this.#file);
    this.#file = undefined;
  }

  #addBlob(listing: Listing, found: IndexBlob): void {
    listing.add(found);
    const { pack } = listing;
    const { isTree, offsetBytes, sealedBytes, plainBytes } = found;
    const place: BlobPlace = { pack, isTree, offsetBytes, sealedBytes, plainBytes };
    const index = isTree ? this.trees : this.data;
    if (!index.add(found.id, 0, place)) {
      const blob = index.find(found.id) * 2 + (isTree ? 1 : 0);
      if (isSamePlace(this.placeOf(blob), place)) return;
      if (listing.isRepeated && this.findCopies(blob).some((copy) => isSamePlace(copy.place, place))) return;
      this.#addCopy({ blob, place });
    }
    listing.newBlobs++;
    const known = this.packs[pack];
    if (known === undefined) return;
    known.blobs++;
    known.blobBytes += sealedBytes;
    if (isTree) known.hasTrees = true;
    else known.hasData = true;
    if (plainBytes === 0) known.hasUncompressed = true;
  }

  /** The copies of a blob beyond the first. */
  findCopies(blob: BlobNumber): readonly BlobCopy[] {
    if (this.#copiesOf === undefined) {
      this.#copiesOf = new Map();
      for (const copy of this.#copies) append(this.#copiesOf, copy);
    }
    return this.#copiesOf.get(blob) ?? [];
  }

  /**
   * Lets `better` choose which copy of each blob is the first, to be read and kept. Blobs with one copy are not asked about.
   *
   * @param better whether the second place is better than the first
   */
  chooseFirst(better: (first: BlobPlace, second: BlobPlace) => boolean): void {
    for (const copy of this.#copies) {
      const first = this.placeOf(copy.blob);
      if (!better(first, copy.place)) continue;
      this.setPlace(copy.blob, copy.place);
      copy.place = first;
    }
  }

  /** Visits every blob with the place of its first copy. */
  forEachBlob(visit: (blob: BlobNumber, place: BlobPlace) => void): void {
    for (const [index, bit] of [
      [this.data, 0],
      [this.trees, 1],
    ] as const) {
      for (let entry = 0; entry < index.size; entry++) {
        const place = index.placeOf(entry);
        if (place !== undefined) visit(entry * 2 + bit, place);
      }
    }
  }

  /** Visits every copy of every blob with its place. */
  forEachPlace(visit: (blob: BlobNumber, place: BlobPlace) => void): void {
    this.forEachBlob(visit);
    for (const { blob, place } of this.#copies) visit(blob, place);
  }

  /**
   * The blobs of these packs, packed: {@link BLOB_WORDS} words each, blob number, offset, sealed bytes, plain bytes, in the order of their
   * offsets.
   *
   * @param isWanted of blobs of which only the first copy counts; all copies of all blobs when absent
   */
  collectBlobs(packs: Iterable<number>, isWanted?: (blob: BlobNumber) => boolean): Map<number, Uint32Array> {
    const found = new Map<number, { readonly words: Uint32Array; length: number }>();
    for (const pack of packs) found.set(pack, { words: new Uint32Array((this.packs[pack]?.blobs ?? 0) * BLOB_WORDS), length: 0 });
    const visit = (blob: BlobNumber, place: BlobPlace): void => {
      const list = found.get(place.pack);
      if (list === undefined || isWanted?.(blob) === false) return;
      if (list.length === list.words.length)
        throw new Failure("Bug", `Pack "${this.packIdOf(place.pack)}" has more blobs than were counted`);
      list.words[list.length] = blob;
      list.words[list.length + 1] = place.offsetBytes;
      list.words[list.length + 2] = place.sealedBytes;
      list.words[list.length + 3] = place.plainBytes;
      list.length += BLOB_WORDS;
    };
    if (isWanted === undefined) this.forEachPlace(visit);
    else this.forEachBlob(visit);
    return new Map(Array.from(found, ([pack, { words, length }]) => [pack, sortByOffset(words.subarray(0, length))]));
  }

  /** Makes the copy with this number, as of {@link findCopies}, the first of its blob. @returns whether there is one */
  swapFirst(blob: BlobNumber, number: number): boolean {
    this.findCopies(blob);
    const copy = this.#copiesOf?.get(blob)?.[number];
    if (copy === undefined) return false;
    const first = this.placeOf(blob);
    this.setPlace(blob, copy.place);
    copy.place = first;
    return true;
  }

  /** Says that the first copy of a blob is there; where it was is forgotten. */
  setPlace(blob: BlobNumber, place: BlobPlace): void {
    (place.isTree ? this.trees : this.data).place(blob >>> 1, place);
  }

  #addCopy(copy: MovableCopy): void {
    this.#copies.push(copy);
    if (this.#copiesOf !== undefined) append(this.#copiesOf, copy);
  }

  #closeListing(): void {
    const listing = this.#listing;
    this.#listing = undefined;
    const known = listing === undefined ? undefined : this.packs[listing.pack];
    if (listing === undefined || known === undefined) return;
    if (!listing.isRepeated) {
      known.expectedBytes = listing.expectedBytes;
      known.fault = listing.findFault();
    } else if (known.fault === "" && (listing.newBlobs > 0 || listing.blobs !== known.blobs)) {
      known.fault = "index files list different blobs for it";
    }
  }
}

/** What one index file says of one pack, while it is read. */
class Listing {
  readonly pack: number;
  /** The pack was listed before. */
  readonly isRepeated: boolean;
  blobs = 0;
  newBlobs = 0;
  expectedBytes: number = SEAL_BYTES + HEADER_LENGTH_BYTES;
  #endBytes = 0;
  #isInOrder = true;
  readonly #spans: number[] = [];

  constructor(pack: number, isRepeated: boolean) {
    this.pack = pack;
    this.isRepeated = isRepeated;
  }

  add(blob: IndexBlob): void {
    this.blobs++;
    this.expectedBytes += blob.sealedBytes + headerEntryBytes(blob.plainBytes);
    if (blob.offsetBytes !== this.#endBytes) this.#isInOrder = false;
    this.#endBytes = blob.offsetBytes + blob.sealedBytes;
    this.#spans.push(blob.offsetBytes, blob.sealedBytes);
  }

  /** Blobs lie back to back from the beginning of a pack, whatever order they are listed in. */
  findFault(): string {
    if (this.#isInOrder) return "";
    const spans = Array.from({ length: this.blobs }, (_, i): [number, number] => [this.#spans[i * 2] ?? 0, this.#spans[i * 2 + 1] ?? 0]);
    spans.sort(([a], [b]) => a - b);
    let endBytes = 0;
    for (const [offsetBytes, sizeBytes] of spans) {
      if (offsetBytes !== endBytes) return `a blob is listed at byte ${offsetBytes}, but the one before it ends at ${endBytes}`;
      endBytes = offsetBytes + sizeBytes;
    }
    return "";
  }
}

function sortByOffset(words: Uint32Array): Uint32Array {
  const offsetOf = (i: number): number => words[i * BLOB_WORDS + 1] ?? 0;
  const order = Uint32Array.from({ length: words.length / BLOB_WORDS }, (_, i) => i);
  if (order.every((i) => i === 0 || offsetOf(i - 1) <= offsetOf(i))) return words;
  order.sort((a, b) => offsetOf(a) - offsetOf(b));
  const sorted = new Uint32Array(words.length);
  order.forEach((from, to) => sorted.set(words.subarray(from * BLOB_WORDS, (from + 1) * BLOB_WORDS), to * BLOB_WORDS));
  return sorted;
}

function append(copies: Map<BlobNumber, MovableCopy[]>, copy: MovableCopy): void {
  const known = copies.get(copy.blob);
  if (known === undefined) copies.set(copy.blob, [copy]);
  else known.push(copy);
}

function isSamePlace(a: BlobPlace, b: BlobPlace): boolean {
  return a.pack === b.pack && a.offsetBytes === b.offsetBytes && a.sealedBytes === b.sealedBytes && a.plainBytes === b.plainBytes;
}
