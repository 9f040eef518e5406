import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32, inflateRawSync } from "node:zlib";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { parseNode } from "../format/parse-node.ts";
import type { TreeNode } from "../format/node.ts";
import { deflatePiece, type ZipPiece, ZipWriter } from "./zip.ts";

function nodeOf(fields: object): TreeNode {
  const bytes = Buffer.from(JSON.stringify({ name: "n", type: "file", mode: 0o644, mtime: "2026-01-02T03:04:05Z", ...fields }));
  return parseNode(bytes, 0, bytes.length);
}

async function collect(pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(pieces));
}

test("pieces that are deflated by themselves inflate as one stream", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ minLength: 1, maxLength: 3000 }), { minLength: 1, maxLength: 5 }), async (plains) => {
      const writer = new ZipWriter();
      const sizeBytes = plains.reduce((sum, { length }) => sum + length, 0);
      const content = await Promise.all(plains.map(deflatePiece));
      const entry = await collect(writer.add("f", nodeOf({}), { sizeBytes, content }));
      const [name, extra] = [entry.readUInt16LE(26), entry.readUInt16LE(28)];
      const descriptorAt = entry.length - 16;
      assert.equal(entry.readUInt32LE(descriptorAt), 0x08074b50);
      const plain = Buffer.concat(plains);
      assert.ok(inflateRawSync(entry.subarray(30 + name + extra, descriptorAt)).equals(plain));
      assert.deepEqual(
        [entry.readUInt32LE(descriptorAt + 4), entry.readUInt32LE(descriptorAt + 8), entry.readUInt32LE(descriptorAt + 12)],
        [crc32(plain), descriptorAt - 30 - name - extra, plain.length],
      );
    }),
    { numRuns: 50 },
  );
});

test("a file beyond 4 GiB, and what comes behind it, use zip64", async () => {
  const plain = new Uint8Array(64 * 2 ** 20);
  const { deflated } = await deflatePiece(plain);
  const count = 65;
  const writer = new ZipWriter();
  let bytes = 0;
  let descriptor = Buffer.alloc(0);
  function* repeat(piece: ZipPiece): Generator<ZipPiece> {
    for (let i = 0; i < count; i++) yield piece;
  }
  // the checksum is that of one piece again and again, which is all this test needs of it
  for await (const part of writer.add("big", nodeOf({}), { sizeBytes: plain.length * count, content: repeat({ plain, deflated }) })) {
    bytes += part.length;
    descriptor = Buffer.from(part);
  }
  assert.equal(descriptor.length, 24);
  assert.equal(descriptor.readBigUInt64LE(16), BigInt(plain.length * count));
  const small = await collect(writer.add("small", nodeOf({}), { sizeBytes: 0, content: [] }));
  const end = await collect(writer.finish());
  assert.equal(end.readUInt32LE(0), 0x02014b50);
  assert.equal(end.readUInt32LE(24), 0xffffffff);
  assert.equal(end.readUInt16LE(46 + 3), 1); // the zip64 field comes first
  assert.equal(end.readBigUInt64LE(46 + 3 + 4), BigInt(plain.length * count));
  const secondAt = 46 + 3 + end.readUInt16LE(30);
  assert.equal(end.readUInt32LE(secondAt + 42), bytes);
  assert.equal(small.readUInt32LE(0), 0x04034b50);
});

test("an archive of more than 65,534 entries ends as zip64 does", async () => {
  const writer = new ZipWriter();
  const dir = nodeOf({ type: "dir", mode: 0o755 + 2 ** 31 });
  let bytes = 0;
  for (let i = 0; i < 65_535; i++) for await (const part of writer.add(`d${i}`, dir, { sizeBytes: 0, content: [] })) bytes += part.length;
  const end = await collect(writer.finish());
  const endAt = end.length - 22;
  assert.equal(end.readUInt32LE(endAt), 0x06054b50);
  assert.deepEqual([end.readUInt16LE(endAt + 8), end.readUInt16LE(endAt + 10)], [0xffff, 0xffff]);
  const locatorAt = endAt - 20;
  assert.equal(end.readUInt32LE(locatorAt), 0x07064b50);
  const recordAt = Number(end.readBigUInt64LE(locatorAt + 8)) - bytes;
  assert.equal(end.readUInt32LE(recordAt), 0x06064b50);
  assert.equal(end.readBigUInt64LE(recordAt + 32), 65_535n);
  assert.equal(end.readBigUInt64LE(recordAt + 48), BigInt(bytes));
});

test("times that DOS cannot hold become the nearest it can, and names too long are refused", async () => {
  const writer = new ZipWriter();
  for (const [mtime, expected] of [
    ["1970-01-01T00:00:00Z", (1 << 21) | (1 << 16)],
    ["2107-12-31T23:59:59Z", ((127 << 25) | (12 << 21) | (31 << 16) | (23 << 11) | (59 << 5) | 29) >>> 0],
    ["9999-01-01T00:00:00Z", ((127 << 25) | (12 << 21) | (31 << 16) | (23 << 11) | (59 << 5) | 29) >>> 0],
  ] as const) {
    const entry = await collect(writer.add("f", nodeOf({ mtime }), { sizeBytes: 0, content: [] }));
    assert.equal(entry.readUInt32LE(10), expected, mtime);
  }
  await assert.rejects(collect(writer.add("x".repeat(65_536), nodeOf({}), { sizeBytes: 0, content: [] })), (error) =>
    isFailure(error, "InvalidArgument"),
  );
});
