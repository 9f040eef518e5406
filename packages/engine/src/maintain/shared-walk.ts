/**
 * The shared memory of a walk over all trees of a repository by several workers: what was seen, what is still to do, and who led there.
 *
 * Each tree is on the stack once at most, so the stack is as large as the index has trees. One spin lock guards it; a tree takes tens of
 * microseconds, the lock is held for less than one. The walk is over when nothing is on the stack and nobody has a tree in hand.
 *
 * Memory: 8 bytes and a bit a tree, a bit for each data blob.
 */

/** What another thread needs to take part. */
export interface SharedWalkHandle {
  readonly control: SharedArrayBuffer;
  readonly stack: SharedArrayBuffer;
  readonly parents: SharedArrayBuffer;
  readonly seenTrees: SharedArrayBuffer;
  readonly seenData: SharedArrayBuffer;
}

const lock = 0;
const depth = 1; // trees on the stack
const open = 2; // trees on the stack or in hand
const stopped = 3;
const changes = 4; // what idle workers sleep on
const treesDone = 5;
const blobsSeen = 6;
const controlWords = 16;

export class SharedWalk {
  readonly handle: SharedWalkHandle;
  readonly #control: Int32Array;
  readonly #stack: Int32Array;
  readonly #parents: Int32Array;
  readonly #seenTrees: Int32Array;
  readonly #seenData: Int32Array;

  private constructor(handle: SharedWalkHandle) {
    this.handle = handle;
    this.#control = new Int32Array(handle.control);
    this.#stack = new Int32Array(handle.stack);
    this.#parents = new Int32Array(handle.parents);
    this.#seenTrees = new Int32Array(handle.seenTrees);
    this.#seenData = new Int32Array(handle.seenData);
  }

  /** @param trees entries of the index of trees @param data entries of the index of data */
  static create(trees: number, data: number): SharedWalk {
    return new SharedWalk({
      control: new SharedArrayBuffer(controlWords * 4),
      stack: new SharedArrayBuffer(Math.max(1, trees) * 4),
      parents: new SharedArrayBuffer(Math.max(1, trees) * 4),
      seenTrees: new SharedArrayBuffer(((trees >>> 5) + 1) * 4),
      seenData: new SharedArrayBuffer(((data >>> 5) + 1) * 4),
    });
  }

  static attach(handle: SharedWalkHandle): SharedWalk {
    return new SharedWalk(handle);
  }

  get treesDone(): number {
    return Atomics.load(this.#control, treesDone);
  }

  get blobsSeen(): number {
    return Atomics.load(this.#control, blobsSeen);
  }

  /** Adds a data blob to those seen. @returns whether it is the first time */
  seeData(entry: number): boolean {
    const isNew = see(this.#seenData, entry);
    if (isNew) Atomics.add(this.#control, blobsSeen, 1);
    return isNew;
  }

  hasSeenData(entry: number): boolean {
    return hasSeen(this.#seenData, entry);
  }

  /**
   * Adds a tree to those seen, and puts it on the stack when it was not seen before.
   *
   * @param parent the tree that names it, or -1 - (number of the snapshot whose root it is)
   */
  seeTree(entry: number, parent: number): void {
    if (!see(this.#seenTrees, entry)) return;
    this.#parents[entry] = parent;
    this.putBack(entry);
  }

  /** Puts a tree on the stack that was taken and finished before, to be read again. */
  putBack(entry: number): void {
    this.#enter();
    this.#stack[Atomics.add(this.#control, depth, 1)] = entry;
    Atomics.add(this.#control, open, 1);
    this.#leave();
    this.#wake(1);
  }

  hasSeenTree(entry: number): boolean {
    return hasSeen(this.#seenTrees, entry);
  }

  /** Which tree named this one first, as given to {@link seeTree}. */
  parentOf(entry: number): number {
    return this.#parents[entry] ?? -1;
  }

  /** Takes a tree, sleeping until there is one. Not for the main thread. @returns its entry, or -1 when the walk is over or stopped */
  take(): number {
    for (;;) {
      const change = Atomics.load(this.#control, changes);
      if (Atomics.load(this.#control, stopped) !== 0) return -1;
      this.#enter();
      const top = Atomics.load(this.#control, depth) - 1;
      const entry = top < 0 ? -1 : (this.#stack[top] ?? -1);
      if (top >= 0) Atomics.store(this.#control, depth, top);
      this.#leave();
      if (entry >= 0) return entry;
      if (Atomics.load(this.#control, open) === 0) return -1;
      Atomics.wait(this.#control, changes, change);
    }
  }

  /** Says that a tree that was taken, and all it named, has been seen. */
  finish(): void {
    Atomics.add(this.#control, treesDone, 1);
    if (Atomics.sub(this.#control, open, 1) === 1) this.#wake(Number.POSITIVE_INFINITY);
  }

  /** Ends the walk early. */
  stop(): void {
    Atomics.store(this.#control, stopped, 1);
    this.#wake(Number.POSITIVE_INFINITY);
  }

  #wake(sleepers: number): void {
    Atomics.add(this.#control, changes, 1);
    Atomics.notify(this.#control, changes, sleepers);
  }

  #enter(): void {
    while (Atomics.compareExchange(this.#control, lock, 0, 1) !== 0) {
      // Another worker moves one entry: a few nanoseconds.
    }
  }

  #leave(): void {
    Atomics.store(this.#control, lock, 0);
  }
}

function see(bits: Int32Array, entry: number): boolean {
  const bit = 1 << (entry & 31);
  const word = entry >>> 5;
  if (((bits[word] ?? 0) & bit) !== 0) return false;
  return (Atomics.or(bits, word, bit) & bit) === 0;
}

function hasSeen(bits: Int32Array, entry: number): boolean {
  return ((bits[entry >>> 5] ?? 0) & (1 << (entry & 31))) !== 0;
}
