import { Failure } from "@granary/base/errors";
import type { Cutter } from "./cutter.ts";

const sectorBytes = 512;
const largestBytes = 64 * 1024 * 1024;

/**
 * Cuts at every multiple of `sizeBytes` from the start of the stream, for disks: a changed block then changes its own chunk only,
 * and any chunk can be read or written without its neighbours.
 *
 * @param sizeBytes a multiple of 512, up to 64 MiB
 * @throws InvalidArgument
 */
export function createFixedCutter(sizeBytes: number): Cutter {
  if (!Number.isInteger(sizeBytes) || sizeBytes < sectorBytes || sizeBytes > largestBytes || sizeBytes % sectorBytes !== 0) {
    throw new Failure("InvalidArgument", `Cannot cut at ${sizeBytes} bytes: a multiple of ${sectorBytes} up to ${largestBytes} is needed`, {
      details: { sizeBytes },
    });
  }
  return {
    minBytes: sizeBytes,
    maxBytes: sizeBytes,
    zeroCutBytes: sizeBytes,
    nextCut: (_buf, start, end) => Math.min(sizeBytes, end - start),
  };
}
