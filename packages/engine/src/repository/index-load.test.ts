import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { encodeIndex, INDEX_ENTRY_BYTES, type IndexPack, writeIndexEntry } from "../format/index-file.ts";
import { hexOf, type IndexId } from "../format/ids.ts";
import { createFaultyStore } from "../store/faulty.ts";
import type { FileEntry, Store } from "../store/store.ts";
import { BlobIndex } from "./blob-index.ts";
import { type IndexProgress, loadIndex, scanAllIndexes } from "./index-load.ts";
import { saveFile } from "./files.ts";
import type { Repository } from "./repository.ts";
import { createScratch, failsWith, flip, spoil } from "./scratch.ts";

function idFor(name: string): Uint8Array {
  return createHash("sha256").update(name).digest();
}

/** A pack whose blobs have the hashes of these names. */
function packOf(name: string, blobs: readonly string[]): IndexPack {
  const entries = new Uint8Array(blobs.length * INDEX_ENTRY_BYTES);
  let at = 0;
  for (const [i, blob] of blobs.entries()) {
    const type = blob.startsWith("tree") ? "tree" : "data";
    at = writeIndexEntry(entries, at, { id: idFor(blob), type, offsetBytes: i * 100, sealedBytes: 100, plainBytes: i % 2 === 0 ? 0 : 500 });
  }
  return { packId: idFor(name), entries };
}

function saveIndex(repository: Repository, packs: readonly IndexPack[]): Promise<IndexId> {
  return saveFile(repository, { kind: "index", json: encodeIndex(packs) });
}

test("loadIndex() finds every blob of every file where it is", async () => {
  const repository = await createScratch();
  await saveIndex(repository, [packOf("p1", ["a", "b", "tree c"]), packOf("p2", ["d"])]);
  await saveIndex(repository, [packOf("p3", ["e", "f"]), packOf("p4", [])]);
  await loadIndex(repository);
  assert.equal(repository.index.size, 6);
  const found = ["a", "b", "tree c", "d", "e", "f"].map((name) => {
    const place = repository.index.placeOf(repository.index.find(idFor(name)));
    assert.ok(place !== undefined, name);
    const { pack, ...rest } = place;
    return { ...rest, pack: ["p1", "p2", "p3", "p4"].find((id) => hexOf(idFor(id)) === hexOf(repository.index.packId(pack))) };
  });
  assert.deepEqual(found, [
    { pack: "p1", offsetBytes: 0, sealedBytes: 100, plainBytes: 0, isTree: false },
    { pack: "p1", offsetBytes: 100, sealedBytes: 100, plainBytes: 500, isTree: false },
    { pack: "p1", offsetBytes: 200, sealedBytes: 100, plainBytes: 0, isTree: true },
    { pack: "p2", offsetBytes: 0, sealedBytes: 100, plainBytes: 0, isTree: false },
    { pack: "p3", offsetBytes: 0, sealedBytes: 100, plainBytes: 0, isTree: false },
    { pack: "p3", offsetBytes: 100, sealedBytes: 100, plainBytes: 500, isTree: false },
  ]);
  assert.equal(repository.index.find(idFor("g")), -1);
});

test("loadIndex() of an empty repository is empty", async () => {
  const repository = await createScratch();
  await loadIndex(repository);
  assert.equal(repository.index.size, 0);
});

test("scanAllIndexes() shows what is listed twice twice, file by file", async () => {
  const repository = await createScratch();
  const pack = packOf("p1", ["a", "b"]);
  const ids = [await saveIndex(repository, [pack, packOf("p2", ["b"])]), await saveIndex(repository, [pack])];
  const seen: string[] = [];
  await scanAllIndexes(repository, {
    file: (id) => seen.push(`file ${ids.indexOf(id)}`),
    pack: (packId) => seen.push(hexOf(packId) === hexOf(idFor("p1")) ? "p1" : "p2"),
    blob: ({ id }) => seen.push(hexOf(id) === hexOf(idFor("a")) ? "a" : "b"),
  });
  const first = ["file 0", "p1", "a", "b", "p2", "b"];
  const second = ["file 1", "p1", "a", "b"];
  assert.ok([[...first, ...second].join(), [...second, ...first].join()].includes(seen.join()), seen.join());
});

test("progress counts files and bytes up to the end", async () => {
  const repository = await createScratch();
  for (let i = 0; i < 5; i++) await saveIndex(repository, [packOf(`p${i}`, [`blob ${i}`])]);
  const steps: IndexProgress[] = [];
  await loadIndex(repository, { onProgress: (progress) => steps.push(progress) });
  assert.deepEqual(
    steps.map(({ filesDone, filesTotal }) => `${filesDone}/${filesTotal}`),
    ["1/5", "2/5", "3/5", "4/5", "5/5"],
  );
  assert.equal(steps.at(-1)?.bytesDone, steps.at(-1)?.bytesTotal);
});

