/** Giving large buffers back before the garbage collector would: it counts objects, and a few of them can hold most of the memory. */

import { Buffer } from "node:buffer";
import { bindSymbol } from "./symbols.ts";

/** Well above the pool from which Node cuts small buffers (`poolSize` and what aligns it): that is not ours to give back, and Node refuses. */
const worthwhileBytes: number = Math.max(64 * 1024, 2 * Buffer.poolSize);

/**
 * Frees the memory under `bytes` at once; every view of it is empty afterwards. For memory that nobody else can hold; memory from a pool and
 * shared memory are left alone.
 */
export function releaseMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= worthwhileBytes && !buffer.detached) buffer.transfer(0);
}

// malloc.h of glibc.
const mmapThreshold = -3;
const arenaMax = -8;
let isTuned = false;

/**
 * Tells glibc's allocator to give large blocks back when they are freed, and to keep few arenas: without it a process with several threads
 * holds some 30 MiB more than it uses. Once per process; nothing happens where the C library has no such switch.
 */
export function tuneAllocator(): void {
  if (isTuned) return;
  isTuned = true;
  try {
    const mallopt = bindSymbol("mallopt", "int", ["int", "int"]);
    mallopt(mmapThreshold, 256 * 1024);
    mallopt(arenaMax, 2);
  } catch {
    // musl, or no koffi: memory is then a little higher, nothing else
  }
}
