/** Backups into repositories whose files the workers cannot open: in memory, and on a REST server. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fakeClock, skipWithout } from "@granary/base/testing";
import { runBackup } from "../src/backup/backup.ts";
import { fromUtf8 } from "../src/format/byte-string.ts";
import { lockRepository } from "../src/repository/lock.ts";
import { loadSnapshots } from "../src/repository/snapshots.ts";
import { createFaultyStore } from "../src/store/faulty.ts";
import { createMemoryStore } from "../src/store/memory.ts";
import { openRestStore } from "../src/store/rest.ts";
import type { Store } from "../src/store/store.ts";
import { fillBytes } from "./sample-tree.ts";
import { diffRecords, recordFolder, recordSnapshot } from "./tree-record.ts";
import { backupOptions, type BackupOutcome, Workbench, wrapStore } from "./workbench.ts";

function fillSource(bench: Workbench, round: number): void {
  for (let at = 0; at < 300; at++) {
    const folder = `${bench.source}/${at % 12}/${at % 3}`;
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/${at}`, fillBytes(3000, at % 50 === 0 ? `${at} ${round}` : `${at}`));
  }
}

async function expectSame(bench: Workbench, store: Store, { snapshot }: BackupOutcome): Promise<void> {
  const found = await recordSnapshot(await bench.open(store), snapshot.tree, bench.source);
  assert.deepEqual(diffRecords(recordFolder(bench.source), found), []);
}

test("workers read the parent's folders from a store without files through their mailboxes", async () => {
  using bench = new Workbench("remote");
  const inner = createMemoryStore();
  await bench.create(inner);
  const request = { store: inner, packBytes: 100_000, workers: 3, isUnlocked: true };
  fillSource(bench, 0);
  const first = await bench.backUp(request);
  const store = createFaultyStore(inner);
  fillSource(bench, 1);
  const second = await bench.backUp({ ...request, store });
  assert.equal(second.counts.dataBlobs, 6);
  assert.equal(second.counts.filesNew, 0);
  assert.ok(store.calls.filter(({ operation, kind }) => operation === "load" && kind === "pack").length >= 10, "trees were loaded");
  await expectSame(bench, inner, second);
  assert.notEqual(second.snapshot.tree, first.snapshot.tree);
});

test("a parent that a store cannot give right now is read anew, and the backup is as good as without", async () => {
  using bench = new Workbench("remote");
  const inner = createMemoryStore();
  await bench.create(inner);
  const request = { store: inner, packBytes: 100_000, isUnlocked: true };
  fillSource(bench, 0);
  const first = await bench.backUp(request);
  for (const mode of ["before", "after", "flip"] as const) {
    const store = createFaultyStore(inner, [{ operation: "load", kind: "pack", every: 4, mode }]);
    const report = await bench.backUp({ ...request, store });
    assert.ok(report.troublesSeen.length > 0);
    assert.ok(report.troublesSeen.every(({ reason }) => reason === "parent"));
    assert.equal(report.counts.dataBlobs, 0, "all content is known");
    await expectSame(bench, inner, report);
  }
  assert.ok(first.snapshotId);
});

test("a backup that waits for a parent's folder from a store that hangs can be cancelled", { timeout: 20_000 }, async () => {
  using bench = new Workbench("remote");
  const inner = createMemoryStore();
  await bench.create(inner);
  fillSource(bench, 0);
  await bench.backUp({ store: inner, isUnlocked: true });
  const store = createFaultyStore(inner, [{ operation: "load", kind: "pack", from: 6, mode: "hang" }]);
  const stop = new AbortController();
  const started = bench.backUp({ store, isUnlocked: true, signal: stop.signal });
  const loads = (): number => store.calls.filter(({ operation, kind }) => operation === "load" && kind === "pack").length;
  while (loads() < 6) await new Promise((resolve) => setTimeout(resolve, 10));
  stop.abort();
  await assert.rejects(started, { code: "Cancelled" });
});

test("a slow store slows the workers down, and memory stays bounded", async () => {
  using bench = new Workbench("remote");
  const inner = createMemoryStore();
  await bench.create(inner);
  for (let at = 0; at < 60; at++) writeFileSync(`${bench.source}/${at}`, fillBytes(100_000, `slow ${at}`));
  let underWay = 0;
  let most = 0;
  const store = wrapStore(inner, {
    save: async (ref, data, signal) => {
      most = Math.max(most, ++underWay);
      await new Promise((resolve) => setTimeout(resolve, 15));
      await inner.save(ref, data, signal);
      underWay--;
    },
  });
  const report = await bench.backUp({ store, packBytes: 100_000, workers: 2, isUnlocked: true });
  assert.ok(most <= 6, `${most} packs at once`);
  await expectSame(bench, inner, report);
});

test("a backup whose machine's clock jumps is sound, and its lock holds", async () => {
  using bench = new Workbench("remote");
  const store = createMemoryStore();
  await bench.create(store);
  const clock = fakeClock(Date.UTC(2026, 5, 1));
  const seen = new Set<string>();
  for (const jumpMs of [0, 86_400_000, -2 * 86_400_000, -400 * 86_400_000]) {
    fillSource(bench, jumpMs);
    const repository = await bench.open(store);
    const locking = lockRepository(repository, { exclusive: false, clock });
    const ticking = setInterval(() => void clock.advance(1000), 5);
    try {
      await using lock = await locking;
      const report = await runBackup(repository, {
        ...backupOptions({ targets: [fromUtf8(bench.source)] }),
        clock,
        signal: lock.signal,
        onProgress: () => clock.jump(jumpMs / 4),
      });
      assert.ok(report.durationMs >= 0);
      assert.ok(report.snapshotId !== undefined);
    } finally {
      clearInterval(ticking);
    }
    const fresh = (await loadSnapshots(await bench.open(store))).filter(({ id }) => !seen.has(id));
    assert.equal(fresh.length, 1);
    for (const { id, tree } of fresh) {
      seen.add(id);
      assert.deepEqual(diffRecords(recordFolder(bench.source), await recordSnapshot(await bench.open(store), tree, bench.source)), []);
    }
  }
});

test("backups through a REST server: first, unchanged, changed, and restic finds them whole", {
  skip: skipWithout("rclone", "restic"),
}, async () => {
  using bench = new Workbench("remote");
  const server = bench.start("rclone", ["serve", "restic", "--addr", "127.0.0.1:0", "--config", "/dev/null", bench.location], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let text = "";
  server.stderr?.on("data", (piece) => (text += String(piece)));
  while (!/http:\/\/\S+/.test(text)) await new Promise((resolve) => setTimeout(resolve, 20));
  const store = openRestStore(`rest:${/http:\/\/[^\s/]+/.exec(text)?.[0]}/`);
  await bench.create(store);
  fillSource(bench, 0);
  const first = await bench.backUp({ store, packBytes: 300_000 });
  assert.equal(first.counts.filesNew, 300);
  const second = await bench.backUp({ store });
  assert.equal(second.counts.filesUnmodified, 300);
  assert.deepEqual([second.counts.dataBlobs, second.snapshot.tree], [0, first.snapshot.tree]);
  fillSource(bench, 1);
  const third = await bench.backUp({ store });
  assert.equal(third.counts.dataBlobs, 6);
  await expectSame(bench, store, third);
  await store.close();
  bench.check();
});
