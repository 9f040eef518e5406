/**
 * Counts of a backup under way, in shared memory: each worker adds to a row of its own, the main thread sums them whenever it likes, and no
 * message is needed.
 */

const names = [
  "filesNew",
  "filesChanged",
  "filesUnmodified",
  "dirsNew",
  "dirsChanged",
  "dirsUnmodified",
  "dataBlobs",
  "treeBlobs",
  "dataAddedBytes",
  "dataAddedPackedBytes",
  "bytesProcessed",
  "troubles",
] as const;

/** What is counted. Blobs are those that were new; `dataAdded…` covers data and trees, before and after compression and sealing. */
export type BackupCounter = (typeof names)[number];
/** A reading of all counters. */
export type BackupCounts = Readonly<Record<BackupCounter, number>>;

const rowLength = 16; // two cache lines, so that workers do not share one

export class Counters {
  readonly shared: SharedArrayBuffer;
  readonly #rows: Float64Array;
  readonly #row: number;

  /** @param worker whose row `add` writes */
  constructor(shared: SharedArrayBuffer, worker = 0) {
    this.shared = shared;
    this.#rows = new Float64Array(shared);
    this.#row = worker * rowLength;
  }

  static create(workers: number): Counters {
    return new Counters(new SharedArrayBuffer(workers * rowLength * 8));
  }

  add(counter: number, amount: number): void {
    this.#rows[this.#row + counter] = (this.#rows[this.#row + counter] ?? 0) + amount;
  }

  sum(): BackupCounts {
    const counts = Object.fromEntries(names.map((name) => [name, 0])) as Record<BackupCounter, number>; // every name is set
    for (let row = 0; row < this.#rows.length; row += rowLength) {
      names.forEach((name, at) => {
        counts[name] += this.#rows[row + at] ?? 0;
      });
    }
    return counts;
  }
}

/** The numbers by which workers count. */
export const counter: Readonly<Record<BackupCounter, number>> = Object.fromEntries(names.map((name, at) => [name, at])) as Record<
  BackupCounter,
  number
>; // every name is set
