/**
 * Where every blob is: an index in shared memory, so that a look-up or a claim never crosses a thread.
 *
 * Memory: 48 bytes an entry (id 32, place 16) and 4 bytes a slot at a load of at most 0.7, in segments that double: 54 to 60 bytes a blob.
 * Nothing moves when it grows (the buffers reserve address space and grow in place), so readers need no lock.
 *
 * Concurrency: any thread may look up, add and claim at any time. An entry is written before the slot that publishes it (compare-and-swap),
 * and never changes afterwards, but for its place, which one thread sets. Two threads that add one id at the same moment may, rarely, both
 * succeed while a segment is added; the blob is then stored twice, which the format allows.
 *
 * A claim is a promise to store the blob. When a backup fails it cannot be kept: {@link BlobIndex.dropClaims} then makes the entry as if it
 * were not there, until somebody claims it anew.
 */
import { Failure } from "@granary/base/errors";
import { reserveShared } from "./shared-memory.ts";

/** What another thread needs to use the same index. */
export interface BlobIndexHandle {
  readonly control: SharedArrayBuffer;
  readonly ids: SharedArrayBuffer;
  readonly places: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly packs: SharedArrayBuffer;
}

/** Where a blob is: pack number of this index, span of the sealed blob in the pack, and plain length (0: not compressed). */
export interface BlobPlace {
  readonly pack: number;
  readonly offsetBytes: number;
  readonly sealedBytes: number;
  readonly plainBytes: number;
  readonly isTree: boolean;
}

const entryCount = 0;
const segmentCount = 1;
const packCount = 2;
const claimRound = 3;
const hasStale = 4;
const segmentFill = 8; // 8 .. 8+31: entries in each segment
const firstSegment = 1 << 16;
const growStep = 1 << 20;
const leastBytes = growStep * 16;
/** In place of a pack's number: a claim of round r is -1 - 2r for data, -2 - 2r for trees. This round never comes: nobody relies on the entry. */
const lastRound = 2 ** 30 - 1;
const anyType = -1;

export class BlobIndex {
  readonly handle: BlobIndexHandle;
  readonly #control: Int32Array;
  // Views of a fixed length are several times faster than length-tracking ones; they are renewed when an entry lies beyond them.
  #ids: Int32Array = new Int32Array(0);
  #places: Int32Array = new Int32Array(0);
  #packs: Uint8Array = new Uint8Array(0);
  readonly #segments: Int32Array[] = [];
  readonly #wanted = new Int32Array(8);
  readonly #wantedBytes = new Uint8Array(this.#wanted.buffer);
  #wantedType = anyType;

  /** @param handle of an index made by another thread; without one, a new, empty index is made */
  constructor(handle?: BlobIndexHandle) {
    this.handle = handle ?? createBuffers();
    this.#control = new Int32Array(this.handle.control);
    if (handle === undefined) this.#addSegment(0);
  }

