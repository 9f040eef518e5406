import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import test from "node:test";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { buildData, buildRandomData, type DataSection } from "../../test/vectors/chunk-data.ts";
import type { Cutter } from "./cutter.ts";
import { createGearCutter, defaultGearSizes, deriveGearTable, type GearSizes } from "./gear.ts";

interface GearVectors {
  readonly tables: readonly { readonly seedHex: string; readonly firstEntries: readonly number[]; readonly tableSha256: string }[];
  readonly cuts: readonly {
    readonly seedHex: string;
    readonly sizes: GearSizes;
    readonly data: readonly DataSection[];
    readonly dataSha256: string;
    readonly cutBytes: readonly number[];
  }[];
}

// The file is ours, and a wrong shape fails the tests that read it.
const vectors = JSON.parse(readFileSync(new URL("../../test/vectors/chunk-gear.json", import.meta.url), "utf8")) as GearVectors;

const table = deriveGearTable(new Uint8Array(32).fill(1));
const kib = 1024;

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function cutAll(bytes: Uint8Array, cutter: Cutter): number[] {
  const lengths: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = cutter.nextCut(bytes, at, bytes.length);
    assert.ok(length > 0);
    lengths.push(length);
    at += length;
  }
  return lengths;
}

/** The definition, byte by byte from the start of the chunk. */
function cutByDefinition(bytes: Uint8Array, entries: Int32Array, { minBytes, normalBytes, maxBytes }: GearSizes): number {
  const limitBytes = Math.min(bytes.length, maxBytes);
  if (bytes.length <= minBytes) return bytes.length;
  let hash = 0;
  for (let length = 1; length <= limitBytes; length++) {
    hash = (hash * 2 + (entries[bytes[length - 1] ?? 0] ?? 0)) | 0;
    const zeroBits = Math.round(Math.log2(normalBytes)) + (length < normalBytes ? 2 : -2);
    if (length >= minBytes && Math.clz32(hash) >= zeroBits) return length;
  }
  return limitBytes;
}

test("deriveGearTable() gives the tables of the vectors, and does not depend on the seed's place in memory", () => {
  for (const vector of vectors.tables) {
    const seed = Buffer.from(vector.seedHex, "hex");
    const derived = deriveGearTable(seed);
    assert.equal(derived.length, 256);
    assert.deepEqual([...derived.subarray(0, 4)], vector.firstEntries);
    const bytes = Buffer.alloc(1024);
    derived.forEach((entry, index) => bytes.writeInt32LE(entry, 4 * index));
    assert.equal(sha256(bytes), vector.tableSha256);
    assert.deepEqual(deriveGearTable(new Uint8Array([9, ...seed]).subarray(1)), derived);
  }
});

test("deriveGearTable() gives unrelated tables for seeds that differ in one bit, with entries spread over all bits", () => {
  const other = deriveGearTable(new Uint8Array(32).fill(1).with(31, 0));
  assert.equal(table.filter((entry) => other.includes(entry)).length, 0);
  for (let bit = 0; bit < 32; bit++) {
    const ones = table.reduce((sum, entry) => sum + ((entry >>> bit) & 1), 0);
    // Five standard deviations of 256 coin tosses.
    assert.ok(ones > 88 && ones < 168, `bit ${bit} is set ${ones} times`);
  }
});

test("deriveGearTable() and createGearCutter() refuse what they cannot use", () => {
  const refusals: readonly (() => unknown)[] = [
    () => deriveGearTable(new Uint8Array(31)),
    () => deriveGearTable(new Uint8Array(33)),
    () => createGearCutter(table.subarray(1)),
    () => createGearCutter(table, { minBytes: 31, normalBytes: 64, maxBytes: 128 }),
    () => createGearCutter(table, { minBytes: 65, normalBytes: 64, maxBytes: 128 }),
    () => createGearCutter(table, { minBytes: 64, normalBytes: 129, maxBytes: 128 }),
    () => createGearCutter(table, { minBytes: 64.5, normalBytes: 70, maxBytes: 128 }),
    () => createGearCutter(table, { minBytes: 64, normalBytes: 2 ** 29 + 1, maxBytes: 2 ** 30 }),
    () => createGearCutter(table, { minBytes: Number.NaN, normalBytes: 64, maxBytes: 128 }),
    () => createGearCutter(table, { minBytes: 64, normalBytes: 64, maxBytes: Number.POSITIVE_INFINITY }),
  ];
  for (const refusal of refusals) assert.throws(refusal, (error) => isFailure(error, "InvalidArgument"));
});

for (const [index, vector] of vectors.cuts.entries()) {
  test(`the gear cutter cuts where vector ${index + 1} says, so that repositories find their data again`, () => {
    const bytes = buildData(vector.data);
    assert.equal(sha256(bytes), vector.dataSha256);
    const derived = deriveGearTable(Buffer.from(vector.seedHex, "hex"));
    assert.deepEqual(cutAll(bytes, createGearCutter(derived, vector.sizes)), vector.cutBytes);
    assert.deepEqual(cutAll(bytes, createGearCutter(new Uint32Array(derived), vector.sizes)), vector.cutBytes);
  });
}

