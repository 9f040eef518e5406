/**
 * Backups on a store that fails: whatever fails and whenever, no snapshot refers to what is not there, and the next try succeeds with what
 * the failed one left behind.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { fakeClock } from "@granary/base/testing";
import { runBackup } from "../src/backup/backup.ts";
import { fromUtf8 } from "../src/format/byte-string.ts";
import { loadSnapshots } from "../src/repository/snapshots.ts";
import { createFaultyStore, type FaultMode, type FaultRule, type FaultyStore } from "../src/store/faulty.ts";
import { openLocalStore } from "../src/store/local.ts";
import { createMemoryStore } from "../src/store/memory.ts";
import type { FileKind, Store } from "../src/store/store.ts";
import { fillBytes } from "./sample-tree.ts";
import { diffRecords, recordFolder, recordSnapshot } from "./tree-record.ts";
import { backupOptions, type BackupRequest, Workbench } from "./workbench.ts";

/** Some 2 MiB in files and folders: a dozen packs of data and some of trees, when packs are small. */
function fillSource(bench: Workbench): void {
  for (let folder = 0; folder < 8; folder++) {
    const path = `${bench.source}/folder ${folder}`;
    mkdirSync(path);
    for (let file = 0; file < 25; file++) writeFileSync(`${path}/file ${file}`, fillBytes(10_000, `${folder} ${file}`));
  }
}

const smallPacks: BackupRequest = { packBytes: 200_000, workers: 1, isUnlocked: true };

/** Every snapshot can be read to its last byte, and is what the source is. @returns how many there are */
async function expectWhole(bench: Workbench, store: Store): Promise<number> {
  const repository = await bench.open(store);
  const snapshots = await loadSnapshots(repository);
  const source = recordFolder(bench.source);
  for (const { tree } of snapshots) assert.deepEqual(diffRecords(source, await recordSnapshot(repository, tree, bench.source)), []);
  return snapshots.length;
}

function countSaves({ calls }: FaultyStore, kind: FileKind): number {
  return calls.filter((call) => call.operation === "save" && call.kind === kind).length;
}

/** A repository in memory, behind a store that fails by plan. */
async function createPlanned(bench: Workbench, plan: readonly FaultRule[]): Promise<{ inner: Store; store: FaultyStore }> {
  const inner = createMemoryStore();
  await bench.create(inner);
  return { inner, store: createFaultyStore(inner, plan) };
}

for (const kind of ["pack", "index", "snapshot"] as const) {
  test(`runBackup() fails when a save of a ${kind} does, whichever, leaves no snapshot that lacks anything, and can be tried again`, async () => {
    using bench = new Workbench("faults");
    fillSource(bench);
    const { store } = await createPlanned(bench, []);
    await bench.backUp({ store, ...smallPacks });
    const saves = countSaves(store, kind);
    assert.ok(saves >= (kind === "pack" ? 10 : 1), `${saves} saves`);
    const cases: [FaultMode, number, string][] = Array.from({ length: saves }, (_, at) => ["before", at + 1, "StoreFull"]);
    for (const nth of new Set([1, Math.ceil(saves / 2), saves]))
      cases.push(["midway", nth, "StoreUnavailable"], ["after", nth, "StoreDenied"]);
    for (const [mode, nth, code] of cases) {
      const planned = await createPlanned(bench, [{ operation: "save", kind, nth, mode, code }]);
      const failed = bench.backUp({ store: planned.store, ...smallPacks });
      await assert.rejects(failed, (error) => isFailure(error, code), `${mode} save ${nth} of ${saves}`);
      // The answer was lost after the snapshot was there: then it is there, and whole.
      assert.equal(await expectWhole(bench, planned.inner), kind === "snapshot" && mode === "after" ? 1 : 0);
      const again = await bench.backUp({ store: planned.inner, ...smallPacks });
      assert.ok(again.snapshotId);
      await expectWhole(bench, planned.inner);
    }
  });
}

test("runBackup() fails when the last packs fail after the workers have ended", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { store } = await createPlanned(bench, []);
  await bench.backUp({ store, ...smallPacks });
  const nth = countSaves(store, "pack");
  const inner = createMemoryStore();
  await bench.create(inner);
  // Half a second later, when there is nothing left to do but to wait.
  const slow = createFaultyStore(inner, [{ operation: "save", kind: "pack", nth, mode: "slow", delayMs: 500 }]);
  const failing = createFaultyStore(slow, [{ operation: "save", kind: "pack", nth, mode: "after", code: "StoreFull" }]);
  await assert.rejects(bench.backUp({ store: failing, ...smallPacks }), { code: "StoreFull" });
  assert.equal(await expectWhole(bench, inner), 0);
});

test("runBackup() with several workers on a store that fails again and again never leaves a snapshot that lacks anything", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner, store } = await createPlanned(bench, [{ operation: "save", every: 7, mode: "before" }]);
  for (let attempt = 0; attempt < 8; attempt++) {
    await bench.backUp({ store, ...smallPacks, workers: 3 }).catch((error: unknown) => {
      if (!isFailure(error, "StoreUnavailable")) throw error;
    });
    await expectWhole(bench, inner);
  }
  assert.ok((await loadSnapshots(await bench.open(inner))).length > 0);
});

