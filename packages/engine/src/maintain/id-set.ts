/** Sets of ids that stay small when they grow large: no strings, no objects. */
import { ID_BYTES } from "../format/ids.ts";
import type { BlobIndex } from "../repository/blob-index.ts";

/**
 * A set of 32-byte hashes, at about 50 bytes each: open addressing, at most 0.7 full. The hashes must be evenly spread, as SHA-256 is.
 */
export class IdSet {
  #keys = new Uint8Array(64 * ID_BYTES);
  #isUsed = new Uint8Array(64);
  #size = 0;

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** Adds the 32 bytes of `id`. @returns whether it was new */
  add(id: Uint8Array): boolean {
    const slot = this.#findSlot(id);
    if (this.#isUsed[slot] === 1) return false;
    this.#isUsed[slot] = 1;
    this.#keys.set(id, slot * ID_BYTES);
    this.#size++;
    if (this.#size > this.#isUsed.length * 0.7) this.#grow();
    return true;
  }

  /** Whether the 32 bytes of `id` were added. */
  has(id: Uint8Array): boolean {
    return this.#isUsed[this.#findSlot(id)] === 1;
  }

  #findSlot(id: Uint8Array): number {
    const mask = this.#isUsed.length - 1;
    let slot = (((id[0] ?? 0) | ((id[1] ?? 0) << 8) | ((id[2] ?? 0) << 16) | ((id[3] ?? 0) << 24)) >>> 0) & mask;
    while (this.#isUsed[slot] === 1 && !this.#holds(slot, id)) slot = (slot + 1) & mask;
    return slot;
  }

  #holds(slot: number, id: Uint8Array): boolean {
    const at = slot * ID_BYTES;
    for (let i = 0; i < ID_BYTES; i++) if (this.#keys[at + i] !== id[i]) return false;
    return true;
  }

  #grow(): void {
    const keys = this.#keys;
    const isUsed = this.#isUsed;
    this.#keys = new Uint8Array(keys.length * 2);
    this.#isUsed = new Uint8Array(isUsed.length * 2);
    for (let slot = 0; slot < isUsed.length; slot++) {
      if (isUsed[slot] !== 1) continue;
      const id = keys.subarray(slot * ID_BYTES, (slot + 1) * ID_BYTES);
      const to = this.#findSlot(id);
      this.#isUsed[to] = 1;
      this.#keys.set(id, to * ID_BYTES);
    }
  }
}

/** A set of blobs that an index knows: one bit a blob of the index, whatever the set holds. */
export class BlobSet {
  readonly #index: BlobIndex;
  #bits: Uint32Array;

  constructor(index: BlobIndex) {
    this.#index = index;
    this.#bits = new Uint32Array((index.size >>> 5) + 1);
  }

  /** Adds a blob. @returns 1 when it is new to the set, 0 when it was there, -1 when the index does not know it */
  add(id: Uint8Array, at = 0): 1 | 0 | -1 {
    const entry = this.#index.find(id, at);
    if (entry < 0) return -1;
    const word = entry >>> 5;
    if (word >= this.#bits.length) this.#grow(word);
    const bit = 1 << (entry & 31);
    if (((this.#bits[word] ?? 0) & bit) !== 0) return 0;
    this.#bits[word] = (this.#bits[word] ?? 0) | bit;
    return 1;
  }

  has(id: Uint8Array, at = 0): boolean {
    const entry = this.#index.find(id, at);
    return entry >= 0 && this.hasEntry(entry);
  }

  /** As {@link has}, by the number of the index entry. */
  hasEntry(entry: number): boolean {
    return ((this.#bits[entry >>> 5] ?? 0) & (1 << (entry & 31))) !== 0;
  }

  /** Whether `other`, a set of the same index, has all that this one has. */
  isSubsetOf(other: BlobSet): boolean {
    return this.#bits.every((bits, word) => (bits & ~(other.#bits[word] ?? 0)) === 0);
  }

  /** The numbers of the index entries of all blobs of the set, ascending. */
  *entries(): Generator<number, void, undefined> {
    for (let word = 0; word < this.#bits.length; word++) {
      for (let bits = this.#bits[word] ?? 0; bits !== 0; bits &= bits - 1) yield word * 32 + 31 - Math.clz32(bits & -bits);
    }
  }

  #grow(word: number): void {
    const bits = new Uint32Array(Math.max(word + 1, this.#bits.length * 2));
    bits.set(this.#bits);
    this.#bits = bits;
  }
}
