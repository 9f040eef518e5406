/**
 * Counts of a restore under way, in shared memory: each worker adds to a row of its own, the main thread sums them whenever it likes, and no
 * message is needed.
 */

const names = [
  // the plan as it grows
  "files",
  "bytes",
  "skipped",
  // what was done
  "directoriesDone",
  "filesDone",
  "linksDone",
  "othersDone",
  "bytesDone",
  "bytesWritten",
  "extrasRemoved",
  "filesVerified",
  "bytesVerified",
  // trouble
  "failed",
  "lost",
  "ownersRefused",
  "attributesRefused",
] as const;

/** What is counted. */
export type RestoreCounter = (typeof names)[number];
/** A reading of all counters. */
export type RestoreCounts = Readonly<Record<RestoreCounter, number>>;

const rowLength = 32; // whole cache lines, so that workers do not share one

export class Counters {
  readonly shared: SharedArrayBuffer;
  readonly #rows: Float64Array;
  readonly #row: number;

  /** @param row which `add` writes; one a thread */
  constructor(shared: SharedArrayBuffer, row: number) {
    this.shared = shared;
    this.#rows = new Float64Array(shared);
    this.#row = row * rowLength;
  }

  static create(rows: number): Counters {
    return new Counters(new SharedArrayBuffer(rows * rowLength * 8), 0);
  }

  add(counter: number, amount: number): void {
    this.#rows[this.#row + counter] = (this.#rows[this.#row + counter] ?? 0) + amount;
  }

  sum(): RestoreCounts {
    const counts = Object.fromEntries(names.map((name) => [name, 0])) as Record<RestoreCounter, number>; // every name is set
    for (let row = 0; row < this.#rows.length; row += rowLength) {
      names.forEach((name, at) => {
        counts[name] += this.#rows[row + at] ?? 0;
      });
    }
    return counts;
  }
}

/** The numbers by which threads count. */
export const counter: Readonly<Record<RestoreCounter, number>> = Object.fromEntries(names.map((name, at) => [name, at])) as Record<
  RestoreCounter,
  number
>; // every name is set
