import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { openOpenssl } from "../native/openssl.ts";
import { openZstd } from "../native/zstd.ts";
import { boundCompressed, compressInto, decompressInto } from "../format/zstd.ts";
import { type MasterKey, Sealer, sealOverheadBytes } from "./seal.ts";

const key: MasterKey = { encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) };

test("the native primitives are in use on Linux", { skip: process.platform !== "linux" }, () => {
  assert.notEqual(openOpenssl(), undefined);
  assert.notEqual(openZstd(), undefined);
});

test("what one sealer seals, native or not, the other opens", () => {
  const sealers = [new Sealer(key), new Sealer(key, null)];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 5000 }), fc.integer({ min: 0, max: 1 }), fc.integer({ min: 0, max: 1 }), (plain, from, to) => {
      const sealed = sealers[from]?.seal(plain);
      assert.equal(sealed?.length, plain.length + sealOverheadBytes);
      assert.deepEqual(new Uint8Array(sealers[to]?.open(sealed ?? plain) ?? []), plain);
    }),
  );
});

test("open() refuses every flipped bit of the text and the code, and any truncation", () => {
  const sealer = new Sealer(key);
  const sealed = sealer.seal(Buffer.from("the only copy that is left"));
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const damaged = Buffer.from(sealed);
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.throws(
      () => sealer.open(damaged),
      (error) => isFailure(error, "SealBroken"),
    );
  }
  for (let length = 0; length < sealed.length; length++) {
    assert.throws(
      () => sealer.open(sealed.subarray(0, length)),
      (error) => isFailure(error, "SealBroken"),
    );
  }
});

test("IVs do not repeat over several refills of the pool", () => {
  const sealer = new Sealer(key);
  const seen = new Set<string>();
  for (let i = 0; i < 2000; i++) seen.add(sealer.seal(Buffer.alloc(0)).subarray(0, 16).toString("hex"));
  assert.equal(seen.size, 2000);
});

test("openInto() opens in place", () => {
  const sealer = new Sealer(key);
  const sealed = sealer.seal(Buffer.from("abc".repeat(1000)));
  const length = sealer.openInto(sealed, 0, sealed);
  assert.equal(sealed.subarray(0, length).toString(), "abc".repeat(1000));
});

test("compression round-trips and refuses what does not fit", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 3000 }), (plain) => {
      const frame = Buffer.alloc(boundCompressed(plain.length));
      const made = compressInto(frame, plain, 1);
      assert.ok(made > 0);
      const back = Buffer.alloc(plain.length);
      assert.equal(decompressInto(back, frame.subarray(0, made)), plain.length);
      assert.deepEqual(new Uint8Array(back), plain);
      assert.equal(decompressInto(Buffer.alloc(plain.length - 1), frame.subarray(0, made)), -1);
    }),
  );
});