test("a damaged index file fails the load and is named; told where to report it, the rest is loaded", async () => {
  const repository = await createScratch();
  await saveIndex(repository, [packOf("p1", ["a"])]);
  const flipped = await saveIndex(repository, [packOf("p2", ["b"])]);
  await spoil(repository.store, { kind: "index", name: flipped }, flip);
  await assert.rejects(loadIndex(repository), failsWith("NameMismatch", new RegExp(flipped)));
  const broken = await saveFile(repository, { kind: "index", json: Buffer.from('{"packs":[{"id":"ab"}]}') });
  const damaged = new Map<string, string>();
  const index = new BlobIndex();
  await loadIndex({ ...repository, index }, { onDamaged: (id, failure) => damaged.set(id, failure.code) });
  assert.deepEqual(damaged, new Map([...damaged.keys()].map((id) => [id, id === broken ? "IndexInvalid" : "NameMismatch"])));
  assert.equal(damaged.size, 2);
  assert.ok(index.find(idFor("a")) >= 0);
  assert.equal(index.find(idFor("b")), -1);
});

test("an index file that is not what it should be is named in the message", async () => {
  for (const json of ['{"packs":[{"id":"ab"}]}', "{}", '{"packs":[]} more', '{"packs":[{"id":"']) {
    const repository = await createScratch();
    const id = await saveFile(repository, { kind: "index", json: Buffer.from(json) });
    await assert.rejects(loadIndex(repository), failsWith("IndexInvalid", new RegExp(`Cannot read index "${id}": `)));
  }
});

test("an index file that vanishes while it is read is reported, a store that goes away ends the work", async () => {
  const repository = await createScratch();
  await saveIndex(repository, [packOf("p1", ["a"])]);
  const gone = createFaultyStore(repository.store, [{ operation: "load", mode: "before", code: "StoreFileNotFound" }]);
  await assert.rejects(loadIndex({ ...repository, store: gone }), failsWith("StoreFileNotFound"));
  const codes: string[] = [];
  await loadIndex({ ...repository, store: gone }, { onDamaged: (_, failure) => codes.push(failure.code) });
  assert.deepEqual(codes, ["StoreFileNotFound"]);
  const away = createFaultyStore(repository.store, [{ operation: "load", mode: "before" }]);
  await assert.rejects(loadIndex({ ...repository, store: away }, { onDamaged: assert.fail }), failsWith("StoreUnavailable"));
  const hanging = createFaultyStore(repository.store, [{ operation: "load", mode: "hang" }]);
  const stop = new AbortController();
  const loading = loadIndex({ ...repository, store: hanging }, { signal: stop.signal });
  setImmediate(() => stop.abort());
  await assert.rejects(loading, failsWith("Cancelled"));
});

test("what a visitor throws is thrown, not taken for damage", async () => {
  const repository = await createScratch();
  await saveIndex(repository, [packOf("p1", ["a"])]);
  const visitor = {
    pack: () => {
      throw new TypeError("mine");
    },
    blob: () => undefined,
  };
  await assert.rejects(scanAllIndexes(repository, visitor, { onDamaged: assert.fail }), /mine/);
});

test("not more than a bounded number of bytes is loaded ahead, whatever the sizes of the files", async () => {
  const repository = await createScratch();
  for (let i = 0; i < 12; i++) await saveIndex(repository, [packOf(`p${i}`, [`blob ${i}`])]);
  let inFlight = 0;
  let most = 0;
  // As large as the list says a file is, so much is counted.
  const claimedBytes = 6 * 2 ** 20;
  const store: Store = {
    ...bind(repository.store),
    concurrency: 16,
    async load(ref, span, signal) {
      most = Math.max(most, ++inFlight);
      return repository.store.load(ref, span, signal);
    },
    async *list(kind, signal) {
      for await (const { name } of repository.store.list(kind, signal)) yield { name, sizeBytes: claimedBytes } satisfies FileEntry;
    },
  };
  const index = new BlobIndex();
  await loadIndex({ ...repository, store, index }, { onProgress: () => inFlight-- });
  assert.equal(index.size, 12);
  assert.equal(most, 2, "16 MiB hold two files of 6 MiB");
});

test("a file that is larger than the bound is loaded all the same", async () => {
  const repository = await createScratch();
  for (let i = 0; i < 3; i++) await saveIndex(repository, [packOf(`p${i}`, [`blob ${i}`])]);
  const store: Store = {
    ...bind(repository.store),
    async *list(kind, signal) {
      for await (const { name } of repository.store.list(kind, signal)) yield { name, sizeBytes: 2 ** 40 };
    },
  };
  const index = new BlobIndex();
  await loadIndex({ ...repository, store, index });
  assert.equal(index.size, 3);
});

function bind(store: Store): Store {
  return {
    location: store.location,
    concurrency: store.concurrency,
    settleMs: 0,
    create: () => store.create(),
    save: (ref, data, signal) => store.save(ref, data, signal),
    load: (ref, span, signal) => store.load(ref, span, signal),
    stat: (ref, signal) => store.stat(ref, signal),
    list: (kind, signal) => store.list(kind, signal),
    remove: (ref, signal) => store.remove(ref, signal),
    close: () => store.close(),
  };
}
