import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { buildRandomData } from "../../test/vectors/chunk-data.ts";
import { type Cutter, cut } from "./cutter.ts";
import { createFixedCutter } from "./fixed.ts";
import { createGearCutter, deriveGearTable } from "./gear.ts";
import { createRabinCutter } from "./rabin.ts";

const gearTable = deriveGearTable(new Uint8Array(32).fill(7));
const smallGear = createGearCutter(gearTable, { minBytes: 64, normalBytes: 256, maxBytes: 1024 });
const tightGear = createGearCutter(gearTable, { minBytes: 32, normalBytes: 32, maxBytes: 33 });
const rabin = createRabinCutter(0x36e5e1594d87b7n);

async function* readInPieces(data: Uint8Array, pieceBytes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (let i = 0; at < data.length; i++) {
    const sizeBytes = pieceBytes[i % pieceBytes.length] ?? 1;
    // A copy that is wiped after the next read, as a reused read buffer is.
    const piece = data.slice(at, at + sizeBytes);
    yield piece;
    piece.fill(0xee);
    at += sizeBytes;
  }
}

async function cutInPieces(data: Uint8Array, cutter: Cutter, pieceBytes: readonly number[]): Promise<Uint8Array[]> {
  return Array.fromAsync(cut(readInPieces(data, pieceBytes), cutter));
}

function cutAtOnce(data: Uint8Array, cutter: Cutter): number[] {
  const lengths: number[] = [];
  for (let at = 0; at < data.length; at += lengths.at(-1) ?? 0) lengths.push(cutter.nextCut(data, at, data.length));
  return lengths;
}

/** Bytes of high, low and no entropy, with runs. */
const data: fc.Arbitrary<Uint8Array> = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 900 }),
      fc.tuple(fc.nat(255), fc.nat(3000)).map(([byte, sizeBytes]) => new Uint8Array(sizeBytes).fill(byte)),
      fc.tuple(fc.string({ maxLength: 8 }), fc.nat(4000)).map(([seed, sizeBytes]) => buildRandomData(seed, sizeBytes)),
    ),
    { maxLength: 6 },
  )
  .map((parts) => new Uint8Array(Buffer.concat(parts)));

const cutters: readonly [string, Cutter][] = [
  ["gear cutter", smallGear],
  ["gear cutter with hardly a choice", tightGear],
  ["fixed cutter", createFixedCutter(512)],
];

for (const [name, cutter] of cutters) {
  test(`cut() with a ${name} gives back the input, in chunks within the bounds, the same for any read sizes`, async () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(data, sizes, async (bytes, pieceBytes) => {
        const chunks = await cutInPieces(bytes, cutter, pieceBytes);
        assert.deepEqual(new Uint8Array(Buffer.concat(chunks)), bytes);
        assert.deepEqual(
          chunks.map((chunk) => chunk.length),
          cutAtOnce(bytes, cutter),
        );
        for (const chunk of chunks.slice(0, -1)) assert.ok(chunk.length >= cutter.minBytes);
        for (const chunk of chunks) assert.ok(chunk.length >= 1 && chunk.length <= cutter.maxBytes);
      }),
      { seed: 1, numRuns: 300 },
    );
  });
}

test("cut() with the Rabin cutter gives back the input, in chunks within the bounds, the same for any read sizes", async () => {
  const bytes = buildRandomData("cut() with the Rabin cutter", 9_000_001);
  const expected = cutAtOnce(bytes, rabin);
  assert.ok(expected.length > 4);
  for (const pieceBytes of [[9_000_001], [1_000_000, 1, 77], [65_536], [524_288, 524_287]]) {
    const chunks = await cutInPieces(bytes, rabin, pieceBytes);
    assert.deepEqual(
      chunks.map((chunk) => chunk.length),
      expected,
    );
    assert.ok(Buffer.concat(chunks).equals(bytes));
  }
});

test("cut() gives no chunks for an empty source, and passes on what the source throws", async () => {
  assert.deepEqual(await cutInPieces(new Uint8Array(0), smallGear, [10]), []);
  const trouble = new Error("the disk is gone");
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(5000);
    throw trouble;
  };
  await assert.rejects(Array.fromAsync(cut(failing(), smallGear)), (error) => error === trouble);
});

test("nextCut() cuts the same at any offset, in shared memory, in a Buffer, and whatever surrounds the bytes", () => {
  fc.assert(
    fc.property(data, fc.nat(9), fc.nat(255), (bytes, offset, surrounding) => {
      const expected = cutAtOnce(bytes, smallGear);
      for (const memory of [new ArrayBuffer(bytes.length + 20), new SharedArrayBuffer(bytes.length + 20)]) {
        const whole = new Uint8Array(memory).fill(surrounding);
        whole.set(bytes, offset);
        assert.deepEqual(cutAtOnce(whole.subarray(offset, offset + bytes.length), smallGear), expected);
        const buffer = Buffer.from(memory);
        let at = offset;
        for (const length of expected) {
          assert.equal(smallGear.nextCut(buffer, at, offset + bytes.length), length);
          at += length;
        }
      }
    }),
    { seed: 2, numRuns: 200 },
  );
});

