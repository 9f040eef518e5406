import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { createScratch, failsWith, spoil } from "../repository/scratch.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { lockRepository } from "../repository/lock.ts";
import type { Repository } from "../repository/repository.ts";
import { checkRepository } from "./check.ts";
import type { CheckEvent } from "./check-report.ts";
import { encodePlainTree, hashOf, type IndexedPack, plainSnapshot, savePlainFile, savePlainPack } from "./plain-repository.ts";

interface Sample {
  readonly repository: Repository;
  readonly dataPack: IndexedPack;
  readonly treePack: IndexedPack;
}

/** One snapshot of `folder/file`, which has two pieces. */
async function createSample(pieces: readonly Uint8Array[] = [Buffer.from("first"), Buffer.from("second")]): Promise<Sample> {
  const repository = await createScratch();
  const inner = encodePlainTree({ file: pieces });
  const outer = encodePlainTree({ folder: inner });
  const dataPack = await savePlainPack(
    repository,
    pieces.map((plain) => ({ type: "data", plain })),
  );
  const treePack = await savePlainPack(
    repository,
    [inner, outer].map((plain) => ({ type: "tree", plain })),
  );
  await savePlainFile(repository, "index", { packs: [dataPack, treePack] });
  await savePlainFile(repository, "snapshot", plainSnapshot(outer, 1));
  return { repository, dataPack, treePack };
}

test("checkRepository() reads a pack that is larger than the memory for packs in pieces", async () => {
  const large = Buffer.alloc(20 << 20, "incompressible? no, but the parts differ");
  const pieces = [1, 2, 3].map((number) => Buffer.concat([Buffer.from([number]), large]));
  const repository = await createScratch();
  const tree = encodePlainTree({ file: pieces });
  const pack = await savePlainPack(
    repository,
    pieces.map((plain) => ({ type: "data", plain, compress: false })),
  );
  const treePack = await savePlainPack(repository, [{ type: "tree", plain: tree }]);
  await savePlainFile(repository, "index", { packs: [pack, treePack] });
  await savePlainFile(repository, "snapshot", plainSnapshot(tree, 1));
  const options = { workers: 1, readData: { kind: "all" } } as const;
  const { errors, counts } = await checkRepository(repository, options);
  assert.deepEqual(errors, []);
  assert.equal(counts.blobsRead, 4);
  const at = (pack.blobs[1]?.offset ?? 0) + 1000;
  await spoil(repository.store, { kind: "pack", name: pack.id }, (bytes) => {
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes;
  });
  const damaged = await checkRepository(repository, options);
  assert.deepEqual(damaged.errors.map(({ kind }) => kind).sort(), ["blobDamaged", "packHash"]);
  assert.ok(damaged.errors.some((error) => error.kind === "blobDamaged" && error.blobId === pack.blobs[1]?.id));
});

test("checkRepository() says at which path of which snapshot something is missing", async () => {
  const { repository, dataPack, treePack } = await createSample();
  const [file] = [...(await Array.fromAsync(repository.store.list("index")))];
  await repository.store.remove({ kind: "index", name: file?.name ?? "" });
  await savePlainFile(repository, "index", { packs: [treePack] });
  const { errors } = await checkRepository(repository, { workers: 1 });
  assert.deepEqual(
    errors.map((error) => (error.kind === "blobMissing" ? [error.path, error.blobId] : error)),
    dataPack.blobs.map(({ id }) => ["/folder/file", id]),
  );
  for (const { message } of errors) assert.match(message, /\/folder\/file in snapshot "[0-9a-f]{64}": .*no index file lists/);
});

test("checkRepository() reads a tree from its other copy, and names the copy that is damaged", async () => {
  const { repository, treePack } = await createSample();
  const inner = encodePlainTree({ file: [Buffer.from("first"), Buffer.from("second")] });
  const second = await savePlainPack(repository, [{ type: "tree", plain: inner }]);
  await savePlainFile(repository, "index", { packs: [second] });
  for (const pack of [treePack, second]) {
    const { offset = 0 } = pack.blobs.find(({ id }) => id === hashOf(inner)) ?? {};
    const ref = { kind: "pack", name: pack.id } as const;
    const whole = await repository.store.load(ref);
    await spoil(repository.store, ref, (bytes) => Uint8Array.from(bytes, (byte, i) => (i === offset + 20 ? byte ^ 1 : byte)));
    const { errors, counts } = await checkRepository(repository, { workers: 1 });
    // Whichever copy is tried first: either it is the good one, or the other is then taken.
    assert.ok(errors.length <= 1);
    for (const error of errors) {
      assert.ok(error.kind === "treeDamaged" && error.packId === pack.id && error.hasOtherCopy && error.path === "/folder");
    }
    assert.equal(counts.dataBlobsNeeded, 2);
    await spoil(repository.store, ref, () => whole);
  }
});

