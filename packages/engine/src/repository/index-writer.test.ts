import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { fakeClock } from "@granary/base/testing";
import type { IndexId } from "../format/ids.ts";
import { COMPRESSED_ENTRY_BYTES, HEADER_LENGTH_BYTES, headerEntryBytes, SEAL_BYTES, writeHeaderEntry } from "../format/pack.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { BlobIndex } from "./blob-index.ts";
import { loadIndex } from "./index-load.ts";
import { type DurablePack, IndexWriter } from "./index-writer.ts";
import { createScratch, failsWith, listNames } from "./scratch.ts";

const sealedBytes = 100;

/** A pack of that many blobs, every second compressed. */
function makePack(blobCount: number): { pack: DurablePack; ids: Uint8Array[] } {
  const header = new Uint8Array(blobCount * COMPRESSED_ENTRY_BYTES);
  const ids: Uint8Array[] = [];
  let at = 0;
  for (let i = 0; i < blobCount; i++) {
    const id = randomBytes(32);
    ids.push(id);
    at = writeHeaderEntry(header, at, { id, type: "data", sealedBytes, plainBytes: (i % 2) * 300 });
  }
  const sizeBytes = blobCount * sealedBytes + at + SEAL_BYTES + HEADER_LENGTH_BYTES;
  return { pack: { id: randomBytes(32), sizeBytes, header: header.subarray(0, at) }, ids };
}

test("what is written is read back as it was added", async () => {
  const repository = await createScratch();
  const writer = new IndexWriter(repository);
  const packs = [makePack(3), makePack(1)];
  for (const { pack } of packs) await writer.add(pack);
  assert.equal(writer.pendingBlobs, 4);
  assert.deepEqual(await listNames(repository.store, "index"), [], "not before it is asked for");
  await writer.flush();
  assert.equal(writer.pendingBlobs, 0);
  const index = new BlobIndex();
  await loadIndex({ ...repository, index });
  assert.equal(index.size, 4);
  for (const { pack, ids } of packs) {
    for (const [i, id] of ids.entries()) {
      const place = index.placeOf(index.find(id));
      assert.ok(place !== undefined);
      assert.deepEqual(Buffer.from(index.packId(place.pack)), pack.id);
      assert.deepEqual(
        [place.offsetBytes, place.sealedBytes, place.plainBytes, place.isTree],
        [i * sealedBytes, sealedBytes, (i % 2) * 300, false],
      );
    }
  }
});

test("blobs are in the repository's index at once: claimed ones get their place, others are added, known ones stay", async () => {
  const repository = await createScratch();
  const { index } = repository;
  const { pack, ids } = makePack(3);
  const [claimed, unknown, known] = ids;
  assert.ok(claimed !== undefined && unknown !== undefined && known !== undefined);
  index.claim(claimed, 0, false);
  const before = index.addPack(randomBytes(32));
  index.add(known, 0, { pack: before, offsetBytes: 7, sealedBytes: 50, plainBytes: 0, isTree: false });
  void new IndexWriter(repository).add(pack);
  assert.equal(index.placeOf(index.find(claimed))?.offsetBytes, 0);
  assert.equal(index.placeOf(index.find(unknown))?.offsetBytes, sealedBytes);
  assert.equal(index.placeOf(index.find(known))?.pack, before);
});

test("a file is written when it is full, and after ten minutes", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  const saved: IndexId[] = [];
  const writer = new IndexWriter(repository, { clock, targetBlobs: 10, onSaved: (id) => saved.push(id) });
  await writer.add(makePack(9).pack);
  assert.equal(saved.length, 0);
  await writer.add(makePack(1).pack);
  await writer.flush();
  assert.equal(saved.length, 1);
  await writer.add(makePack(1).pack);
  await clock.advance(9 * 60_000);
  await writer.add(makePack(1).pack);
  assert.equal(writer.pendingBlobs, 2);
  await clock.advance(60_000);
  await writer.add(makePack(1).pack);
  assert.equal(writer.pendingBlobs, 0);
  await writer.flush();
  assert.equal(saved.length, 2);
  await writer.flush();
  assert.deepEqual(await listNames(repository.store, "index"), saved.toSorted());
});

test("who adds faster than files are saved waits, so that at most two files are in memory", async () => {
  const repository = await createScratch();
  const store = createFaultyStore(repository.store, [{ operation: "save", kind: "index", mode: "hang" }]);
  const writer = new IndexWriter({ ...repository, store }, { targetBlobs: 10 });
  await writer.add(makePack(10).pack);
  await writer.add(makePack(5).pack);
  let isAdded = false;
  const second = writer.add(makePack(5).pack).then(() => {
    isAdded = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isAdded, false);
  store.release();
  await second;
  // the second file hangs as well
  await new Promise((resolve) => setImmediate(resolve));
  store.release();
  await writer.flush();
  assert.equal((await listNames(repository.store, "index")).length, 2);
});

test("after a failure every call fails with it, also when nobody waited for the save", async () => {
  const repository = await createScratch();
  const store = createFaultyStore(repository.store, [{ operation: "save", kind: "index", mode: "before", code: "StoreFull" }]);
  const writer = new IndexWriter({ ...repository, store }, { targetBlobs: 10 });
  await writer.add(makePack(10).pack);
  await new Promise((resolve) => setImmediate(resolve));
  await assert.rejects(writer.add(makePack(1).pack), failsWith("StoreFull"));
  await assert.rejects(writer.flush(), failsWith("StoreFull"));
  const late = new IndexWriter({ ...repository, store });
  await late.add(makePack(1).pack);
  await assert.rejects(late.flush(), failsWith("StoreFull"));
});

test("a header that does not fit its pack is refused", async () => {
  const { pack } = makePack(2);
  const writer = new IndexWriter(await createScratch());
  await assert.rejects(writer.add({ ...pack, sizeBytes: pack.sizeBytes + 1 }), failsWith("PackInvalid"));
  await assert.rejects(writer.add({ ...pack, header: pack.header.subarray(0, headerEntryBytes(0) - 1) }), failsWith("PackInvalid"));
  assert.equal(writer.pendingBlobs, 0);
});

test("a signal stops the writer, and what is being saved", async () => {
  const repository = await createScratch();
  const stop = new AbortController();
  const store = createFaultyStore(repository.store, [{ operation: "save", mode: "hang" }]);
  const writer = new IndexWriter({ ...repository, store }, { signal: stop.signal });
  await writer.add(makePack(1).pack);
  const flushing = writer.flush();
  setImmediate(() => stop.abort());
  await assert.rejects(flushing, (error) => isFailure(error, "Cancelled"));
  await assert.rejects(writer.add(makePack(1).pack), failsWith("Cancelled"));
});
