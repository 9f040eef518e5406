import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { openZstd } from "./zstd.ts";

function open(): NonNullable<ReturnType<typeof openZstd>> {
  const zstd = openZstd();
  assert.ok(zstd !== undefined, "this Node exports the zstd it was linked with");
  return zstd;
}

test("what compress() makes node:zlib reads, and the other way round, at every level", () => {
  const zstd = open();
  const text = fc.array(fc.constantFrom("granary ", "a", "\0\0\0\0", "0123456789"), { maxLength: 2000 });
  fc.assert(
    fc.property(text, fc.integer({ min: 1, max: 19 }), (words, level) => {
      const plain = Buffer.from(words.join(""));
      const frame = Buffer.alloc(plain.length + 100);
      const made = zstd.compress(plain, frame, level);
      assert.ok(made > 0);
      assert.deepEqual(zstdDecompressSync(frame.subarray(0, made)), plain);
      const back = Buffer.alloc(plain.length);
      assert.equal(zstd.decompress(zstdCompressSync(plain), back), plain.length);
      assert.deepEqual(back, plain);
    }),
    { seed: 2, numRuns: 100 },
  );
});

test("compress() answers 0 when the frame does not fit, and writes nothing behind the target", () => {
  const zstd = open();
  const memory = Buffer.alloc(2000, 0xee);
  assert.equal(zstd.compress(randomBytes(1500), memory.subarray(0, 1000), 1), 0);
  assert.deepEqual(memory.subarray(1000), Buffer.alloc(1000, 0xee));
});

test("decompress() answers -1 for rubbish, a frame cut short, and one that does not fit", () => {
  const zstd = open();
  const plain = Buffer.from("all work and no play ".repeat(1000));
  const frame = zstdCompressSync(plain);
  const memory = Buffer.alloc(plain.length + 100, 0xee);
  assert.equal(zstd.decompress(randomBytes(100), memory), -1);
  assert.equal(zstd.decompress(frame.subarray(0, frame.length - 1), memory), -1);
  assert.equal(zstd.decompress(frame, memory.subarray(0, plain.length - 1)), -1);
  assert.deepEqual(memory.subarray(plain.length), Buffer.alloc(100, 0xee));
  assert.equal(zstd.decompress(frame, memory), plain.length, "a failure does not spoil the next call");
  assert.deepEqual(memory.subarray(0, plain.length), plain);
});

test("decompress() of a bomb stops at the target's end", () => {
  const zstd = open();
  const frame = zstdCompressSync(Buffer.alloc(64 * 2 ** 20));
  assert.ok(frame.length < 10_000);
  assert.equal(zstd.decompress(frame, Buffer.alloc(1000)), -1);
});

test("empty data is a frame like any other", () => {
  const zstd = open();
  const frame = Buffer.alloc(100);
  const made = zstd.compress(Buffer.alloc(0), frame, 1);
  assert.ok(made > 0);
  assert.equal(zstd.decompress(frame.subarray(0, made), Buffer.alloc(0)), 0);
});
