/** Shared memory that grows in place: it reserves address space, and takes memory only where it is used. */
import { Failure } from "@granary/base/errors";

/**
 * An empty growable buffer; where the system allows less address space (`ulimit -v`, a small container) its limit is lower.
 *
 * @param maxBytes what is asked for; @param leastBytes what will do
 * @throws Bug when not even that can be had
 */
export function reserveShared(maxBytes: number, leastBytes: number): SharedArrayBuffer {
  for (let bytes = maxBytes; bytes >= leastBytes; bytes /= 2) {
    try {
      return new SharedArrayBuffer(0, { maxByteLength: bytes });
    } catch {
      // try half
    }
  }
  throw new Failure("Bug", `Cannot reserve address space: even ${leastBytes} bytes were refused`);
}
