import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { constants, zstdCompressSync } from "node:zlib";
import { type Failure, isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { Sealer } from "../crypto/seal.ts";
import { decodeFile, type DecodeFileOptions, encodeFile } from "./file.ts";

const sealer = new Sealer({ encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) });
const asIndex: DecodeFileOptions = { code: "IndexInvalid", subject: 'index "ab12"', limitBytes: 100_000 };

function refuses(needed: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isFailure(error, "IndexInvalid"), String(error));
    assert.match(error.message, /^Cannot read index "ab12": /);
    assert.match(error.message, needed);
    return true;
  };
}

test("what encodeFile() seals, decodeFile() opens, compressed or not", () => {
  fc.assert(
    fc.property(fc.json(), fc.boolean(), (text, compress) => {
      const json = Buffer.from(`{"value":${text}}`);
      assert.deepEqual(Buffer.from(decodeFile(sealer, encodeFile(sealer, json, compress), asIndex)), json);
    }),
  );
});

test("a file that is compressed is smaller, and one that is not is the JSON and 32 bytes", () => {
  const json = Buffer.from(`{"list":[${"1234567890,".repeat(1000)}0]}`);
  assert.equal(encodeFile(sealer, json, false).length, json.length + 32);
  assert.ok(encodeFile(sealer, json, true).length < json.length / 10);
  assert.equal(sealer.open(encodeFile(sealer, json, true))[0], 2);
});

test("JSON of the first versions, an array or an object, is read as it is", () => {
  for (const text of ["[]", '{"packs":[]}']) {
    assert.equal(Buffer.from(decodeFile(sealer, sealer.seal(Buffer.from(text)), asIndex)).toString(), text);
  }
});

test("frames of every kind are read: with a checksum, without a length, several in a row", () => {
  const json = Buffer.from(`{"a":"${"b".repeat(3000)}"}`);
  const withChecksum = zstdCompressSync(json, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  const withoutLength = zstdCompressSync(json, { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
  const two = Buffer.concat([zstdCompressSync(json.subarray(0, 1000)), zstdCompressSync(json.subarray(1000))]);
  for (const frame of [withChecksum, withoutLength, two]) {
    const file = sealer.seal(Buffer.concat([Buffer.of(2), frame]));
    assert.deepEqual(Buffer.from(decodeFile(sealer, file, asIndex)), json);
  }
});

test("what opens into more than is allowed is refused, whether it says so or not", () => {
  const bomb = Buffer.alloc(asIndex.limitBytes + 1, 0x20);
  bomb[0] = 0x7b;
  const honest = encodeFile(sealer, bomb, true);
  assert.throws(() => decodeFile(sealer, honest, asIndex), refuses(/decompresses to 100001 bytes, at most 100000 allowed/));
  const silent = zstdCompressSync(bomb, { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
  assert.throws(() => decodeFile(sealer, sealer.seal(Buffer.concat([Buffer.of(2), silent])), asIndex), refuses(/cannot be decompressed/));
  // promises 5 bytes and holds more
  const liar = Buffer.from(zstdCompressSync(Buffer.alloc(200, 0x7b)));
  assert.equal((liar[4] ?? 0) & 0xe0, 0x20, "a frame of one segment with a length of one byte");
  liar[5] = 5;
  assert.throws(() => decodeFile(sealer, sealer.seal(Buffer.concat([Buffer.of(2), liar])), asIndex), refuses(/cannot be decompressed/));
  assert.equal(decodeFile(sealer, encodeFile(sealer, bomb.subarray(0, -1), true), asIndex).length, asIndex.limitBytes);
});

test("what is no file is refused with the name of what was read", () => {
  const good = encodeFile(sealer, Buffer.from("{}"), true);
  for (let length = 0; length < good.length; length++) {
    assert.throws(() => decodeFile(sealer, good.subarray(0, length), asIndex), refuses(/bytes, more than 32 needed|does not match/));
  }
  const other = new Sealer({ encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) });
  assert.throws(
    () => decodeFile(other, good, asIndex),
    (error: Failure) => refuses(/sealed under another key/)(error) && isFailure(error.cause, "SealBroken"),
  );
  assert.throws(() => decodeFile(sealer, sealer.seal(Buffer.alloc(0)), asIndex), refuses(/it is empty/));
  assert.throws(() => decodeFile(sealer, sealer.seal(Buffer.from("hello")), asIndex), refuses(/begins with byte 0x68/));
  assert.throws(() => decodeFile(sealer, sealer.seal(Buffer.of(2)), asIndex), refuses(/cannot be decompressed/));
  assert.throws(() => decodeFile(sealer, sealer.seal(Buffer.from("\x02no frame at all")), asIndex), refuses(/cannot be decompressed/));
});

test("no bytes under the seal make decodeFile() fail otherwise than by saying what is wrong", () => {
  const frame = zstdCompressSync(Buffer.from('{"packs":[]}'));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(frame.length), (bytes, keep) => {
      const plain = Buffer.concat([Buffer.of(2), frame.subarray(0, keep), bytes]);
      try {
        assert.ok(decodeFile(sealer, sealer.seal(plain), asIndex).length <= asIndex.limitBytes);
      } catch (error) {
        assert.ok(isFailure(error, "IndexInvalid"), String(error));
      }
    }),
    { numRuns: 500 },
  );
});
