import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { blobIdOf, bytesOfId, hexOf, parseBlobId, parsePackId, readHex, writeHex } from "./ids.ts";

test("parseBlobId() takes 64 lower-case hex characters and nothing else", () => {
  const hex = randomBytes(32).toString("hex");
  assert.equal(parseBlobId(hex), hex);
  const wrong = [
    "",
    hex.slice(1),
    `${hex}0`,
    hex.toUpperCase().replace(/[0-9]/g, "A"),
    `${hex.slice(1)}g`,
    `${hex.slice(1)}\n`,
    `../${hex.slice(3)}`,
  ];
  for (const text of wrong) assert.throws(() => parseBlobId(text), { code: "InvalidArgument" }, text);
  assert.throws(
    () => parsePackId("x".repeat(5000)),
    (error: Error) => error.message.length < 250 && error.message.includes("pack id"),
  );
});

test("hexOf(), writeHex() and readHex() agree with Buffer at any offset", () => {
  const bytes = new Uint8Array(randomBytes(100));
  for (const offset of [0, 1, 68]) {
    const hex = Buffer.from(bytes.subarray(offset, offset + 32)).toString("hex");
    assert.equal(hexOf(bytes, offset), hex);
    const text = new Uint8Array(70);
    writeHex(text, 3, bytes, offset);
    assert.equal(Buffer.from(text.subarray(3, 67)).toString("latin1"), hex);
    const back = new Uint8Array(40);
    assert.equal(readHex(text, 3, back, 5), true);
    assert.deepEqual(back.subarray(5, 37), bytes.subarray(offset, offset + 32));
  }
  assert.deepEqual(new Uint8Array(bytesOfId(blobIdOf(bytes.subarray(0, 32)))), bytes.subarray(0, 32));
});

test("readHex() refuses each byte that is no lower-case hex digit, and a short source", () => {
  const good = Buffer.from("0123456789abcdef".repeat(4), "latin1");
  const target = new Uint8Array(32);
  assert.equal(readHex(good, 0, target), true);
  assert.equal(readHex(good, 1, target), false);
  for (let byte = 0; byte < 256; byte++) {
    for (const at of [0, 1, 63]) {
      const text = new Uint8Array(good);
      text[at] = byte;
      assert.equal(readHex(text, 0, target), /[0-9a-f]/.test(String.fromCharCode(byte)), `byte ${byte} at ${at}`);
    }
  }
});

test("blobIdOf() refuses any other number of bytes", () => {
  assert.throws(() => blobIdOf(new Uint8Array(31)), { code: "InvalidArgument" });
  assert.throws(() => blobIdOf(new Uint8Array(33)), { code: "InvalidArgument" });
});
