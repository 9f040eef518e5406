/**
 * restic's cutter: the Rabin fingerprint of the last 64 bytes, modulo the polynomial of the repository's config.
 *
 * For repositories that are shared with restic: the chunks are the same to the byte, so both find each other's data. A chunk ends
 * where the low 20 bits of the fingerprint are zero, from 512 KiB on, and at 8 MiB at the latest.
 * (restic design.rst, "Deduplication"; restic/chunker; vectors in test/vectors/chunk-rabin.json)
 *
 * With P the polynomial and "slide" the step by one byte, in 64-bit arithmetic:
 *
 *   fingerprint := (fingerprint << 8 | incoming) ^ reduce[fingerprint >> 45] ^ leave[outgoing]
 *   reduce[b]    = (b·x^53 mod P) | b·x^53      takes the top byte away and adds what it is modulo P
 *   leave[b]     = b·x^512 mod P                takes away the byte that came 64 bytes ago
 *
 * restic starts a chunk with a window of zeros and one byte 1, and begins to slide 64 bytes before the minimum. The 1 has left when
 * the first cut may happen, so from there on the window is simply the last 64 bytes: no ring buffer, and a scan may start anywhere.
 *
 * Speed decides the shape of the code. A step waits for the one before it (shift, load, xor), so two places of the chunk, a block
 * apart, are scanned in turns; if either meets a cut, the two blocks are scanned once more, in order. As in gear.ts the tables are
 * constants of the module, bytes are loaded four at a time, and the loop is a function called for a block; every index is in
 * range, so that `?? 0` never happens and costs nothing. Fingerprints are kept as two halves, `high` with bits 32 to 52 and `low`
 * with the other 32.
 */
import { Failure } from "@granary/base/errors";
import type { Cutter } from "./cutter.ts";
import { chunkerDegree, degree, mod } from "./polynomial.ts";

const minBytes = 512 * 1024;
const maxBytes = 8 * 1024 * 1024;
const cutMask = (1 << 20) - 1;

const windowBytes = 64;
const windowWords = windowBytes / 4;
/** 16 KiB: long enough to make the 64 bytes of a block's start vanish, short enough to return often. */
const blockWords = 4096;
const nowhere = -1;

/** 256 entries each, see above. */
interface Tables {
  readonly reduceHigh: Int32Array;
  readonly reduceLow: Int32Array;
  readonly leaveHigh: Int32Array;
  readonly leaveLow: Int32Array;
}

const reduceHigh = new Int32Array(256);
const reduceLow = new Int32Array(256);
const leaveHigh = new Int32Array(256);
const leaveLow = new Int32Array(256);
const hotTables: Tables = { reduceHigh, reduceLow, leaveHigh, leaveLow };
let hotTablesSource: Tables = hotTables;

const isLittleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * A cutter that cuts where restic cuts.
 *
 * @param pol irreducible, of degree 53, as `parsePolynomial()` gives it
 * @throws InvalidArgument for another degree
 */
export function createRabinCutter(pol: bigint): Cutter {
  if (degree(pol) !== chunkerDegree) {
    throw new Failure(
      "InvalidArgument",
      `Cannot cut with the polynomial ${pol.toString(16)}: its degree is ${degree(pol)}, ${chunkerDegree} is needed`,
    );
  }
  const ownTables = buildTables(pol);

  const nextCut = (buf: Uint8Array, start: number, end: number): number => {
    const availableBytes = end - start;
    if (availableBytes <= minBytes) return availableBytes;
    const limitBytes = Math.min(availableBytes, maxBytes);
    useTables(ownTables);
    const position = findCut(buf, start + minBytes - 1, start + limitBytes);
    return position === nowhere ? limitBytes : position - start;
  };
  // The fingerprint of 64 zeros is zero, whatever the polynomial.
  return { minBytes, maxBytes, zeroCutBytes: minBytes, nextCut };
}

