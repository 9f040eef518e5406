/** A few words that all threads of a restore share. */

/** What about the target makes new files differ from what the process asked for. */
export const quirk = {
  /** New files get another owner or group than the process has. */
  foreignOwners: 1,
  /** New files get access lists of the folder they are made in. */
  inheritedLists: 2,
} as const;

const words = { root: 0, hunger: 1, quirks: 2, stop: 3, closed: 4 } as const;

export class SharedState {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(64)) {
    this.shared = shared;
    this.#words = new Int32Array(shared);
  }

  /** The handle of the target folder, which the main thread owns; 0 while there is none. */
  get root(): number {
    return Atomics.load(this.#words, words.root);
  }

  set root(handle: number) {
    Atomics.store(this.#words, words.root, handle);
  }

  /** How many workers have nothing to do. */
  get hunger(): number {
    return this.#words[words.hunger] ?? 0;
  }

  set hunger(workers: number) {
    Atomics.store(this.#words, words.hunger, workers);
  }

  /** Takes on feeding one idle worker. @returns false when another thread was quicker */
  claimHungry(): boolean {
    if (Atomics.sub(this.#words, words.hunger, 1) > 0) return true;
    Atomics.add(this.#words, words.hunger, 1);
    return false;
  }

  /** Whether workers should leave what they are at, as soon as files can be closed. */
  get isStopping(): boolean {
    return this.#words[words.stop] === 1;
  }

  stop(): void {
    Atomics.store(this.#words, words.stop, 1);
  }

  /** A worker has closed all it had open. */
  noteClosed(): void {
    Atomics.add(this.#words, words.closed, 1);
    Atomics.notify(this.#words, words.closed);
  }

  /** Waits until so many workers have closed what they had open, or none does so for `patienceMs`. */
  async whenClosed(workers: number, patienceMs: number): Promise<void> {
    for (;;) {
      const closed = Atomics.load(this.#words, words.closed);
      if (closed >= workers) return;
      const { value } = Atomics.waitAsync(this.#words, words.closed, closed, patienceMs);
      if ((await value) === "timed-out") return;
    }
  }

  hasQuirk(value: number): boolean {
    return ((this.#words[words.quirks] ?? 0) & value) !== 0;
  }

  addQuirk(value: number): void {
    Atomics.or(this.#words, words.quirks, value);
  }
}
