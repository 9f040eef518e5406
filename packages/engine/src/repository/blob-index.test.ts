import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { BlobIndex, type BlobIndexHandle, type BlobPlace } from "./blob-index.ts";

/** The n-th of ids that look random. */
function idOf(n: number): Buffer {
  return createHash("sha256").update(String(n)).digest();
}

function placeOf(n: number, isTree = false): BlobPlace {
  return { pack: n % 1000, offsetBytes: (n * 7919) >>> 0, sealedBytes: n + 32, plainBytes: n % 3 === 0 ? 0 : n * 2, isTree };
}

test("an index gives back what was put into it, across many segments, and nothing else", () => {
  const index = new BlobIndex();
  const count = 300_000;
  const id = Buffer.alloc(32);
  for (let n = 0; n < count; n++) {
    id.writeUInt32LE(Math.imul(n, 2654435761) >>> 0, 4);
    id.writeUInt32LE(n, 8);
    assert.equal(index.add(id, 0, placeOf(n)), true);
  }
  assert.equal(index.size, count);
  for (let n = 0; n < count; n += 17) {
    id.writeUInt32LE(Math.imul(n, 2654435761) >>> 0, 4);
    id.writeUInt32LE(n, 8);
    const entry = index.find(id);
    assert.deepEqual(index.placeOf(entry), placeOf(n));
    assert.deepEqual(Buffer.from(index.idOf(entry)), id);
    assert.equal(index.find(id, 0, true), -1);
    assert.equal(index.add(id, 0, placeOf(5)), false);
    id.writeUInt32LE(1, 12);
    assert.equal(index.find(id), -1);
    id.writeUInt32LE(0, 12);
  }
});

test("offsets and lengths up to 2^32-1 are kept", () => {
  const index = new BlobIndex();
  const place = { pack: 0, offsetBytes: 2 ** 32 - 1, sealedBytes: 2 ** 32 - 2, plainBytes: 2 ** 32 - 3, isTree: true };
  index.add(idOf(1), 0, place);
  assert.deepEqual(index.placeOf(index.find(idOf(1))), place);
});

test("ids are read at an offset of what they are given in", () => {
  const index = new BlobIndex();
  const bytes = Buffer.concat([Buffer.alloc(5), idOf(1), idOf(2)]);
  index.add(bytes, 5, placeOf(1));
  index.claim(bytes, 37, false);
  assert.ok(index.find(idOf(1)) >= 0);
  assert.ok(index.find(idOf(2)) >= 0);
  assert.equal(index.find(bytes, 6), -1);
});

test("packs are kept by number", () => {
  const index = new BlobIndex();
  const numbers = Array.from({ length: 40_000 }, (_, n) => index.addPack(Buffer.concat([idOf(n), idOf(n + 1)]), 32));
  assert.equal(index.packs, 40_000);
  for (const n of [0, 1, 39_999]) assert.deepEqual(Buffer.from(index.packId(numbers[n] ?? 0)), idOf(n + 1));
});

test("a blob is claimed by one, has no place until it is stored, and is one of another type beside it", () => {
  const index = new BlobIndex();
  assert.equal(index.claim(idOf(1), 0, false), true);
  assert.equal(index.claim(idOf(1), 0, false), false);
  assert.equal(index.placeOf(index.find(idOf(1))), undefined);
  assert.equal(index.claim(idOf(1), 0, true), true);
  assert.equal(index.claim(idOf(1), 0, true), false);
  index.place(index.find(idOf(1), 0, true), placeOf(9, true));
  assert.deepEqual(index.placeOf(index.find(idOf(1), 0, true)), placeOf(9, true));
  assert.equal(index.placeOf(index.find(idOf(1), 0, false)), undefined);
});

test("claims that are dropped are as if they had not been; what has a place stays", () => {
  const index = new BlobIndex();
  index.claim(idOf(1), 0, false);
  index.claim(idOf(2), 0, false);
  index.add(idOf(3), 0, placeOf(3));
  index.place(index.find(idOf(2)), placeOf(2));
  index.dropClaims();
  assert.equal(index.find(idOf(1)), -1);
  assert.deepEqual(index.placeOf(index.find(idOf(2))), placeOf(2));
  assert.deepEqual(index.placeOf(index.find(idOf(3))), placeOf(3));
  assert.equal(index.claim(idOf(1), 0, false), true);
  assert.ok(index.find(idOf(1)) >= 0);
  assert.equal(index.claim(idOf(1), 0, false), false);
  index.dropClaims();
  assert.equal(index.add(idOf(1), 0, placeOf(1)), true, "a blob that somebody else stored meanwhile");
  assert.deepEqual(index.placeOf(index.find(idOf(1))), placeOf(1));
});

test("a blob that is disowned is as if it were not there, until it is stored anew", () => {
  const index = new BlobIndex();
  index.add(idOf(1), 0, placeOf(1, true));
  index.disown(index.find(idOf(1)));
  assert.equal(index.find(idOf(1)), -1);
  assert.equal(index.claim(idOf(1), 0, true), true);
  assert.equal(index.claim(idOf(1), 0, true), false);
  index.place(index.find(idOf(1)), placeOf(7, true));
  assert.deepEqual(index.placeOf(index.find(idOf(1))), placeOf(7, true));
});