function buildTables(pol: bigint): Tables {
  const bytes = Array.from({ length: 256 }, (_, byte) => BigInt(byte));
  const reduce = bytes.map((byte) => mod(byte << BigInt(chunkerDegree), pol) | (byte << BigInt(chunkerDegree)));
  const leave = bytes.map((byte) => mod(byte << BigInt(8 * windowBytes), pol));
  const takeHigh = (value: bigint): number => Number(BigInt.asIntN(32, value >> 32n));
  const takeLow = (value: bigint): number => Number(BigInt.asIntN(32, value));
  return {
    reduceHigh: Int32Array.from(reduce, takeHigh),
    reduceLow: Int32Array.from(reduce, takeLow),
    leaveHigh: Int32Array.from(leave, takeHigh),
    leaveLow: Int32Array.from(leave, takeLow),
  };
}

function useTables(tables: Tables): void {
  if (hotTablesSource === tables) return;
  hotTables.reduceHigh.set(tables.reduceHigh);
  hotTables.reduceLow.set(tables.reduceLow);
  hotTables.leaveHigh.set(tables.leaveHigh);
  hotTables.leaveLow.set(tables.leaveLow);
  hotTablesSource = tables;
}

/** The first position above `from`, up to `to`, at which a chunk may end; the 64 bytes before `from` are read too. */
function findCut(buf: Uint8Array, from: number, to: number): number {
  const laneBytes = 4 * blockWords;
  if (!isLittleEndian || to - from < 2 * laneBytes) return findCutByBytes(buf, from, to);
  const aligned = from + (-(buf.byteOffset + from) & 3);
  const early = findCutByBytes(buf, from, aligned);
  if (early !== nowhere) return early;
  const words = new Int32Array(buf.buffer, buf.byteOffset + aligned - windowBytes, (to - aligned + windowBytes) >>> 2);
  let position = aligned;
  let word = windowWords;
  while (word + 2 * blockWords <= words.length) {
    const first = fingerprintBefore(buf, position);
    const second = fingerprintBefore(buf, position + laneBytes);
    if (hasCut(words, word, { first, second })) return findCutByBytes(buf, position, position + 2 * laneBytes);
    word += 2 * blockWords;
    position += 2 * laneBytes;
  }
  return findCutByBytes(buf, position, to);
}

/** The fingerprint of the 64 bytes before `position`; its 53 bits fit a number exactly. */
function fingerprintBefore(buf: Uint8Array, position: number): number {
  let high = 0;
  let low = 0;
  for (let i = position - windowBytes; i < position; i++) {
    const top = high >>> 13;
    high = ((high << 8) | (low >>> 24)) ^ (reduceHigh[top] ?? 0);
    low = ((low << 8) | (buf[i] ?? 0)) ^ (reduceLow[top] ?? 0);
  }
  return high * 2 ** 32 + (low >>> 0);
}

function highHalf(fingerprint: number): number {
  return Math.floor(fingerprint / 2 ** 32) | 0;
}

function lowHalf(fingerprint: number): number {
  return fingerprint | 0;
}

function findCutByBytes(buf: Uint8Array, from: number, to: number): number {
  if (from >= to) return nowhere;
  const fingerprint = fingerprintBefore(buf, from);
  let high = highHalf(fingerprint);
  let low = lowHalf(fingerprint);
  for (let i = from; i < to; i++) {
    const top = high >>> 13;
    const outgoing = buf[i - windowBytes] ?? 0;
    high = ((high << 8) | (low >>> 24)) ^ (reduceHigh[top] ?? 0) ^ (leaveHigh[outgoing] ?? 0);
    low = ((low << 8) | (buf[i] ?? 0)) ^ (reduceLow[top] ?? 0) ^ (leaveLow[outgoing] ?? 0);
    if ((low & cutMask) === 0) return i + 1;
  }
  return nowhere;
}

/**
 * Whether a chunk may end in the two blocks of words from `from`, given the fingerprints before each. Lane a is in the first block,
 * lane b at the same place of the second; each of the four steps is the one of `findCutByBytes()`, for both.
 */