test("the first vectors use the default sizes", () => {
  assert.deepEqual(vectors.cuts[0]?.sizes, defaultGearSizes);
  assert.deepEqual(vectors.cuts[1]?.sizes, defaultGearSizes);
});

test("createGearCutter() keeps its own copy of the table", () => {
  const bytes = buildRandomData("copy of the table", 100_000);
  const sizes = { minBytes: 64, normalBytes: 1024, maxBytes: 8192 };
  const lent = Int32Array.from(table);
  const cutter = createGearCutter(lent, sizes);
  const expected = cutAll(bytes, cutter);
  lent.fill(0);
  // Another cutter's turn makes the first one fetch its table again.
  assert.notDeepEqual(cutAll(bytes, createGearCutter(table.toReversed(), sizes)), expected);
  assert.deepEqual(cutAll(bytes, cutter), expected);
});

test("the gear cutter agrees with its definition for any sizes, data and offset", () => {
  const sizes = fc
    .tuple(fc.integer({ min: 32, max: 300 }), fc.nat(600), fc.nat(40_000))
    .map(([minBytes, more, evenMore]) => ({ minBytes, normalBytes: minBytes + more, maxBytes: minBytes + more + evenMore }));
  const shape = fc.record({ seed: fc.string(), sizeBytes: fc.nat(50_000), alphabet: fc.integer({ min: 1, max: 256 }), offset: fc.nat(8) });
  fc.assert(
    fc.property(sizes, shape, (bounds, { seed, sizeBytes, alphabet, offset }) => {
      const bytes = buildRandomData(seed, sizeBytes + offset)
        .map((byte) => byte % alphabet)
        .subarray(offset);
      const cutter = createGearCutter(table, bounds);
      for (let at = 0; at < bytes.length; ) {
        const length = cutter.nextCut(bytes, at, bytes.length);
        assert.equal(length, cutByDefinition(bytes.subarray(at), table, bounds));
        at += length;
      }
    }),
    { seed: 1, numRuns: 150 },
  );
});

/** 32 bytes after which the hash has at least `zeroBits` zero bits at the top, and less than two more. */
function findWindow(zeroBits: number): Uint8Array {
  const bytes = buildRandomData("windows", 32 * kib * kib);
  let hash = 0;
  for (let i = 0; i < bytes.length; i++) {
    hash = (hash * 2 + (table[bytes[i] ?? 0] ?? 0)) | 0;
    const found = Math.clz32(hash);
    if (i >= 32 && found >= zeroBits && found < zeroBits + 2) return bytes.slice(i - 31, i + 1);
  }
  throw new Error(`no window with ${zeroBits} zero bits`);
}

test("the gear cutter finds a window at every edge: of the minimum, of its blocks, of the normal size, of the maximum", () => {
  const { minBytes, normalBytes, maxBytes } = defaultGearSizes;
  const [hard, easy] = [findWindow(22), findWindow(18)];
  const cutter = createGearCutter(table);
  // Background without a cut of its own; the hash of a constant byte stays the same, so a look at 32 of them proves it.
  const background = 0x55;
  const memory = new ArrayBuffer(maxBytes + 64);
  const blockBytes = 16 * kib;
  const edges = [minBytes, minBytes + 4, minBytes + blockBytes, minBytes + 3 * blockBytes, normalBytes, normalBytes + blockBytes, maxBytes];
  for (const offset of [0, 1, 2, 3]) {
    const bytes = new Uint8Array(memory, offset, maxBytes + 40).fill(background);
    assert.equal(cutter.nextCut(bytes, 0, bytes.length), maxBytes);
    for (const edge of edges) {
      for (let length = edge - 4; length <= edge + 4; length++) {
        for (const [window, firstBytes] of [
          [hard, minBytes],
          [easy, normalBytes],
        ] as const) {
          bytes.set(window, length - 32);
          const expected = length < firstBytes || length > maxBytes ? maxBytes : length;
          assert.equal(cutter.nextCut(bytes, 0, bytes.length), expected, `window at ${length}, offset ${offset}`);
          bytes.fill(background, length - 32, length);
        }
      }
    }
  }
});

test("the end of the stream ends a chunk, at every distance from the minimum, the normal size and the maximum", () => {
  const cutter = createGearCutter(table);
  const { minBytes, normalBytes, maxBytes } = defaultGearSizes;
  const bytes = new Uint8Array(maxBytes + 64).fill(0x55);
  for (const edge of [1, minBytes, normalBytes, maxBytes]) {
    for (let length = Math.max(1, edge - 9); length <= edge + 9; length++) {
      for (const start of [0, 1, 2, 3]) {
        assert.equal(cutter.nextCut(bytes, start, start + length), Math.min(length, maxBytes));
      }
    }
  }
});

test("the mean of the default sizes is between 1 and 1.35 MiB on random data, with few chunks far from it", () => {
  const lengths = cutAll(buildRandomData("mean size", 96 * kib * kib), createGearCutter(table)).slice(0, -1);
  const meanBytes = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
  assert.ok(meanBytes > kib * kib && meanBytes < 1.35 * kib * kib, `the mean is ${meanBytes}`);
  assert.ok(lengths.filter((length) => length > 2 * kib * kib).length < lengths.length / 10);
});
