import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { failsWith } from "../repository/scratch.ts";
import { parseReadDataSubset, selectPacks } from "./read-data-selection.ts";

const packs = Array.from({ length: 500 }, (_, i) => ({
  packId: createHash("sha256").update(String(i)).digest(),
  sizeBytes: 1000 + i,
}));

test("parseReadDataSubset() reads what restic reads", () => {
  assert.deepEqual(parseReadDataSubset("2/5", 1), { kind: "part", part: 2, of: 5 });
  assert.deepEqual(parseReadDataSubset("2.5%", 1), { kind: "percent", percent: 2.5, seed: 1 });
  assert.deepEqual(parseReadDataSubset("100%", 1), { kind: "percent", percent: 100, seed: 1 });
  assert.deepEqual(parseReadDataSubset("500M", 1), { kind: "size", sizeBytes: 500 * 2 ** 20, seed: 1 });
  for (const text of ["", "0/5", "6/5", "1/257", "0%", "101%", "0", "-5M", "5X", "1/2/3", "half"]) {
    assert.throws(() => parseReadDataSubset(text, 1), failsWith("InvalidArgument"));
  }
});

test("selectPacks() divides all packs among the parts", () => {
  for (const count of [1, 2, 7, 256]) {
    const parts = Array.from({ length: count }, (_, i) => selectPacks(packs, { kind: "part", part: i + 1, of: count }));
    assert.equal(
      parts.reduce((sum, { length }) => sum + length, 0),
      packs.length,
    );
    assert.equal(new Set(parts.flat()).size, packs.length);
  }
});

test("selectPacks() chooses the same again for a seed, whatever order packs come in, and other packs for another", () => {
  const selection = { kind: "percent", percent: 10, seed: 42 } as const;
  const chosen = selectPacks(packs, selection);
  assert.equal(chosen.length, 50);
  assert.deepEqual(selectPacks(packs.toReversed(), selection), chosen);
  assert.notDeepEqual(selectPacks(packs, { ...selection, seed: 43 }), chosen);
});

test("selectPacks() comes by every pack, and chooses one at least", () => {
  const chosen = new Set<unknown>();
  for (let seed = 0; seed < 100; seed++) for (const pack of selectPacks(packs, { kind: "percent", percent: 10, seed })) chosen.add(pack);
  assert.equal(chosen.size, packs.length);
  assert.equal(selectPacks(packs, { kind: "percent", percent: 0.01, seed: 1 }).length, 1);
  assert.equal(selectPacks(packs, { kind: "size", sizeBytes: 1, seed: 1 }).length, 1);
});

test("selectPacks() stops at the first pack that reaches the size", () => {
  const chosen = selectPacks(packs, { kind: "size", sizeBytes: 100_000, seed: 7 });
  const bytes = chosen.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  assert.ok(bytes >= 100_000 && bytes - (chosen.at(-1)?.sizeBytes ?? 0) < 100_000);
  assert.equal(selectPacks(packs, { kind: "size", sizeBytes: 1e12, seed: 7 }).length, packs.length);
});
