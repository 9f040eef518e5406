/**
 * Compression of blobs and files: zstd frames without checksum, as restic writes them. The plain length travels beside the frame, so a
 * frame that grows beyond what was promised is refused, not followed.
 */
import type { Buffer } from "node:buffer";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { openZstd } from "../native/zstd.ts";

/** The most that a frame of `plainBytes` can take (zstd.h, ZSTD_COMPRESSBOUND). */
export function boundCompressed(plainBytes: number): number {
  return plainBytes + (plainBytes >>> 8) + 64 + (plainBytes < 131072 ? (131072 - plainBytes) >>> 11 : 0);
}

/**
 * Compresses `data` into `target`.
 *
 * @param level 1 (fast) to 19
 * @returns the frame's length, or 0 when it does not fit into `target`: the data is better stored as it is
 */
export function compressInto(target: Uint8Array, data: Uint8Array, level: number): number {
  const native = openZstd();
  if (native !== undefined) return native.compress(data, target, level);
  const frame = zstdCompressSync(data, { params: { [constants.ZSTD_c_compressionLevel]: level } });
  if (frame.length > target.length) return 0;
  target.set(frame);
  return frame.length;
}

/** Decompresses one frame into `target`. @returns the plain length, or -1 when the frame is invalid or needs more room */
export function decompressInto(target: Uint8Array, frame: Uint8Array): number {
  const native = openZstd();
  if (native !== undefined) return native.decompress(frame, target);
  try {
    const plain = zstdDecompressSync(frame, { maxOutputLength: Math.max(1, target.length) });
    target.set(plain);
    return plain.length;
  } catch {
    return -1;
  }
}

/** Decompresses a frame of unknown plain length, up to `limitBytes`. @throws Error (of zlib) when invalid or larger */
export function decompress(frame: Uint8Array, limitBytes: number): Buffer {
  return zstdDecompressSync(frame, { maxOutputLength: limitBytes });
}
