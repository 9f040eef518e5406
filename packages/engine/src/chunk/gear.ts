/**
 * The default cutter: a gear hash with normalized chunking, as FastCDC has it, with a table that belongs to the repository.
 *
 * hash := (hash << 1) + table[byte], in 32 bits. What a byte added has left the hash 32 bytes later, so the hash is a function of
 * the last 32 bytes alone, and the scan may begin anywhere 31 bytes after it began to listen. The first `minBytes` of a chunk are
 * skipped. A chunk ends where the high bits of the hash are zero: before `normalBytes` two bits more than log2(normalBytes) must be,
 * from there on two bits fewer. That narrows the spread of sizes around the normal one: with the default sizes and random data the
 * mean is 1.19 MiB, 12 % of the chunks end before the normal size, and fewer than one in 10^12 reaches the maximum.
 * (Xia et al., "FastCDC", USENIX ATC 2016.)
 *
 * The table is secret. With a public one, whoever sees the sizes of chunks can tell which known files are in the repository.
 * Without it the cuts cannot be predicted; but the hash is linear and no cipher, so somebody who sees many cuts of data that he
 * knows may learn about the table. Sizes are blurred further by compression, and by the packs.
 *
 * Cuts are for ever: a change in this file makes every repository store its data once more. The vectors in
 * test/vectors/chunk-gear.json hold the cuts still.
 *
 * Speed decides the shape of the code. Bytes are loaded four at a time; a table in a constant of the module needs no bounds check
 * and no register, so the table in use is copied there when another cutter had its turn; and the loop is a function of its own,
 * called for a block at a time, so that the engine runs its best version from the second block on. Every index is in range, so
 * that `?? 0` never happens and costs nothing.
 */
import { hkdfSync } from "node:crypto";
import { Failure } from "@granary/base/errors";
import type { Cutter } from "./cutter.ts";

/** Sizes of gear chunks, in bytes: 32 <= min <= normal <= max, and normal from 8 to 2^29. */
export interface GearSizes {
  readonly minBytes: number;
  readonly normalBytes: number;
  readonly maxBytes: number;
}

/** 512 KiB, 1 MiB, 8 MiB: restic's limits, and a mean somewhat below restic's 1.5 MiB. */
export const defaultGearSizes: GearSizes = { minBytes: 512 * 1024, normalBytes: 1024 * 1024, maxBytes: 8 * 1024 * 1024 };

const tableEntries = 256;
const seedBytes = 32;
const tableLabel = "granary gear table v1";

/** The bytes that decide whether a chunk ends after the last of them: one for each bit of the hash. */
const windowBytes = 32;
/** By how many bits the masks are harder before the normal size and easier after it. */
const normalizationBits = 2;
/** 16 KiB: long enough to make the 31 bytes of listening vanish, short enough to return often. */
const blockWords = 4096;
const nowhere = -1;

const hotTable = new Int32Array(tableEntries);
let hotTableSource: Int32Array = hotTable;

const isLittleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * The gear table of a repository: HKDF-SHA-256 of its key, without salt, with the label "granary gear table v1", read as 256
 * little-endian 32-bit integers. The same seed gives the same table for ever, and the table does not give away the seed.
 *
 * @param seed 32 secret bytes that never change while the repository lives
 * @throws InvalidArgument
 * @see RFC 5869; vectors in test/vectors/chunk-gear.json
 */
export function deriveGearTable(seed: Uint8Array): Int32Array {
  if (seed.length !== seedBytes) {
    throw new Failure("InvalidArgument", `Cannot derive the gear table: the seed has ${seed.length} bytes, ${seedBytes} are needed`, {
      details: { sizeBytes: seed.length },
    });
  }
  const stream = new DataView(hkdfSync("sha256", seed, new Uint8Array(0), tableLabel, 4 * tableEntries));
  return Int32Array.from({ length: tableEntries }, (_, index) => stream.getInt32(4 * index, true));
}

/**
 * A gear cutter with the given table.
 *
 * @param table 256 entries, copied
 * @param sizes see {@link GearSizes}
 * @throws InvalidArgument
 */
export function createGearCutter(table: Int32Array | Uint32Array, sizes: GearSizes = defaultGearSizes): Cutter {
  checkTable(table);
  checkSizes(sizes);
  const { minBytes, normalBytes, maxBytes } = sizes;
  const ownTable = new Int32Array(table);
  const normalBits = Math.round(Math.log2(normalBytes));
  const hardMask = maskHighBits(normalBits + normalizationBits);
  const easyMask = maskHighBits(normalBits - normalizationBits);

  const nextCut = (buf: Uint8Array, start: number, end: number): number => {
    const availableBytes = end - start;
    if (availableBytes <= minBytes) return availableBytes;
    const limitBytes = Math.min(availableBytes, maxBytes);
    useTable(ownTable);
    const softBytes = Math.min(limitBytes, normalBytes - 1);
    const early = findCut(buf, { from: start + minBytes - 1, to: start + softBytes, mask: hardMask });
    if (early !== nowhere) return early - start;
    const late = findCut(buf, { from: start + normalBytes - 1, to: start + limitBytes, mask: easyMask });
    return late === nowhere ? limitBytes : late - start;
  };
  return { minBytes, maxBytes, zeroCutBytes: computeZeroCut(ownTable, sizes, { hardMask, easyMask }), nextCut };
}

