import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { sha256 } from "../crypto/hash.ts";
import type { Repository } from "../repository/repository.ts";
import { createScratch } from "../repository/scratch.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { measureContent, readContent } from "./file-content.ts";

/** Puts blobs into a repository, each a pack of its own without a header, which nothing here reads. @returns their ids */
async function addBlobs(repository: Repository, blobs: readonly Uint8Array[]): Promise<Buffer> {
  const ids: Buffer[] = [];
  for (const blob of blobs) {
    const id = sha256(blob);
    ids.push(id);
    const sealed = repository.sealer.seal(blob);
    const name = sha256(sealed);
    await repository.store.save({ kind: "pack", name: name.toString("hex") }, sealed);
    repository.index.add(id, 0, {
      pack: repository.index.addPack(name),
      offsetBytes: 0,
      sealedBytes: sealed.length,
      plainBytes: 0,
      isTree: false,
    });
  }
  return Buffer.concat(ids);
}

const plain = { prepare: (bytes: Uint8Array): Uint8Array => bytes };

test("readContent() gives a file's blobs in order, whatever is done with them meanwhile", async () => {
  const repository = await createScratch();
  const blobs = Array.from({ length: 40 }, (_, i) => randomBytes(1 + ((i * 7919) % 5000)));
  const content = await addBlobs(repository, blobs);
  assert.equal(
    measureContent(repository.index, content),
    blobs.reduce((sum, { length }) => sum + length, 0),
  );
  assert.ok(Buffer.concat(await Array.fromAsync(readContent(repository, content, plain))).equals(Buffer.concat(blobs)));
  const delayed = readContent(repository, content, {
    prepare: async (bytes) => {
      for (let i = 0; i < bytes.length % 7; i++) await new Promise((resolve) => setImmediate(resolve));
      return bytes.length;
    },
  });
  assert.deepEqual(
    await Array.fromAsync(delayed),
    blobs.map(({ length }) => length),
  );
  assert.deepEqual(await Array.fromAsync(readContent(repository, new Uint8Array(0), plain)), []);
});

test("readContent() loads no more ahead than it may, and a blob that follows itself not each time", async () => {
  const repository = await createScratch();
  const content = await addBlobs(
    repository,
    Array.from({ length: 12 }, () => randomBytes(5 * 2 ** 20)),
  );
  const store = createFaultyStore(repository.store);
  const loads = (): number => store.calls.filter(({ operation }) => operation === "load").length;
  const reading = readContent({ ...repository, store }, content, plain);
  await reading.next();
  assert.ok(loads() >= 2 && loads() <= 7, `${loads()} loads`); // 32 MiB hold six
  await reading.return();
  assert.ok(loads() <= 7);

  const before = loads();
  const zeros = await addBlobs(repository, [Buffer.alloc(4096)]);
  const sparse = Buffer.concat(Array.from({ length: 1000 }, () => zeros));
  assert.equal((await Array.fromAsync(readContent({ ...repository, store }, sparse, plain))).length, 1000);
  assert.ok(loads() - before < 100, `${loads() - before} loads`);
});

test("readContent() fails with the blob that is missing or damaged", async () => {
  const repository = await createScratch();
  const content = await addBlobs(repository, [randomBytes(10), randomBytes(20)]);
  const lost = Buffer.concat([content.subarray(0, 32), sha256(Buffer.from("nowhere"))]);
  let seen = 0;
  await assert.rejects(
    async () => {
      for await (const { length } of readContent(repository, lost, plain)) seen += length;
    },
    (error) => isFailure(error, "BlobMissing"),
  );
  assert.throws(
    () => measureContent(repository.index, lost),
    (error) => isFailure(error, "BlobMissing"),
  );
  const store = createFaultyStore(repository.store, [{ operation: "load", nth: 2, mode: "flip" }]);
  seen = 0;
  await assert.rejects(
    async () => {
      for await (const { length } of readContent({ ...repository, store }, content, plain)) seen += length;
    },
    (error) => isFailure(error, "BlobInvalid"),
  );
  assert.equal(seen, 10);
});

test("readContent() stops when it is cancelled, also while the store does not answer", async () => {
  const repository = await createScratch();
  const content = await addBlobs(repository, [randomBytes(10), randomBytes(20)]);
  const silent = { ...repository, store: createFaultyStore(repository.store, [{ operation: "load", from: 2, mode: "hang" }]) };
  const abort = new AbortController();
  const reading = readContent(silent, content, { ...plain, signal: abort.signal });
  await reading.next();
  setImmediate(() => abort.abort());
  await assert.rejects(reading.next(), (error) => isFailure(error, "Cancelled"));
});
