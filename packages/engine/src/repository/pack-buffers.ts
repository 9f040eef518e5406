/**
 * The shared memory in which workers build packs and from which the main thread saves them, so that no pack is ever copied between threads.
 *
 * A fixed number of buffers bounds the memory and the packs under way: a worker that needs one while all are being saved sleeps until one
 * is free. Ownership passes by message: whoever holds the number owns the bytes; `release` ends it.
 */

/** What another thread needs to use the same buffers. */
export interface PackBuffersHandle {
  readonly state: SharedArrayBuffer;
  readonly data: SharedArrayBuffer;
  readonly bufferBytes: number;
}

const pageBytes = 4096;
const free = 0;
const taken = 1;

export class PackBuffers {
  readonly handle: PackBuffersHandle;
  readonly #state: Int32Array; // [0] counts releases, so that sleepers can wait on it; [1..] one word a buffer

  private constructor(handle: PackBuffersHandle) {
    this.handle = handle;
    this.#state = new Int32Array(handle.state);
  }

  /** @param bufferBytes capacity of each; memory is used only where it is written */
  static create(count: number, bufferBytes: number): PackBuffers {
    const whole = Math.ceil(bufferBytes / pageBytes) * pageBytes;
    // With a maximum length the memory begins at a page, so that stores can write from it without a copy (store/direct-write.ts).
    const data = new SharedArrayBuffer(count * whole, { maxByteLength: count * whole });
    return new PackBuffers({ state: new SharedArrayBuffer(4 * (count + 1)), data, bufferBytes: whole });
  }

  static attach(handle: PackBuffersHandle): PackBuffers {
    return new PackBuffers(handle);
  }

  /** Takes a free buffer, sleeping until there is one. Not for the main thread. @returns its number */
  acquire(): number {
    for (;;) {
      const releases = Atomics.load(this.#state, 0);
      for (let number = 1; number < this.#state.length; number++) {
        if (Atomics.compareExchange(this.#state, number, free, taken) === free) return number - 1;
      }
      Atomics.wait(this.#state, 0, releases);
    }
  }

  /** The bytes of a buffer that the caller owns. */
  bytes(number: number): Uint8Array {
    return new Uint8Array(this.handle.data, number * this.handle.bufferBytes, this.handle.bufferBytes);
  }

  /** Gives a buffer back and wakes a sleeper. */
  release(number: number): void {
    Atomics.store(this.#state, number + 1, free);
    Atomics.add(this.#state, 0, 1);
    Atomics.notify(this.#state, 0, 1);
  }
}