function checkTable(table: Int32Array | Uint32Array): void {
  if (table.length !== tableEntries) {
    throw new Failure("InvalidArgument", `Cannot cut with a gear table of ${table.length} entries: ${tableEntries} are needed`, {
      details: { entries: table.length },
    });
  }
}

function checkSizes({ minBytes, normalBytes, maxBytes }: GearSizes): void {
  const inOrder = windowBytes <= minBytes && minBytes <= normalBytes && normalBytes <= maxBytes;
  const whole = Number.isInteger(minBytes) && Number.isInteger(normalBytes) && Number.isInteger(maxBytes);
  if (!inOrder || !whole || normalBytes < 8 || normalBytes > 2 ** 29) {
    throw new Failure(
      "InvalidArgument",
      `Cannot cut chunks of ${minBytes} to ${maxBytes} bytes around ${normalBytes}: whole numbers are needed, with 32 <= min <= normal <= max and 8 <= normal <= 2^29`,
      { details: { minBytes, normalBytes, maxBytes } },
    );
  }
}

function maskHighBits(count: number): number {
  return -1 << (32 - count);
}

/** After 32 zeros the hash is table[0] * (2^32 - 1), that is -table[0], and stays there. */
function computeZeroCut(table: Int32Array, sizes: GearSizes, masks: { hardMask: number; easyMask: number }): number {
  const hash = -(table[0] ?? 0) | 0;
  if ((hash & masks.hardMask) === 0) return sizes.minBytes;
  if ((hash & masks.easyMask) === 0) return sizes.normalBytes;
  return sizes.maxBytes;
}

function useTable(table: Int32Array): void {
  if (hotTableSource === table) return;
  hotTable.set(table);
  hotTableSource = table;
}

/** Where to look for the end of a chunk: above `from`, up to `to`. The 31 bytes before `from` are read too. */
interface Range {
  readonly from: number;
  readonly to: number;
  readonly mask: number;
}

/** The first position in the range at which a chunk may end. */
function findCut(buf: Uint8Array, range: Range): number {
  const { from, to, mask } = range;
  if (!isLittleEndian || to - from < windowBytes) return findCutByBytes(buf, range);
  const aligned = from + (-(buf.byteOffset + from) & 3);
  const early = findCutByBytes(buf, { from, to: aligned, mask });
  if (early !== nowhere) return early;
  const words = new Int32Array(buf.buffer, buf.byteOffset + aligned, (to - aligned) >>> 2);
  for (let word = 0; word < words.length; word += blockWords) {
    const toWord = Math.min(words.length, word + blockWords);
    const hit = findCutByWords(words, word, { toWord, mask, hash: hashBefore(buf, aligned + 4 * word) });
    if (hit !== nowhere) return aligned + hit;
  }
  return findCutByBytes(buf, { from: aligned + 4 * words.length, to, mask });
}

function hashBefore(buf: Uint8Array, position: number): number {
  let hash = 0;
  for (let i = position - windowBytes + 1; i < position; i++) hash = ((hash << 1) + (hotTable[buf[i] ?? 0] ?? 0)) | 0;
  return hash;
}

function findCutByBytes(buf: Uint8Array, { from, to, mask }: Range): number {
  if (from >= to) return nowhere;
  let hash = hashBefore(buf, from);
  for (let i = from; i < to; i++) {
    hash = ((hash << 1) + (hotTable[buf[i] ?? 0] ?? 0)) | 0;
    if ((hash & mask) === 0) return i + 1;
  }
  return nowhere;
}

/** The byte position in `words` after which a chunk may end; `hash` is that of the bytes before word `from`. */
function findCutByWords(words: Int32Array, from: number, block: { toWord: number; mask: number; hash: number }): number {
  const mask = block.mask | 0;
  const toWord = block.toWord | 0;
  let hash = block.hash | 0;
  for (let i = from | 0; i < toWord; i++) {
    const word = words[i] ?? 0;
    hash = ((hash << 1) + (hotTable[word & 255] ?? 0)) | 0;
    if ((hash & mask) === 0) return 4 * i + 1;
    hash = ((hash << 1) + (hotTable[(word >>> 8) & 255] ?? 0)) | 0;
    if ((hash & mask) === 0) return 4 * i + 2;
    hash = ((hash << 1) + (hotTable[(word >>> 16) & 255] ?? 0)) | 0;
    if ((hash & mask) === 0) return 4 * i + 3;
    hash = ((hash << 1) + (hotTable[word >>> 24] ?? 0)) | 0;
    if ((hash & mask) === 0) return 4 * i + 4;
  }
  return nowhere;
}
