import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { sha256 } from "../crypto/hash.ts";
import { blobIdOf, hexOf } from "../format/ids.ts";
import { boundCompressed, compressInto } from "../format/zstd.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { createTreeLoader, loadBlob } from "./blob-load.ts";
import type { Repository } from "./repository.ts";
import { createScratch, failsWith, flip, plant, spoil, truncate } from "./scratch.ts";

/** Stores a pack of these blobs, every second compressed, without the header that loading does not need. @returns the blobs' ids */
async function storePack(repository: Repository, blobs: readonly Uint8Array[]): Promise<{ ids: Uint8Array[]; packName: string }> {
  const parts: Uint8Array[] = [];
  const places: { id: Uint8Array; offsetBytes: number; sealedBytes: number; plainBytes: number }[] = [];
  let offsetBytes = 0;
  for (const [i, blob] of blobs.entries()) {
    let body = blob;
    if (i % 2 === 1) {
      const frame = Buffer.alloc(boundCompressed(blob.length));
      body = frame.subarray(0, compressInto(frame, blob, 3));
    }
    const sealed = repository.sealer.seal(body);
    parts.push(sealed);
    places.push({ id: sha256(blob), offsetBytes, sealedBytes: sealed.length, plainBytes: i % 2 === 1 ? blob.length : 0 });
    offsetBytes += sealed.length;
  }
  const { name } = await plant(repository.store, "pack", Buffer.concat(parts));
  const pack = repository.index.addPack(Buffer.from(name, "hex"));
  for (const { id, ...place } of places) repository.index.add(id, 0, { pack, isTree: false, ...place });
  return { ids: places.map(({ id }) => id), packName: name };
}

test("blobs are loaded by bytes and by text, compressed or not, empty or large", async () => {
  const repository = await createScratch();
  const blobs = [Buffer.alloc(0), Buffer.from("abc".repeat(100)), randomBytes(300_000), Buffer.alloc(500_000, 7)];
  const { ids } = await storePack(repository, blobs);
  for (const [i, id] of ids.entries()) {
    assert.deepEqual(Buffer.from(await loadBlob(repository, id)), blobs[i]);
    assert.deepEqual(Buffer.from(await loadBlob(repository, blobIdOf(id))), blobs[i]);
  }
});

test("what loadBlob() answers with stays as it is when other blobs are loaded", async () => {
  const repository = await createScratch();
  const blobs = Array.from({ length: 8 }, (_, i) => Buffer.alloc(5000, i));
  const { ids } = await storePack(repository, blobs);
  const loaded = await Promise.all(ids.map((id) => loadBlob(repository, id)));
  for (const [i, bytes] of loaded.entries()) assert.deepEqual(Buffer.from(bytes), blobs[i]);
});

test("a blob that the index does not know is missing, and so is one that is only claimed", async () => {
  const repository = await createScratch();
  const id = randomBytes(32);
  await assert.rejects(loadBlob(repository, id), failsWith("BlobMissing", new RegExp(hexOf(id))));
  repository.index.claim(id, 0, false);
  await assert.rejects(loadBlob(repository, id), failsWith("BlobMissing"));
});

test("a damaged blob is named with its pack", async () => {
  const repository = await createScratch();
  const { ids, packName } = await storePack(repository, [randomBytes(1000)]);
  const [id = randomBytes(32)] = ids;
  await spoil(repository.store, { kind: "pack", name: packName }, flip);
  await assert.rejects(loadBlob(repository, id), failsWith("BlobInvalid", new RegExp(`blob "${hexOf(id)}" in pack "${packName}": `)));
  await spoil(repository.store, { kind: "pack", name: packName }, truncate);
  await assert.rejects(loadBlob(repository, id), failsWith("StoreTruncated", new RegExp(packName)));
  await repository.store.remove({ kind: "pack", name: packName });
  await assert.rejects(loadBlob(repository, id), failsWith("StoreFileNotFound", new RegExp(packName)));
});

test("a whole blob in the place of another is not taken for it", async () => {
  const repository = await createScratch();
  const { index } = repository;
  const { ids } = await storePack(repository, [Buffer.from("one"), Buffer.from("two".repeat(50))]);
  for (const id of ids) {
    const place = index.placeOf(index.find(id));
    assert.ok(place !== undefined);
    const swapped = randomBytes(32);
    index.add(swapped, 0, place);
    await assert.rejects(loadBlob(repository, swapped), failsWith("BlobInvalid", new RegExp(`has the hash ${hexOf(id)}`)));
  }
});

test("a plain length that is not the right one is refused", async () => {
  const repository = await createScratch();
  const { index } = repository;
  const blob = Buffer.from("two".repeat(50));
  const { packName } = await storePack(repository, [Buffer.alloc(0), blob]);
  for (const plainBytes of [blob.length - 1, blob.length + 1, 1, 0]) {
    const copy = await createScratch();
    const place = index.placeOf(index.find(sha256(blob)));
    assert.ok(place !== undefined);
    const pack = copy.index.addPack(Buffer.from(packName, "hex"));
    copy.index.add(sha256(blob), 0, { ...place, pack, plainBytes });
    const source = { store: repository.store, sealer: repository.sealer, index: copy.index };
    await assert.rejects(loadBlob(source, sha256(blob)), failsWith("BlobInvalid"), String(plainBytes));
  }
});

test("trees that were used last are kept, within the bytes allowed", async () => {
  const repository = await createScratch();
  const blobs = Array.from({ length: 4 }, (_, i) => Buffer.alloc(1000, i));
  const { ids } = await storePack(repository, blobs);
  const store = createFaultyStore(repository.store);
  const load = createTreeLoader({ ...repository, store }, { cacheBytes: 3000 });
  const loadCount = async (...numbers: readonly number[]): Promise<number> => {
    const before = store.calls.length;
    for (const number of numbers) assert.deepEqual(Buffer.from(await load(ids[number] ?? randomBytes(32))), blobs[number]);
    return store.calls.length - before;
  };
  assert.equal(await loadCount(0, 1, 2), 3);
  assert.equal(await loadCount(0, 1, 2), 0);
  assert.equal(await loadCount(0, 3), 1, "3 takes the place of 1, the one used longest ago");
  assert.equal(await loadCount(0, 2, 3), 0);
  assert.equal(await loadCount(1), 1);
  const none = createTreeLoader({ ...repository, store }, { cacheBytes: 999 });
  await none(ids[0] ?? randomBytes(32));
  const before = store.calls.length;
  await none(ids[0] ?? randomBytes(32));
  assert.equal(store.calls.length, before + 1, "one larger than the cache is not kept");
});

test("a tree that failed to load is loaded again, and a signal stops a load", async () => {
  const repository = await createScratch();
  const { ids } = await storePack(repository, [Buffer.from("tree")]);
  const [id = randomBytes(32)] = ids;
  const flaky = createFaultyStore(repository.store, [{ operation: "load", nth: 1, mode: "before" }]);
  const load = createTreeLoader({ ...repository, store: flaky });
  await assert.rejects(load(id), failsWith("StoreUnavailable", /./));
  assert.equal(Buffer.from(await load(id)).toString(), "tree");
  const hanging = createFaultyStore(repository.store, [{ operation: "load", mode: "hang" }]);
  const stop = new AbortController();
  const loading = loadBlob({ ...repository, store: hanging }, id, stop.signal);
  setImmediate(() => stop.abort());
  await assert.rejects(loading, failsWith("Cancelled"));
});
