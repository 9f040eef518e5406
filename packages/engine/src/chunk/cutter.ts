/**
 * Cutting a byte stream into chunks: the port that the gear, Rabin and fixed cutters share.
 *
 * Invariants, for every cutter: the chunks put back together are the input; a cut depends only on the bytes since the previous
 * cut, so the sizes in which the input was read never show; no chunk is longer than `maxBytes`, none but the last shorter than
 * `minBytes`. A cutter does no I/O, keeps no state between calls and keeps no reference to what it was given, so one cutter serves
 * any number of interleaved streams of its thread.
 *
 * This folder does not hash, compress or store chunks, and never waits for anything but the source of `cut()`.
 */

/** Decides where a stream is cut. */
export interface Cutter {
  /** The shortest chunk; only the last of a stream may be shorter. */
  readonly minBytes: number;
  /** The longest chunk. */
  readonly maxBytes: number;
  /** The length that `nextCut` gives where a chunk starts at a run of `maxBytes` zeros or more; so a hole needs no reading. */
  readonly zeroCutBytes: number;
  /**
   * The length of the chunk that starts at `buf[start]`.
   *
   * @param buf   over an ArrayBuffer or a SharedArrayBuffer, at any offset; only `start` to `end` is read
   * @param start where the chunk starts
   * @param end   end of the bytes at hand, above `start`: `start + maxBytes` or more, or else the end of the stream
   * @returns 1 to `maxBytes`, and never beyond `end`
   */
  nextCut(buf: Uint8Array, start: number, end: number): number;
}

/**
 * Cuts a stream. For where a file is not read into the caller's own buffer: standard input, tools, tests.
 *
 * @param source pieces of any size, consumed in order; not kept after the next read
 * @returns the chunks in order, each owning its memory; none for an empty source
 * @throws whatever `source` throws, unchanged
 */
export async function* cut(source: AsyncIterable<Uint8Array>, cutter: Cutter): AsyncGenerator<Uint8Array> {
  // Twice the maximum, so that moving the rest to the front happens once for at least `maxBytes` of input.
  const buffer = new Uint8Array(2 * cutter.maxBytes);
  let start = 0;
  let end = 0;
  for await (const piece of source) {
    let taken = 0;
    while (taken < piece.length) {
      if (end === buffer.length) {
        buffer.copyWithin(0, start, end);
        end -= start;
        start = 0;
      }
      const takeBytes = Math.min(piece.length - taken, buffer.length - end);
      buffer.set(piece.subarray(taken, taken + takeBytes), end);
      taken += takeBytes;
      end += takeBytes;
      while (end - start >= cutter.maxBytes) {
        const cutBytes = cutter.nextCut(buffer, start, end);
        yield buffer.slice(start, start + cutBytes);
        start += cutBytes;
      }
    }
  }
  while (start < end) {
    const cutBytes = cutter.nextCut(buffer, start, end);
    yield buffer.slice(start, start + cutBytes);
    start += cutBytes;
  }
}