  /** Entries so far, those void after a lost race included; entry numbers are below it. */
  get size(): number {
    return Atomics.load(this.#control, entryCount);
  }

  /** Packs so far; pack numbers are below it. */
  get packs(): number {
    return Atomics.load(this.#control, packCount);
  }

  /** Adds a pack. Adding one twice gives two numbers. @returns its number */
  addPack(id: Uint8Array, at = 0): number {
    const number = Atomics.add(this.#control, packCount, 1);
    ensureLength(this.handle.packs, (number + 1) * 32);
    this.#packsUpTo(number).set(id.subarray(at, at + 32), number * 32);
    return number;
  }

  /** The 32 bytes of a pack's id; a view, valid as long as the index. */
  packId(pack: number): Uint8Array {
    return this.#packsUpTo(pack).subarray(pack * 32, pack * 32 + 32);
  }

  /**
   * The entry of a blob, or -1.
   *
   * @param isTree the type wanted. Without it either will do: what two blobs of one id hold is the same; but a snapshot that refers to a tree
   *   needs it in a pack of trees, and a file its content in packs of data
   */
  find(id: Uint8Array, at = 0, isTree?: boolean): number {
    this.#want(id, at, isTree);
    const entry = this.#find();
    if (entry < 0 || Atomics.load(this.#control, hasStale) === 0 || !this.#isStale(this.#placeWord(entry))) return entry;
    return isTree === undefined ? Math.max(this.find(id, at, false), this.find(id, at, true)) : -1;
  }

  /** Adds a blob that is in a pack. @returns whether it was new; of a blob of one type in several packs the first stays */
  add(id: Uint8Array, at: number, place: BlobPlace): boolean {
    this.#want(id, at, place.isTree);
    return this.#insert(place) >= 0;
  }

  /**
   * Takes a blob on: the one caller that gets `true` must store it; all others may refer to it.
   * It has no place yet.
   */
  claim(id: Uint8Array, at: number, isTree: boolean): boolean {
    this.#want(id, at, isTree);
    return this.#insert() >= 0;
  }

  /** Voids every claim whose blob has no place: what was promised will not be stored. Nobody may be storing blobs meanwhile. */
  dropClaims(): void {
    Atomics.add(this.#control, claimRound, 1);
    Atomics.store(this.#control, hasStale, 1);
  }

  /** Makes as if a blob were not there, because what is at its place is damaged; the next who claims it stores it once more. */
  disown(entry: number): void {
    Atomics.store(this.#placesUpTo(entry), entry * 4, claimWord(lastRound, typeOf(this.#placeWord(entry))));
    Atomics.store(this.#control, hasStale, 1);
  }

  /** Where the blob of an entry is, or `undefined` while it is only claimed. */
  placeOf(entry: number): BlobPlace | undefined {
    const places = this.#placesUpTo(entry);
    const pack = Atomics.load(places, entry * 4);
    if (pack < 0) return undefined;
    return {
      pack: pack >>> 1,
      isTree: (pack & 1) === 1,
      offsetBytes: (places[entry * 4 + 1] ?? 0) >>> 0,
      sealedBytes: (places[entry * 4 + 2] ?? 0) >>> 0,
      plainBytes: (places[entry * 4 + 3] ?? 0) >>> 0,
    };
  }

  /** Gives a claimed blob its place. */
  place(entry: number, place: BlobPlace): void {
    ensureLength(this.handle.places, (entry + 1) * 16);
    const places = this.#placesUpTo(entry);
    const at = entry * 4;
    places[at + 1] = place.offsetBytes;
    places[at + 2] = place.sealedBytes;
    places[at + 3] = place.plainBytes;
    Atomics.store(places, at, place.pack * 2 + (place.isTree ? 1 : 0));
  }

  /** The 32 bytes of an entry's id; a view, valid as long as the index. */
  idOf(entry: number): Uint8Array {
    this.#idsUpTo(entry);
    return new Uint8Array(this.handle.ids, entry * 32, 32);
  }

  #want(id: Uint8Array, at: number, isTree?: boolean): void {
    this.#wantedType = isTree === undefined ? anyType : isTree ? 1 : 0;
    for (let i = 0; i < 32; i++) this.#wantedBytes[i] = id[at + i] ?? 0;
  }

  #find(): number {
    for (let segment = Atomics.load(this.#control, segmentCount) - 1; segment >= 0; segment--) {
      const entry = this.#probe(segment);
      if (entry >= 0) return entry;
    }
    return -1;
  }

  /** Looks for the wanted id in one segment. @returns its entry, or -1 - (index of the free slot) */
  #probe(segment: number): number {
    const slots = this.#segments[segment] ?? this.#openView(segment);
    const mask = slots.length - 1;
    // A plain read may see a slot late: then the id is not found and is stored once more, which is harmless.
    for (let at = (this.#wanted[1] ?? 0) & mask; ; at = (at + 1) & mask) {
      const entry = (slots[at] ?? 0) - 1;
      if (entry < 0) return -1 - at;
      if (this.#isWanted(entry)) return entry;
    }
  }

  #isWanted(entry: number): boolean {
    const ids = this.#idsUpTo(entry);
    const wanted = this.#wanted;
    const at = entry * 8;
    if (ids[at] !== wanted[0]) return false;
    for (let i = 1; i < 8; i++) if (ids[at + i] !== wanted[i]) return false;
    return this.#wantedType === anyType || this.#wantedType === typeOf(this.#placeWord(entry));
  }

  #placeWord(entry: number): number {
    return Atomics.load(this.#placesUpTo(entry), entry * 4);
  }

  /** What stands in place of a pack's number for a blob of the wanted type that was claimed in this round. */
  #claimWord(): number {
    return claimWord(Atomics.load(this.#control, claimRound), this.#wantedType);
  }

  #isStale(placeWord: number): boolean {
    return placeWord < 0 && (-1 - placeWord) >>> 1 !== Atomics.load(this.#control, claimRound);
  }

  /** Takes an entry that nobody relies on. @returns the entry, or -1 when it is relied on, or somebody else was quicker */
  #revive(entry: number, place: BlobPlace | undefined): number {
    const word = this.#placeWord(entry);
    if (!this.#isStale(word)) return -1;
    if (Atomics.compareExchange(this.#placesUpTo(entry), entry * 4, word, this.#claimWord()) !== word) return -1;
    if (place !== undefined) this.place(entry, place);
    return entry;
  }

  /** Adds the wanted id. @returns the new entry, or -1 when the id was there already */
  #insert(place?: BlobPlace): number {
    const known = this.#find();
    if (known >= 0) return Atomics.load(this.#control, hasStale) === 0 ? -1 : this.#revive(known, place);
    const entry = Atomics.add(this.#control, entryCount, 1);
    ensureLength(this.handle.ids, (entry + 1) * 32);
    ensureLength(this.handle.places, (entry + 1) * 16);
    this.#idsUpTo(entry).set(this.#wanted, entry * 8);
    if (place === undefined) this.#placesUpTo(entry)[entry * 4] = this.#claimWord();
    else this.place(entry, place);
    const segment = this.#openSegment();
    for (;;) {
      const free = this.#probe(segment);
      if (free >= 0) {
        this.#placesUpTo(entry)[entry * 4] = claimWord(lastRound, this.#wantedType); // lost the race; the entry stays void
        return -1;
      }
      const slots = this.#segments[segment] ?? this.#openView(segment);
      if (Atomics.compareExchange(slots, -1 - free, 0, entry + 1) === 0) break;
    }
    Atomics.add(this.#control, segmentFill + segment, 1);
    return entry;
  }

  /** The segment that takes new entries; adds one when the last is full to 0.7. */
  #openSegment(): number {
    const last = Atomics.load(this.#control, segmentCount) - 1;
    if (Atomics.load(this.#control, segmentFill + last) < (firstSegment << last) * 0.7) return last;
    this.#addSegment(last + 1);
    return Atomics.load(this.#control, segmentCount) - 1;
  }

  #addSegment(segment: number): void {
    ensureLength(this.handle.slots, ((firstSegment << (segment + 1)) - firstSegment) * 4);
    Atomics.compareExchange(this.#control, segmentCount, segment, segment + 1);
  }

  #openView(segment: number): Int32Array {
    const capacity = firstSegment << segment;
    const view = new Int32Array(this.handle.slots, (capacity - firstSegment) * 4, capacity);
    this.#segments[segment] = view;
    return view;
  }

  #idsUpTo(entry: number): Int32Array {
    if (this.#ids.length < entry * 8 + 8) this.#ids = new Int32Array(this.handle.ids, 0, this.handle.ids.byteLength >>> 2);
    return this.#ids;
  }

  #placesUpTo(entry: number): Int32Array {
    if (this.#places.length < entry * 4 + 4) this.#places = new Int32Array(this.handle.places, 0, this.handle.places.byteLength >>> 2);
    return this.#places;
  }

  #packsUpTo(pack: number): Uint8Array {
    if (this.#packs.length < pack * 32 + 32) this.#packs = new Uint8Array(this.handle.packs, 0, this.handle.packs.byteLength);
    return this.#packs;
  }
}

/** What stands in place of a pack's number for a claim. @param type 1 for trees, 0 for data */
function claimWord(round: number, type: number): number {
  return -1 - 2 * round - type;
}

/** The type of an entry's blob, from its pack's number or its claim. */
function typeOf(placeWord: number): number {
  return placeWord < 0 ? (-1 - placeWord) & 1 : placeWord & 1;
}

function createBuffers(): BlobIndexHandle {
  return {
    control: new SharedArrayBuffer(4 * 64),
    ids: reserveShared(2 ** 34, leastBytes),
    places: reserveShared(2 ** 33, leastBytes),
    slots: reserveShared(2 ** 32, leastBytes),
    packs: reserveShared(2 ** 31, leastBytes),
  };
}

/** Grows a buffer to at least `bytes`; safe when several threads do so at once. */
function ensureLength(buffer: SharedArrayBuffer, bytes: number): void {
  while (buffer.byteLength < bytes) {
    const step = Math.max(65536, Math.min(growStep, buffer.byteLength));
    const next = Math.min(buffer.maxByteLength, Math.ceil(bytes / step) * step);
    if (next < bytes) throw new Failure("Bug", `Cannot grow the blob index beyond ${buffer.maxByteLength} bytes`);
    try {
      buffer.grow(next);
    } catch (error) {
      if (buffer.byteLength < bytes) throw error;
    }
  }
}
