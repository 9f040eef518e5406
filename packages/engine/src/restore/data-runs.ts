/** Finds what is not zero. */
import { Buffer } from "node:buffer";

const blockBytes = 4096;
const zeros = Buffer.alloc(blockBytes);
/** Shorter runs of zeros are written: a hole that small saves less than the extra call costs. */
const shortestHoleBytes = 4 * blockBytes;

/**
 * Where the data is in a piece of a file, when runs of zeros of 16 KiB and more, found in steps of 4 KiB, are left out.
 *
 * @returns spans as pairs [from, to), ascending
 */
export function findDataRuns(data: Uint8Array): number[] {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const runs: number[] = [];
  let from = -1; // where the current run of data began
  let zeroFrom = 0; // where the zeros behind it began
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const end = Math.min(at + blockBytes, bytes.length);
    if (zeros.compare(bytes, at, end, 0, end - at) === 0) continue;
    if (from < 0) from = at;
    else if (at - zeroFrom >= shortestHoleBytes) {
      runs.push(from, zeroFrom);
      from = at;
    }
    zeroFrom = end;
  }
  if (from >= 0) runs.push(from, bytes.length - zeroFrom >= shortestHoleBytes ? zeroFrom : bytes.length);
  const first = runs[0];
  if (first !== undefined && first < shortestHoleBytes) runs[0] = 0;
  return runs;
}