test("checkRepository() names entries that are wrong, and goes on behind them", async () => {
  const repository = await createScratch();
  const node = { mtime: "2026-01-01T00:00:00Z", atime: "2026-01-01T00:00:00Z", ctime: "2026-01-01T00:00:00Z", uid: 0, gid: 0 };
  const tree = Buffer.from(
    JSON.stringify({
      nodes: [
        { name: "b", type: "file", ...node, content: [] },
        { name: "a", type: "file", ...node, content: [] },
        { name: "../evil", type: "file", ...node, content: [] },
        { name: "c", type: "file", ...node, content: null },
        { name: "d", type: "dir", ...node, content: null, subtree: hashOf(Buffer.from("nowhere")) },
      ],
    }),
  );
  const pack = await savePlainPack(repository, [{ type: "tree", plain: tree }]);
  await savePlainFile(repository, "index", { packs: [pack] });
  await savePlainFile(repository, "snapshot", plainSnapshot(tree, 1));
  const { errors } = await checkRepository(repository, { workers: 1 });
  assert.deepEqual(
    errors.map((error) => `${error.kind} ${"path" in error ? error.path : ""}`),
    ["treeInvalid /a", "treeInvalid ", "treeInvalid /c", "treeMissing /d"],
  );
});

test("checkRepository() refuses blobs that promise more than they hold", async () => {
  const { repository, treePack } = await createSample();
  const bomb = Buffer.alloc(1 << 20);
  const pack = await savePlainPack(repository, [{ type: "data", plain: bomb }]);
  const lying = { ...pack, blobs: pack.blobs.map((blob) => ({ ...blob, uncompressed_length: 1 << 30 })) };
  await savePlainFile(repository, "index", { packs: [lying] });
  const { errors } = await checkRepository(repository, { workers: 1, readData: { kind: "all" } });
  assert.deepEqual(
    errors.map((error) => ["packId" in error ? error.packId : "", error.kind]),
    [[pack.id, "packListing"]],
  );
  assert.notEqual(pack.id, treePack.id);
});

test("checkRepository() tells how far it is, in order, and each error as it is found", async () => {
  const { repository, dataPack } = await createSample();
  await repository.store.remove({ kind: "pack", name: dataPack.id });
  const events: CheckEvent[] = [];
  const report = await checkRepository(repository, { workers: 1, readData: { kind: "all" }, onProgress: (event) => events.push(event) });
  assert.deepEqual(
    events.flatMap((event) => (event.kind === "error" ? [event.error] : [])),
    report.errors,
  );
  const content = events.flatMap((event) => (event.kind === "content" ? [event] : []));
  assert.deepEqual(
    content.map(({ packsDone, packsTotal }) => [packsDone, packsTotal]),
    [[1, 1]],
  );
  assert.equal(content[0]?.bytesDone, content[0]?.bytesTotal);
  assert.deepEqual(report.selection, { kind: "all" });
  assert.equal(report.contentVerifiedMs, null);
});

test("checkRepository() ends with Cancelled, before and in the middle", async () => {
  const { repository } = await createSample();
  await assert.rejects(checkRepository(repository, { workers: 1, signal: AbortSignal.abort() }), failsWith("Cancelled"));
  const controller = new AbortController();
  const checking = checkRepository(repository, {
    workers: 1,
    readData: { kind: "all" },
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  await assert.rejects(checking, failsWith("Cancelled"));
});

test("checkRepository() ends with the store's failure when the store does not answer: that is no damage", async () => {
  const { repository } = await createSample();
  for (const [operation, kind] of [
    ["list", "pack"],
    ["load", "index"],
    ["load", "snapshot"],
    ["load", "pack"],
  ] as const) {
    const store = createFaultyStore(repository.store, [{ operation, kind, mode: "before", from: 1 }]);
    const checking = checkRepository({ ...repository, store, index: new BlobIndex() }, { workers: 1 });
    await assert.rejects(checking, (error) => isFailure(error, "StoreUnavailable"));
  }
});

test("checkRepository() finds a bit that flips on the way", async () => {
  const { repository } = await createSample();
  const store = createFaultyStore(repository.store, [{ operation: "load", kind: "pack", mode: "flip", from: 3 }]);
  const { errors } = await checkRepository({ ...repository, store, index: new BlobIndex() }, { workers: 1, readData: { kind: "all" } });
  assert.ok(errors.some(({ kind }) => kind === "packHash"));
});

test("checkRepository() finds nothing wrong with a repository without snapshots, and with one without anything", async () => {
  const { repository } = await createSample();
  for await (const { name } of repository.store.list("snapshot")) await repository.store.remove({ kind: "snapshot", name });
  for (const some of [repository, await createScratch()]) {
    const report = await checkRepository(some, { workers: 1, readData: { kind: "all" } });
    assert.equal(report.errorCount, 0);
    assert.notEqual(report.structureVerifiedMs, null);
  }
});

test("checkRepository() notes the locks of others, and not our own", async () => {
  const { repository } = await createSample();
  await using _ours = await lockRepository(repository, { exclusive: false });
  const lock = { time: "2020-01-01T00:00:00Z", exclusive: false, hostname: "elsewhere", username: "u", pid: 1 };
  const lockId = await savePlainFile(repository, "lock", lock);
  const { errors, notes } = await checkRepository(repository, { workers: 1 });
  assert.deepEqual([errors, notes], [[], [{ kind: "locked", lockId, isStale: true }]]);
});
