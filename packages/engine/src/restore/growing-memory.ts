/**
 * Shared memory that grows in place: it reserves address space and uses memory only up to where it was written, so nothing ever moves, and
 * threads read and write without a lock as long as no two of them own the same bytes.
 */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";

const growStepBytes = 1 << 20;

/** Growable shared memory and views of it, which are renewed when an access lies beyond them. One object a thread. */
export class GrowingMemory {
  /** What another thread needs to use the same memory. */
  readonly shared: SharedArrayBuffer;
  #int32: Int32Array = new Int32Array(0);
  #float64: Float64Array = new Float64Array(0);
  #bytes: Buffer = Buffer.alloc(0);

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared;
  }

  /**
   * Reserves address space, less than asked where the system refuses so much.
   *
   * @param maxBytes at least 1 MiB; at most {@link largestMemoryBytes} is taken
   */
  static create(maxBytes: number): GrowingMemory {
    const steps = Math.ceil(Math.min(maxBytes, largestMemoryBytes) / growStepBytes);
    for (let bytes = steps * growStepBytes; bytes >= growStepBytes; bytes /= 2) {
      try {
        return new GrowingMemory(new SharedArrayBuffer(0, { maxByteLength: bytes }));
      } catch {
        // A limit on address space (ulimit -v, a small container): try half.
      }
    }
    throw new Failure("Bug", `Cannot reserve address space: even ${growStepBytes} bytes were refused`);
  }

  /** Makes sure that the memory is at least this long; what is new is zero. @returns false when it cannot be */
  ensure(bytes: number): boolean {
    const { shared } = this;
    while (shared.byteLength < bytes) {
      const next = Math.min(shared.maxByteLength, Math.ceil(bytes / growStepBytes) * growStepBytes);
      if (next < bytes) return false;
      try {
        shared.grow(next);
      } catch {
        // Another thread has grown it further meanwhile; or there is no memory.
        if (shared.byteLength < next) return false;
      }
    }
    return true;
  }

  /** A view that has at least `length` elements. */
  int32(length: number): Int32Array {
    if (this.#int32.length < length) this.#int32 = new Int32Array(this.shared, 0, this.shared.byteLength >>> 2);
    return this.#int32;
  }

  /** A view that has at least `length` elements. */
  float64(length: number): Float64Array {
    if (this.#float64.length < length) this.#float64 = new Float64Array(this.shared, 0, this.shared.byteLength >>> 3);
    return this.#float64;
  }

  /** A view of at least `length` bytes. */
  bytes(length: number): Buffer {
    if (this.#bytes.length < length) this.#bytes = Buffer.from(this.shared, 0, this.shared.byteLength);
    return this.#bytes;
  }
}

/** The most that is reserved: 2^33 bytes, so that indices of 32-bit words fit into 31 bits. */
export const largestMemoryBytes: number = 2 ** 33;

/** Hands out spans of a growing memory to one thread, in pieces of a shared total, so that threads rarely meet. */
export class SpanAllocator {
  readonly #memory: GrowingMemory;
  readonly #control: Int32Array;
  readonly #word: number;
  readonly #unitBytes: number;
  readonly #chunk: number;
  #next = 0;
  #end = 0;

  /**
   * @param control whose element `word` counts the units handed out, by all threads
   * @param options.unitBytes size of a unit
   * @param options.chunk units taken from the total at a time
   */
  constructor(memory: GrowingMemory, control: { words: Int32Array; word: number }, options: { unitBytes: number; chunk: number }) {
    this.#memory = memory;
    this.#control = control.words;
    this.#word = control.word;
    this.#unitBytes = options.unitBytes;
    this.#chunk = options.chunk;
  }

  /**
   * Takes `count` units that lie one after the other, zeroed.
   *
   * @returns the number of the first
   * @throws RestoreTooLarge
   */
  take(count: number): number {
    if (this.#next + count > this.#end) {
      const size = Math.max(count, this.#chunk);
      this.#next = Atomics.add(this.#control, this.#word, size);
      this.#end = this.#next + size;
      if (this.#next < 0 || !this.#memory.ensure(this.#end * this.#unitBytes)) {
        throw new Failure(
          "RestoreTooLarge",
          `Cannot plan the restore: more than ${this.#next} units of ${this.#unitBytes} bytes are needed`,
        );
      }
    }
    const first = this.#next;
    this.#next += count;
    return first;
  }
}