test("whatever is added, claimed, placed and dropped in whatever order, an index agrees with a map", () => {
  const step = fc.record({ act: fc.constantFrom("add", "claim", "place", "drop", "disown"), n: fc.nat(12), isTree: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: "max" }), (steps) => {
      const index = new BlobIndex();
      const model = new Map<string, BlobPlace | "claimed">();
      for (const { act, n, isTree } of steps) {
        const key = `${n} ${isTree}`;
        const known = model.get(key);
        if (act === "add") {
          assert.equal(index.add(idOf(n), 0, placeOf(n, isTree)), known === undefined);
          if (known === undefined) model.set(key, placeOf(n, isTree));
        } else if (act === "claim") {
          assert.equal(index.claim(idOf(n), 0, isTree), known === undefined);
          if (known === undefined) model.set(key, "claimed");
        } else if (act === "place" && known === "claimed") {
          index.place(index.find(idOf(n), 0, isTree), placeOf(n + 1, isTree));
          model.set(key, placeOf(n + 1, isTree));
        } else if (act === "drop") {
          index.dropClaims();
          for (const [each, value] of model) if (value === "claimed") model.delete(each);
        } else if (act === "disown" && known !== undefined) {
          index.disown(index.find(idOf(n), 0, isTree));
          model.delete(key);
        }
        for (const each of [true, false]) {
          const expected = model.get(`${n} ${each}`);
          const entry = index.find(idOf(n), 0, each);
          assert.equal(entry >= 0, expected !== undefined, `${act} ${n}`);
          if (expected !== undefined) assert.deepEqual(index.placeOf(entry), expected === "claimed" ? undefined : expected);
        }
        assert.equal(index.find(idOf(n)) >= 0, model.has(`${n} true`) || model.has(`${n} false`));
      }
    }),
    { seed: 5, numRuns: 300 },
  );
});

/** Runs code in threads that share an index; `index`, `idOf` and `at`, the thread's number, are there. @returns what each answers */
async function inThreads(handle: BlobIndexHandle, threads: number, code: string): Promise<number[][]> {
  const source = `
    const { workerData, parentPort } = require("node:worker_threads");
    const { createHash } = require("node:crypto");
    const idOf = (n) => createHash("sha256").update(String(n)).digest();
    import(workerData.url).then(({ BlobIndex }) => {
      const index = new BlobIndex(workerData.handle);
      const at = workerData.at;
      Atomics.add(workerData.gate, 0, 1);
      while (Atomics.load(workerData.gate, 0) < workerData.threads);
      parentPort.postMessage((() => { ${code} })());
    });`;
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const url = new URL("./blob-index.ts", import.meta.url).href;
  const workers = Array.from(
    { length: threads },
    (_, at) => new Worker(source, { eval: true, workerData: { url, handle, at, gate, threads } }),
  );
  const answers = await Promise.all(
    workers.map((worker) => new Promise<number[]>((resolve, reject) => worker.on("message", resolve).on("error", reject))),
  );
  await Promise.all(workers.map((worker) => worker.terminate()));
  return answers;
}

test("threads that claim the same blobs at the same time: nearly always one gets it, never none, and all find it afterwards", async () => {
  const index = new BlobIndex();
  const count = 120_000;
  // Each thread goes through the ids in an order of its own, across the ends of two segments.
  const code = `
    const got = [];
    for (let i = 0; i < ${count}; i++) {
      const n = at % 2 === 0 ? i : ${count} - 1 - i;
      if (index.claim(idOf(n), 0, false)) got.push(n);
    }
    for (let n = 0; n < ${count}; n += 7) if (index.find(idOf(n), 0, false) < 0) return [-1];
    return got;`;
  const answers = await inThreads(index.handle, 3, code);
  const claims = new Map<number, number>();
  for (const n of answers.flat()) claims.set(n, (claims.get(n) ?? 0) + 1);
  assert.equal(claims.get(-1), undefined, "a thread did not find what was claimed");
  assert.equal(claims.size, count);
  const twice = [...claims.values()].filter((times) => times > 1).length;
  assert.ok(twice < 10, `${twice} blobs were claimed twice`);
  for (let n = 0; n < count; n += 13) assert.ok(index.find(idOf(n), 0, false) >= 0);
});

test("threads that add packs and blobs while others look them up see whole entries or none", async () => {
  const index = new BlobIndex();
  const count = 60_000;
  const code = `
    if (at === 0) {
      for (let n = 0; n < ${count}; n++) index.add(idOf(n), 0, { pack: n, offsetBytes: n * 3, sealedBytes: n + 40, plainBytes: n, isTree: n % 2 === 0 });
      return [0];
    }
    let wrong = 0, found = 0;
    for (let round = 0; found < 3000 && round < 4000000; round++) {
      const n = (round * 7919) % ${count};
      const entry = index.find(idOf(n));
      if (entry < 0) continue;
      found++;
      const place = index.placeOf(entry);
      if (place === undefined || place.pack !== n || place.offsetBytes !== n * 3 || place.sealedBytes !== n + 40 || place.plainBytes !== n) wrong++;
    }
    return [wrong];`;
  assert.deepEqual(await inThreads(index.handle, 3, code), [[0], [0], [0]]);
});

test("a million blobs take at most 70 bytes each", () => {
  const index = new BlobIndex();
  const id = Buffer.alloc(32);
  for (let n = 0; n < 1_000_000; n++) {
    id.writeUInt32LE(Math.imul(n, 2654435761) >>> 0, 4);
    id.writeUInt32LE(n, 20);
    index.add(id, 0, { pack: 1, offsetBytes: n, sealedBytes: 1, plainBytes: 0, isTree: false });
  }
  const { ids, places, slots, packs } = index.handle;
  const bytes = ids.byteLength + places.byteLength + slots.byteLength + packs.byteLength;
  assert.ok(bytes < 70 * 1_000_000, `${bytes / 1_000_000} bytes a blob`);
});