test("runBackup() may be tried again with the same open repository after it failed, was cancelled, or was a dry run", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner, store } = await createPlanned(bench, [
    { operation: "save", kind: "pack", nth: 3, mode: "before", code: "StoreFull" },
    { operation: "save", kind: "pack", nth: 8, mode: "hang" },
  ]);
  const repository = await bench.open(store);
  const options = backupOptions({ ...smallPacks, targets: [fromUtf8(bench.source)] });
  const dry = await runBackup(repository, { ...options, dryRun: true });
  assert.equal(dry.snapshotId, undefined);
  assert.equal(countSaves(store, "pack"), 0);
  await assert.rejects(runBackup(repository, options), { code: "StoreFull" });
  const stop = new AbortController();
  const cancelled = runBackup(repository, { ...options, signal: stop.signal });
  while (countSaves(store, "pack") < 8) await new Promise((resolve) => setTimeout(resolve, 10));
  stop.abort();
  await assert.rejects(cancelled, { code: "Cancelled" });
  const done = await runBackup(repository, options);
  assert.ok(done.snapshotId);
  assert.equal(done.counts.filesNew, 200);
  assert.equal(await expectWhole(bench, inner), 1);
});

test("runBackup() refuses to share an open repository with a backup that is running", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner } = await createPlanned(bench, []);
  const repository = await bench.open(inner);
  const options = backupOptions({ ...smallPacks, targets: [fromUtf8(bench.source)] });
  const first = runBackup(repository, options);
  await assert.rejects(runBackup(repository, options), { code: "Bug" });
  await first;
  await runBackup(repository, options);
  assert.equal(await expectWhole(bench, inner), 2);
});

test("runBackup() that is cancelled while the store hangs ends, names what is durable in the index, and leaves no snapshot", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner, store } = await createPlanned(bench, [{ operation: "save", kind: "pack", from: 6, mode: "hang" }]);
  const stop = new AbortController();
  const started = bench.backUp({ store, ...smallPacks, signal: stop.signal });
  while (countSaves(store, "pack") < 6) await new Promise((resolve) => setTimeout(resolve, 10));
  stop.abort();
  await assert.rejects(started, { code: "Cancelled" });
  assert.equal(await expectWhole(bench, inner), 0);
  assert.equal(new Set((await bench.open(inner)).index.packs.toString()).size > 0 && (await bench.open(inner)).index.packs, 5);
  const packsBefore = (await Array.fromAsync(inner.list("pack"))).length;
  assert.equal(packsBefore, 5);
  const again = createFaultyStore(inner);
  await bench.backUp({ store: again, ...smallPacks });
  assert.ok(countSaves(again, "pack") < 10, "the five packs are not stored once more");
  await expectWhole(bench, inner);
});

test("runBackup() that is cancelled while the index hangs gives the store 20 seconds and no more", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner, store } = await createPlanned(bench, [{ operation: "save", kind: "index", mode: "hang" }]);
  const repository = await bench.open(store);
  const clock = fakeClock();
  const stop = new AbortController();
  let isEnded = false;
  const options = backupOptions({ ...smallPacks, targets: [fromUtf8(bench.source)], signal: stop.signal, clock });
  const started = runBackup(repository, options).finally(() => {
    isEnded = true;
  });
  started.catch(() => {});
  while (countSaves(store, "index") === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  stop.abort();
  await clock.advance(19_000);
  assert.equal(isEnded, false);
  await clock.advance(2000);
  await assert.rejects(started);
  assert.equal(await expectWhole(bench, inner), 0);
});

test("runBackup() stops when its lock is lost, and then writes nothing more", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner, store } = await createPlanned(bench, [{ operation: "save", kind: "pack", from: 4, mode: "hang" }]);
  const repository = await bench.open(store);
  const stop = new AbortController();
  const started = runBackup(repository, backupOptions({ ...smallPacks, targets: [fromUtf8(bench.source)], signal: stop.signal }));
  while (countSaves(store, "pack") < 4) await new Promise((resolve) => setTimeout(resolve, 10));
  stop.abort(Object.assign(new Error("lost"), { code: "LockLost", kind: "unavailable", details: {} }));
  await assert.rejects(started, { code: "LockLost" });
  assert.equal(countSaves(store, "index"), 0);
  assert.equal(await expectWhole(bench, inner), 0);
});

test("a full disk fails the backup with StoreFull, and what was saved is used when there is room again", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  await bench.create();
  const full = createFaultyStore(openLocalStore(bench.location), [
    { operation: "save", kind: "pack", from: 5, mode: "before", code: "StoreFull" },
  ]);
  await assert.rejects(bench.backUp({ store: full, ...smallPacks }), { code: "StoreFull" });
  const before = bench.countFiles("data");
  assert.equal(before, 4);
  assert.equal(bench.countFiles("snapshots"), 0);
  const after = await bench.backUp(smallPacks);
  assert.ok(after.counts.dataBlobs < 200 && after.counts.filesNew === 200);
  assert.equal(await expectWhole(bench, openLocalStore(bench.location)), 1);
  bench.check();
});

test("a store that repeats requests gets the same backup", async () => {
  using bench = new Workbench("faults");
  fillSource(bench);
  const { inner, store } = await createPlanned(bench, [{ mode: "twice" }]);
  await bench.backUp({ store, ...smallPacks });
  assert.equal(await expectWhole(bench, inner), 1);
});