test("cutters used in turns cut as each alone, and keep nothing between calls", () => {
  const other = createGearCutter(deriveGearTable(new Uint8Array(32).fill(8)), { minBytes: 64, normalBytes: 256, maxBytes: 1024 });
  const otherRabin = createRabinCutter(0x3539708fcca4e7n);
  const bytes = buildRandomData("in turns", 6_000_000);
  const alone = [smallGear, other, rabin, otherRabin].map((cutter) => cutAtOnce(bytes, cutter).slice(0, 3));
  const inTurns = [smallGear, other, rabin, otherRabin].map((cutter) => ({ cutter, at: 0, lengths: [] as number[] }));
  for (let round = 0; round < 3; round++) {
    for (const stream of inTurns) {
      const length = stream.cutter.nextCut(bytes, stream.at, bytes.length);
      stream.lengths.push(length);
      stream.at += length;
    }
  }
  assert.deepEqual(
    inTurns.map((stream) => stream.lengths),
    alone,
  );
  assert.notDeepEqual(alone[0], alone[1]);
  assert.notDeepEqual(alone[2], alone[3]);
});

/** Positions of the cuts, the end of the data left out. */
function cutPositions(bytes: Uint8Array, cutter: Cutter): number[] {
  let at = 0;
  return cutAtOnce(bytes, cutter)
    .map((length) => (at += length))
    .slice(0, -1);
}

interface Edit {
  readonly at: number;
  readonly removed: number;
  readonly inserted: Uint8Array;
}

/** Asserts that an edit moves no cut before it, and none that is more than `reachBytes` after it. */
function assertLocal(bytes: Uint8Array, edit: Edit, { cutter, reachBytes }: { cutter: Cutter; reachBytes: number }): void {
  const { at, removed, inserted } = edit;
  const edited = new Uint8Array(Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at + removed)]));
  const before = cutPositions(bytes, cutter);
  const after = cutPositions(edited, cutter);
  const shift = inserted.length - removed;
  assert.deepEqual(
    after.filter((position) => position <= at),
    before.filter((position) => position <= at),
  );
  const settled = at + removed + reachBytes;
  const expected = before.filter((position) => position > settled).map((position) => position + shift);
  assert.ok(expected.length > 3, "the data must be long enough to show cuts that stay");
  assert.deepEqual(
    after.filter((position) => position > settled + shift),
    expected,
  );
}

test("an insertion or a removal moves only nearby cuts of the gear cutter", () => {
  const bytes = buildRandomData("edits", 60_000);
  fc.assert(
    fc.property(fc.nat(30_000), fc.nat(2000), fc.uint8Array({ maxLength: 2000 }), (at, removed, inserted) => {
      assertLocal(bytes, { at, removed, inserted }, { cutter: smallGear, reachBytes: 12 * 1024 });
    }),
    { seed: 3, numRuns: 400 },
  );
});

test("an insertion moves only nearby cuts of the gear cutter with its default sizes, and of the Rabin cutter", () => {
  const bytes = buildRandomData("edits of a large file", 40_000_000);
  for (const cutter of [createGearCutter(gearTable), rabin]) {
    for (const at of [0, 5_000_000, 11_111_111]) {
      assertLocal(bytes, { at, removed: 0, inserted: Uint8Array.of(1) }, { cutter, reachBytes: 16 * 1024 * 1024 });
    }
  }
});

test("zeroCutBytes is the length of a chunk of zeros, however many follow", () => {
  const shapes = [
    { minBytes: 64, normalBytes: 256, maxBytes: 1024 },
    { minBytes: 32, normalBytes: 8 * 8, maxBytes: 64 },
    { minBytes: 64, normalBytes: 64, maxBytes: 70 },
  ];
  const seen = new Set<number>();
  // Entries that put the hash of zeros, -table[0], on either side of both masks.
  for (const entry of [0, 1, -1, 1 << 20, 1 << 23, 1 << 24, 1 << 25, 1 << 27, -(1 << 23), -(1 << 26), 0x7fffffff, 123456789]) {
    for (const sizes of shapes) {
      const table = Int32Array.from(gearTable);
      table[0] = entry;
      const cutter = createGearCutter(table, sizes);
      for (const more of [0, 1, 5000]) {
        assert.equal(cutter.nextCut(new Uint8Array(sizes.maxBytes + more), 0, sizes.maxBytes + more), cutter.zeroCutBytes);
      }
      if (sizes === shapes[0]) seen.add(cutter.zeroCutBytes);
    }
  }
  assert.deepEqual(
    [...seen].sort((a, b) => a - b),
    [64, 256, 1024],
  );
  const zeros = new Uint8Array(8 * 1024 * 1024 + 3);
  for (const cutter of [createGearCutter(gearTable), rabin, createFixedCutter(4 * 1024 * 1024)]) {
    assert.equal(cutter.nextCut(zeros, 3, zeros.length), cutter.zeroCutBytes);
    assert.equal(cutter.nextCut(zeros, 0, zeros.length), cutter.zeroCutBytes);
  }
});
