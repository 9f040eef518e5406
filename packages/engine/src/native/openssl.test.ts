import assert from "node:assert/strict";
import { createCipheriv, createHash, createMac } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { openOpenssl } from "./openssl.ts";

function open(): NonNullable<ReturnType<typeof openOpenssl>> {
  const openssl = openOpenssl();
  assert.ok(openssl !== undefined, "this Node exports the OpenSSL it was linked with");
  return openssl;
}

const bytes = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length });
const data = fc.uint8Array({ maxLength: 5000 });

test("sha256(), AES-CTR and Poly1305 give what node:crypto gives, whatever the data, the key and where they lie in memory", () => {
  const openssl = open();
  fc.assert(
    fc.property(data, bytes(32), bytes(16), fc.nat(9), (plain, key, iv, offset) => {
      const placed = Buffer.concat([Buffer.alloc(offset), plain]).subarray(offset);
      const digest = Buffer.alloc(32);
      openssl.sha256(placed, digest);
      assert.deepEqual(digest, createHash("sha256").update(plain).digest());
      const cipher = Buffer.alloc(plain.length);
      openssl.openCtr(key)(iv, placed, cipher);
      assert.deepEqual(cipher, createCipheriv("aes-256-ctr", key, iv).update(plain));
      const tag = Buffer.alloc(16);
      openssl.poly1305(key, placed, tag);
      assert.deepEqual(tag, createMac("poly1305", key).update(plain).final());
    }),
    { seed: 1, numRuns: 200 },
  );
});

test("AES-CTR works in place, in shared memory, and begins anew with each IV", () => {
  const openssl = open();
  const key = Buffer.alloc(32, 5);
  const crypt = openssl.openCtr(key);
  const shared = Buffer.from(new SharedArrayBuffer(1000));
  for (const fill of [1, 2, 3]) {
    const iv = Buffer.alloc(16, 0xff - fill);
    shared.fill(fill);
    crypt(iv, shared, shared);
    assert.deepEqual(Buffer.from(shared), createCipheriv("aes-256-ctr", key, iv).update(Buffer.alloc(1000, fill)));
  }
});

test("two ciphers with different keys do not disturb each other", () => {
  const openssl = open();
  const keys = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  const crypts = keys.map((key) => openssl.openCtr(key));
  const plain = Buffer.alloc(100, 7);
  const iv = Buffer.alloc(16, 9);
  for (const at of [0, 1, 1, 0]) {
    const cipher = Buffer.alloc(100);
    crypts[at]?.(iv, plain, cipher);
    assert.deepEqual(cipher, createCipheriv("aes-256-ctr", keys[at] ?? "", iv).update(plain));
  }
});

test("openBlocks() encrypts each block by itself", () => {
  const openssl = open();
  const key = Buffer.alloc(16, 3);
  const encrypt = openssl.openBlocks(key);
  for (const blocks of [1, 2, 256]) {
    const plain = Buffer.from(Array.from({ length: blocks * 16 }, (_, at) => at & 0xff));
    const cipher = Buffer.alloc(plain.length);
    encrypt(plain, cipher);
    assert.deepEqual(cipher, createCipheriv("aes-128-ecb", key, null).setAutoPadding(false).update(plain));
  }
});

test("a target that is too short is refused, and nothing is written behind it", () => {
  const openssl = open();
  const memory = Buffer.alloc(64, 0xee);
  assert.throws(() => openssl.openCtr(Buffer.alloc(32))(Buffer.alloc(16), Buffer.alloc(20), memory.subarray(0, 19)), RangeError);
  assert.throws(() => openssl.openBlocks(Buffer.alloc(16))(Buffer.alloc(32), memory.subarray(0, 16)), RangeError);
  assert.deepEqual(memory, Buffer.alloc(64, 0xee));
});
