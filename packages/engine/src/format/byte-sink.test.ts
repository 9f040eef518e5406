import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { ByteSink, writeDigits } from "./byte-sink.ts";

test("ByteSink keeps what was written while it grows", () => {
  const sink = new ByteSink(1);
  const id = randomBytes(40);
  sink.writeByte(0x41);
  sink.writeLatin1("short");
  sink.writeLatin1("\xff".repeat(100));
  sink.writePart(Uint8Array.of(1, 2));
  sink.writeBytes(Uint8Array.of(9, 8, 7, 6), 1, 3);
  sink.writeInteger(18446744073709551615n);
  sink.writeQuotedId(id, 8);
  const expected = `Ashort${"\xff".repeat(100)}\x01\x02\x08\x0718446744073709551615"${id.subarray(8).toString("hex")}"`;
  assert.equal(sink.copy().latin1Slice(), expected);
  assert.equal(sink.copy(1).latin1Slice(), expected.slice(1));
  sink.reset();
  sink.writeLatin1("again");
  assert.equal(sink.copy().latin1Slice(), "again");
});

test("equalsAt() compares with any place of other bytes, and never beyond their end", () => {
  const sink = new ByteSink();
  sink.writeLatin1("xabc");
  assert.equal(sink.equalsAt(1, Buffer.from("..abc."), 2), true);
  assert.equal(sink.equalsAt(1, Buffer.from("..abd."), 2), false);
  assert.equal(sink.equalsAt(1, Buffer.from("..ab"), 2), false);
  assert.equal(sink.equalsAt(4, Buffer.from(""), 0), true);
});

test("writeDigits() writes whole numbers as String() does, up to 2^64-1", () => {
  const target = new Uint8Array(24);
  const write = (value: number | bigint): string => Buffer.from(target.subarray(0, writeDigits(target, 0, value))).latin1Slice();
  for (const value of [0, 1, 9, 10, 99, 100, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 1_000_000_000, 999_999_999, Number.MAX_SAFE_INTEGER]) {
    assert.equal(write(value), String(value));
  }
  fc.assert(fc.property(fc.nat(), (value) => assert.equal(write(value), String(value))));
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => assert.equal(write(value), String(value))));
});
