import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { boundUnused, type DecideOptions, decidePacks, defaultMaxUnused, type PackUse, parseMaxUnused } from "./prune-plan.ts";
import { failsWith } from "../repository/scratch.ts";

const options: DecideOptions = {
  maxUnused: { kind: "size", sizeBytes: 0 },
  maxRepackBytes: Number.POSITIVE_INFINITY,
  cacheableOnly: false,
  small: false,
  uncompressed: false,
  dataPackBytes: 1000,
  treePackBytes: 500,
};

let made = 0;
function use(usedBytes: number, unusedBytes: number, more: Partial<PackUse> = {}): PackUse {
  const pack = made++;
  return {
    pack,
    packId: String(pack).padStart(64, "0"),
    sizeBytes: usedBytes + unusedBytes,
    usedBlobs: usedBytes === 0 ? 0 : 1,
    usedBytes,
    unusedBlobs: unusedBytes === 0 ? 0 : 1,
    redundantBlobs: 0,
    unusedBytes,
    kind: "data",
    hasUncompressed: false,
    ...more,
  };
}

test("decidePacks() removes packs of which nothing is needed, whatever may stay wasted", () => {
  assert.deepEqual(decidePacks([use(0, 100), use(100, 0)], { ...options, maxUnused: { kind: "unlimited" } }), ["remove", "keep"]);
});

test("decidePacks() replaces packs whose needed blobs are all elsewhere", () => {
  assert.deepEqual(decidePacks([use(0, 100, { redundantBlobs: 2 })], options), ["replace"]);
});

test("decidePacks() repacks what frees most for what is copied first, and stops within the bound", () => {
  const packs = [use(900, 100), use(100, 900), use(500, 500)];
  assert.deepEqual(decidePacks(packs, { ...options, maxUnused: { kind: "size", sizeBytes: 600 } }), ["keep", "repack", "keep"]);
  assert.deepEqual(decidePacks(packs, { ...options, maxUnused: { kind: "size", sizeBytes: 599 } }), ["keep", "repack", "repack"]);
  assert.deepEqual(decidePacks(packs, options), ["repack", "repack", "repack"]);
  assert.deepEqual(decidePacks(packs, { ...options, maxUnused: { kind: "unlimited" } }), ["keep", "keep", "keep"]);
});

test("decidePacks() keeps within the bound of what is repacked, and takes a smaller pack when a larger one does not fit", () => {
  const packs = [use(100, 900), use(50, 200)];
  assert.deepEqual(decidePacks(packs, { ...options, maxRepackBytes: 999 }), ["keep", "repack"]);
});

test("decidePacks() repacks trees only, when asked to", () => {
  assert.deepEqual(decidePacks([use(100, 900), use(100, 900, { kind: "tree" })], { ...options, cacheableOnly: true }), ["keep", "repack"]);
});

test("decidePacks() repacks mixed packs always, and uncompressed ones when asked to", () => {
  const packs = [use(1000, 0, { kind: "mixed" }), use(1000, 0, { hasUncompressed: true })];
  assert.deepEqual(decidePacks(packs, { ...options, maxUnused: { kind: "unlimited" } }), ["repack", "keep"]);
  assert.deepEqual(decidePacks(packs, { ...options, uncompressed: true }), ["repack", "repack"]);
});

test("decidePacks() puts small packs together when asked to, but only when that makes fewer", () => {
  const small = { ...options, small: true };
  assert.deepEqual(decidePacks([use(300, 0), use(300, 0), use(1000, 0)], small), ["repack", "repack", "keep"]);
  assert.deepEqual(decidePacks([use(300, 0), use(1000, 0)], small), ["keep", "keep"]);
  assert.deepEqual(decidePacks([use(700, 0), use(700, 0)], small), ["keep", "keep"]);
  assert.deepEqual(decidePacks([use(300, 0), use(300, 0, { kind: "tree" })], small), ["keep", "keep"]);
});

test("decidePacks() never removes a pack that has needed blobs, and keeps its promises, whatever the numbers", () => {
  const packs = fc.array(
    fc.record({
      used: fc.integer({ min: 0, max: 1000 }),
      unused: fc.integer({ min: 0, max: 1000 }),
      redundant: fc.integer({ min: 0, max: 3 }),
      kind: fc.constantFrom("data" as const, "tree" as const),
    }),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(packs, fc.nat(2000), fc.nat(10_000), (specs, maxUnusedBytes, maxRepackBytes) => {
      const uses = specs.map(({ used, unused, redundant, kind }) => use(used, unused, { redundantBlobs: redundant, kind }));
      const actions = decidePacks(uses, { ...options, maxUnused: { kind: "size", sizeBytes: maxUnusedBytes }, maxRepackBytes });
      let repackBytes = 0;
      let wastedBytes = 0;
      let isRepackable = false;
      for (const [i, { usedBlobs, redundantBlobs, unusedBytes, sizeBytes }] of uses.entries()) {
        const action = actions[i];
        assert.equal(action === "remove" || action === "replace", usedBlobs === 0);
        assert.equal(action === "replace", usedBlobs === 0 && redundantBlobs > 0);
        if (action === "repack") repackBytes += sizeBytes;
        if (action === "keep") wastedBytes += unusedBytes;
      }
      for (const [i, { unusedBytes, sizeBytes }] of uses.entries()) {
        if (actions[i] === "keep" && unusedBytes > 0 && repackBytes + sizeBytes <= maxRepackBytes) isRepackable = true;
      }
      assert.ok(repackBytes <= maxRepackBytes);
      assert.ok(wastedBytes <= maxUnusedBytes || !isRepackable);
    }),
  );
});

test("parseMaxUnused() reads what restic reads", () => {
  assert.deepEqual(parseMaxUnused("unlimited"), { kind: "unlimited" });
  assert.deepEqual(parseMaxUnused("5%"), defaultMaxUnused);
  assert.deepEqual(parseMaxUnused("2.5%"), { kind: "percent", percent: 2.5 });
  assert.deepEqual(parseMaxUnused("0"), { kind: "size", sizeBytes: 0 });
  assert.deepEqual(parseMaxUnused("3M"), { kind: "size", sizeBytes: 3 * 2 ** 20 });
  for (const text of ["", "100%", "-1", "5 %", "many", "1.5G", "5%%"]) {
    assert.throws(() => parseMaxUnused(text), failsWith("InvalidArgument"));
  }
});

test("boundUnused() takes percent of the whole repository afterwards", () => {
  assert.equal(boundUnused({ kind: "percent", percent: 50 }, 100), 100);
  assert.equal(boundUnused({ kind: "percent", percent: 0 }, 100), 0);
  assert.equal(Math.round(boundUnused(defaultMaxUnused, 95)), 5);
});