function hasCut(words: Int32Array, from: number, before: { first: number; second: number }): boolean {
  let highA = highHalf(before.first);
  let lowA = lowHalf(before.first);
  let highB = highHalf(before.second);
  let lowB = lowHalf(before.second);
  const to = from + blockWords;
  for (let i = from; i < to; i++) {
    const inA = words[i] ?? 0;
    const outA = words[i - windowWords] ?? 0;
    const inB = words[i + blockWords] ?? 0;
    const outB = words[i + blockWords - windowWords] ?? 0;

    let topA = highA >>> 13;
    let topB = highB >>> 13;
    highA = ((highA << 8) | (lowA >>> 24)) ^ (reduceHigh[topA] ?? 0) ^ (leaveHigh[outA & 255] ?? 0);
    lowA = ((lowA << 8) | (inA & 255)) ^ (reduceLow[topA] ?? 0) ^ (leaveLow[outA & 255] ?? 0);
    if ((lowA & cutMask) === 0) return true;
    highB = ((highB << 8) | (lowB >>> 24)) ^ (reduceHigh[topB] ?? 0) ^ (leaveHigh[outB & 255] ?? 0);
    lowB = ((lowB << 8) | (inB & 255)) ^ (reduceLow[topB] ?? 0) ^ (leaveLow[outB & 255] ?? 0);
    if ((lowB & cutMask) === 0) return true;

    topA = highA >>> 13;
    topB = highB >>> 13;
    highA = ((highA << 8) | (lowA >>> 24)) ^ (reduceHigh[topA] ?? 0) ^ (leaveHigh[(outA >>> 8) & 255] ?? 0);
    lowA = ((lowA << 8) | ((inA >>> 8) & 255)) ^ (reduceLow[topA] ?? 0) ^ (leaveLow[(outA >>> 8) & 255] ?? 0);
    if ((lowA & cutMask) === 0) return true;
    highB = ((highB << 8) | (lowB >>> 24)) ^ (reduceHigh[topB] ?? 0) ^ (leaveHigh[(outB >>> 8) & 255] ?? 0);
    lowB = ((lowB << 8) | ((inB >>> 8) & 255)) ^ (reduceLow[topB] ?? 0) ^ (leaveLow[(outB >>> 8) & 255] ?? 0);
    if ((lowB & cutMask) === 0) return true;

    topA = highA >>> 13;
    topB = highB >>> 13;
    highA = ((highA << 8) | (lowA >>> 24)) ^ (reduceHigh[topA] ?? 0) ^ (leaveHigh[(outA >>> 16) & 255] ?? 0);
    lowA = ((lowA << 8) | ((inA >>> 16) & 255)) ^ (reduceLow[topA] ?? 0) ^ (leaveLow[(outA >>> 16) & 255] ?? 0);
    if ((lowA & cutMask) === 0) return true;
    highB = ((highB << 8) | (lowB >>> 24)) ^ (reduceHigh[topB] ?? 0) ^ (leaveHigh[(outB >>> 16) & 255] ?? 0);
    lowB = ((lowB << 8) | ((inB >>> 16) & 255)) ^ (reduceLow[topB] ?? 0) ^ (leaveLow[(outB >>> 16) & 255] ?? 0);
    if ((lowB & cutMask) === 0) return true;

    topA = highA >>> 13;
    topB = highB >>> 13;
    highA = ((highA << 8) | (lowA >>> 24)) ^ (reduceHigh[topA] ?? 0) ^ (leaveHigh[outA >>> 24] ?? 0);
    lowA = ((lowA << 8) | (inA >>> 24)) ^ (reduceLow[topA] ?? 0) ^ (leaveLow[outA >>> 24] ?? 0);
    if ((lowA & cutMask) === 0) return true;
    highB = ((highB << 8) | (lowB >>> 24)) ^ (reduceHigh[topB] ?? 0) ^ (leaveHigh[outB >>> 24] ?? 0);
    lowB = ((lowB << 8) | (inB >>> 24)) ^ (reduceLow[topB] ?? 0) ^ (leaveLow[outB >>> 24] ?? 0);
    if ((lowB & cutMask) === 0) return true;
  }
  return false;
}
