/** Bytes that a seed decides: the same on every machine, and fast enough to fill disks with (an AES-CTR key stream). */

import { type Cipheriv, createCipheriv, createHash } from "node:crypto";

/** A stream of bytes that looks random and that its seed fixes. */
export interface SeededBytes {
  /** Fills all of `target` with the next bytes. */
  fill(target: Buffer): void;

  /** A whole number of at least 0 and less than `limit`, for limits up to 2^32. */
  nextBelow(limit: number): number;
}

const poolBytes = 65_536;

/** Opens the stream of a seed. Two streams of one seed give the same bytes for the same calls. */
export function openSeededBytes(seed: string): SeededBytes {
  const cipher: Cipheriv = createCipheriv("aes-256-ctr", createHash("sha256").update(seed).digest(), Buffer.alloc(16));
  const zeros = Buffer.alloc(poolBytes);
  let pool = Buffer.alloc(0);
  let used = 0;
  return {
    fill(target) {
      for (let at = 0; at < target.length; at += poolBytes) {
        const piece = zeros.subarray(0, Math.min(poolBytes, target.length - at));
        cipher.update(piece).copy(target, at);
      }
    },
    nextBelow(limit) {
      if (used + 6 > pool.length) {
        pool = cipher.update(zeros);
        used = 0;
      }
      const value = pool.readUIntLE(used, 6);
      used += 6;
      return value % limit; // 48 bits over at most 32: the bias is below 1 in 65,536
    },
  };
}
