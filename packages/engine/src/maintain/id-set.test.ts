import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sha256 } from "../crypto/hash.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { BlobSet, IdSet } from "./id-set.ts";

const idOf = (text: string | number): Buffer => sha256(Buffer.from(String(text)));

test("IdSet holds what was added, once each, through many doublings", () => {
  const set = new IdSet();
  for (let i = 0; i < 5000; i++) assert.equal(set.add(idOf(i)), true);
  for (let i = 0; i < 5000; i++) assert.equal(set.add(idOf(i)), false);
  assert.equal(set.size, 5000);
  for (let i = 0; i < 5000; i++) assert.equal(set.has(idOf(i)), true);
  for (let i = 5000; i < 6000; i++) assert.equal(set.has(idOf(i)), false);
});

test("IdSet tells ids apart that begin alike", () => {
  const set = new IdSet();
  const first = Buffer.alloc(32);
  const second = Buffer.alloc(32);
  second[31] = 1;
  assert.equal(set.add(first), true);
  assert.equal(set.has(second), false);
  assert.equal(set.add(second), true);
  assert.equal(set.size, 2);
});

test("BlobSet holds exactly the blobs added, also those the index learned later", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(400), { maxLength: 200 }), fc.array(fc.nat(400), { maxLength: 100 }), (known, added) => {
      const index = new BlobIndex();
      const pack = index.addPack(idOf("pack"));
      const set = new BlobSet(index);
      for (const name of known) index.add(idOf(name), 0, { pack, offsetBytes: 0, sealedBytes: 40, plainBytes: 0, isTree: false });
      const expected = new Set<number>();
      for (const name of added) {
        const isKnown = known.includes(name);
        assert.equal(set.add(idOf(name)), isKnown ? (expected.has(name) ? 0 : 1) : -1);
        if (isKnown) expected.add(name);
      }
      for (let name = 0; name <= 400; name++) assert.equal(set.has(idOf(name)), expected.has(name));
      const entries = [...set.entries()];
      assert.deepEqual(
        entries.map((entry) => Buffer.from(index.idOf(entry)).toString("hex")).sort(),
        [...expected].map((name) => idOf(name).toString("hex")).sort(),
      );
      assert.deepEqual(
        entries,
        [...entries].sort((a, b) => a - b),
      );
    }),
    { numRuns: 30 },
  );
});
