/** Giving large buffers back before the garbage collector would: it counts objects, and a few of them can hold most of the memory. */

const worthwhileBytes = 64 * 1024;

/**
 * Frees the memory under `bytes` at once; every view of it is empty afterwards. For memory that nobody else can hold; memory from a pool and
 * shared memory are left alone.
 */
export function releaseMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= worthwhileBytes && !buffer.detached) buffer.transfer(0);
}
