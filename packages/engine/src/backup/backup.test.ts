/** Backups of everything a file system holds, read again by restic and by the engine's decoders, and compared with the source. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { fillBytes, isRoot, makeSampleTree, makeSparse } from "../../test/sample-tree.ts";
import { diffRecords, type EntryRecord, recordFolder, recordSnapshot, type TreeRecord, withoutSockets } from "../../test/tree-record.ts";
import { Workbench } from "../../test/workbench.ts";
import { fromUtf8 } from "../format/byte-string.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";
import { closeHandle, makeDirectoryAt, openAt, openFlags, workingDirectory, writeHandleAt } from "../native/libc.ts";
import { loadBlob } from "../repository/blob-load.ts";
import type { Repository } from "../repository/repository.ts";
import type { CutChoice } from "./backup.ts";

const needsTools = skipWithout("restic", "getfattr", "setfattr", "setfacl");

/** The format has no links for what is a name only: of several names of a fifo each is restored as one of its own. */
function withoutFifoLinks(records: TreeRecord): TreeRecord {
  return new Map([...records].map(([path, entry]) => [path, entry.type === "fifo" ? { ...entry, sameAs: path } : entry]));
}

/** What restic 0.14 itself does not restore: links with several names, and targets that are no text. */
function asResticRestores(records: TreeRecord): TreeRecord {
  const change = (path: string, entry: EntryRecord): EntryRecord =>
    entry.type === "symlink" ? { ...entry, sameAs: path, link: /^[ -~]*$/.test(entry.link) ? entry.link : "" } : entry;
  return new Map([...records].map(([path, entry]) => [path, change(path, entry)]));
}

/** The ids of the content of one file of the newest snapshot. */
async function contentIds(repository: Repository, tree: string, path: string): Promise<string[]> {
  let id: Uint8Array = Buffer.from(tree, "hex");
  for (const name of path.split("/").filter(Boolean)) {
    const bytes = await loadBlob(repository, id);
    let found: ReturnType<typeof parseNode> | undefined;
    scanTree(bytes, (visited, start, end) => {
      if (visited === name) found = parseNode(bytes, start, end);
    });
    assert.ok(found !== undefined, `"${name}" of ${path} is in the snapshot`);
    if (found.content !== null)
      return Array.from({ length: found.content.length / 32 }, (_, at) =>
        Buffer.from(found?.content?.subarray(at * 32, at * 32 + 32) ?? "").toString("hex"),
      );
    assert.ok(found.subtree !== null);
    id = found.subtree;
  }
  return [];
}

test("runBackup() keeps everything, and restic finds it whole and restores it", { skip: needsTools }, async () => {
  using bench = new Workbench();
  await bench.create();
  makeSampleTree(bench.source);
  const source = withoutFifoLinks(withoutSockets(recordFolder(bench.source)));
  const report = await bench.backUp();
  assert.deepEqual(report.troublesSeen, []);
  assert.equal(report.troubles, 0);
  assert.deepEqual(diffRecords(source, await recordSnapshot(await bench.open(), report.snapshot.tree, bench.source)), []);
  const files = [...source.values()].filter(({ type }) => type === "file");
  assert.equal(report.counts.filesNew, files.length);
  assert.equal(report.counts.bytesProcessed, Number(files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0n)));
  bench.check();
  const restored = recordFolder(bench.restore("latest"));
  assert.deepEqual(diffRecords(asResticRestores(source), asResticRestores(withoutFifoLinks(restored))), []);
});

for (const cut of ["rabin", { fixedBytes: 1 << 20 }, { fixedBytes: 4 << 20 }] satisfies CutChoice[]) {
  test(`runBackup() keeps everything with the cut ${JSON.stringify(cut)}`, { skip: needsTools }, async () => {
    using bench = new Workbench();
    await bench.create();
    makeSampleTree(bench.source);
    const report = await bench.backUp({ cut });
    const source = withoutFifoLinks(withoutSockets(recordFolder(bench.source)));
    assert.deepEqual(diffRecords(source, await recordSnapshot(await bench.open(), report.snapshot.tree, bench.source)), []);
  });
}

test("a snapshot of restic is read by the engine, whole", { skip: needsTools }, async () => {
  using bench = new Workbench();
  await bench.create();
  makeSampleTree(bench.source);
  bench.restic("backup", "--quiet", bench.source);
  const [snapshot] = await bench.snapshots();
  assert.ok(snapshot !== undefined);
  const source = withoutFifoLinks(withoutSockets(recordFolder(bench.source)));
  const found = await recordSnapshot(await bench.open(), snapshot.tree, bench.source);
  assert.deepEqual(diffRecords(asResticRestores(source), asResticRestores(found), ["attributes"]), []);
});

test("runBackup() with the Rabin cut stores the very blobs that restic stores", { skip: skipWithout("restic") }, async () => {
  using bench = new Workbench();
  await bench.create();
  writeFileSync(`${bench.source}/large`, fillBytes(30 << 20, "rabin"));
  writeFileSync(`${bench.source}/compressible`, "the quick brown fox ".repeat(700_000));
  makeSparse(`${bench.source}/sparse`, 40 << 20, [[11 << 20, 3 << 20]]);
  writeFileSync(`${bench.source}/small`, "small");
  bench.restic("backup", "--quiet", bench.source);
  const report = await bench.backUp({ cut: "rabin", parent: null });
  assert.equal(report.counts.dataBlobs, 0);
  assert.equal(report.counts.filesNew, 4);
});

test("holes are cut as the zeros they are: the same blobs, wherever they are", async () => {
  using bench = new Workbench();
  await bench.create();
  const spans: readonly (readonly (readonly [number, number])[])[] = [
    [],
    [[0, 1]],
    [[(14 << 20) + 776, 1]],
    [
      [5 << 20, 4096],
      [9 << 20, 2 << 20],
    ],
    [
      [1 << 20, 700_000],
      [(9 << 20) + 1, 1],
      [(12 << 20) + 511, 100_000],
    ],
    Array.from({ length: 20 }, (_, at) => [at * 650_000, 4096] as const),
  ];
  for (const [at, holes] of spans.entries()) {
    const sizeBytes = (14 << 20) + 777;
    makeSparse(`${bench.source}/sparse ${at}`, sizeBytes, holes);
    const whole = Buffer.alloc(sizeBytes);
    for (const [offset, length] of holes) fillBytes(length, `${offset}`).copy(whole, offset);
    writeFileSync(`${bench.source}/whole ${at}`, whole);
    const [sparse, dense] = [statSync(`${bench.source}/sparse ${at}`), statSync(`${bench.source}/whole ${at}`)];
    assert.ok(sparse.blocks < dense.blocks, "this file system has holes");
  }
  for (const cut of ["gear", "rabin", { fixedBytes: 65536 }] satisfies CutChoice[]) {
    const report = await bench.backUp({ cut, parent: null });
    const repository = await bench.open();
    for (const at of spans.keys()) {
      const sparse = await contentIds(repository, report.snapshot.tree, `${bench.source}/sparse ${at}`);
      const whole = await contentIds(repository, report.snapshot.tree, `${bench.source}/whole ${at}`);
      assert.ok(sparse.length > 1);
      assert.deepEqual(sparse, whole, `file ${at}, cut ${JSON.stringify(cut)}`);
    }
    assert.deepEqual(diffRecords(recordFolder(bench.source), await recordSnapshot(repository, report.snapshot.tree, bench.source)), []);
  }
});

test("a file that is one hole of 200 GB takes no time and one blob", async () => {
  using bench = new Workbench();
  await bench.create();
  makeSparse(`${bench.source}/hole`, 200e9, []);
  const report = await bench.backUp();
  assert.equal(report.counts.bytesProcessed, 200e9);
  assert.ok(report.counts.dataBlobs <= 2);
  const ids = await contentIds(await bench.open(), report.snapshot.tree, `${bench.source}/hole`);
  assert.equal(new Set(ids.slice(0, -1)).size, 1);
});

test("any number of workers makes the same tree", async () => {
  using bench = new Workbench();
  await bench.create();
  makeSampleTree(bench.source);
  for (let folder = 0; folder < 30; folder++) {
    mkdirSync(`${bench.source}/many/${folder}/below`, { recursive: true });
    for (let file = 0; file < 20; file++) writeFileSync(`${bench.source}/many/${folder}/${file}`, `${folder} ${file}`);
  }
  writeFileSync(`${bench.source}/a large one`, fillBytes(24 << 20, "large one"));
  const trees: string[] = [];
  const inside = { targets: ["."], directory: fromUtf8(bench.source) };
  for (const workers of [1, 2, 3, 8]) trees.push((await bench.backUp({ ...inside, workers, parent: null })).snapshot.tree);
  for (const workers of [8, 1]) trees.push((await bench.backUp({ ...inside, workers })).snapshot.tree);
  assert.equal(new Set(trees).size, 1);
  const source = new Map(withoutFifoLinks(withoutSockets(recordFolder(bench.source))));
  source.delete("");
  assert.deepEqual(diffRecords(source, await recordSnapshot(await bench.open(), trees[0] ?? "")), []);
});

test("paths beyond what one call takes, and folders within folders without end, are backed up", {
  skip: skipWithout("restic"),
}, async () => {
  using bench = new Workbench();
  await bench.create();
  const descend = (levels: number, nameOf: (level: number) => string): void => {
    let handle = openAt(workingDirectory, bench.source, openFlags.readOnly | openFlags.directory);
    for (let level = 0; level < levels; level++) {
      assert.equal(makeDirectoryAt(handle, nameOf(level), 0o755), 0);
      const next = openAt(handle, nameOf(level), openFlags.readOnly | openFlags.directory);
      assert.ok(next >= 0);
      closeHandle(handle);
      handle = next;
      if (level % 10 !== 9) continue;
      const file = openAt(handle, `file ${level}`, openFlags.writeOnly | openFlags.create, 0o644);
      assert.equal(writeHandleAt(file, Buffer.from(`content ${level}`), 0), 0);
      closeHandle(file);
    }
    closeHandle(handle);
  };
  descend(60, (level) => `${level}`.padEnd(250, "long "));
  descend(1500, (level) => `${level % 10}`);
  const inside = { targets: ["."], directory: fromUtf8(bench.source), workers: 3 };
  const report = await bench.backUp(inside);
  assert.deepEqual(report.troublesSeen, []);
  assert.equal(report.counts.filesNew, 6 + 150);
  bench.check();
  // restic restores by whole paths, so what the kernel takes at once is compared, and the rest is read again and found unchanged.
  const second = await bench.backUp(inside);
  assert.equal(second.counts.filesUnmodified, 6 + 150);
  assert.equal(second.snapshot.tree, report.snapshot.tree);
  const target = bench.makeFolder("restored");
  bench.restic("restore", "latest", "--target", target, "--include", "/0/1/2/3");
  const depth = Array.from({ length: 40 }, (_, level) => level % 10).join("/");
  assert.ok(existsSync(`${target}/${depth}/file 39`));
});

test("a folder of 100,000 entries is backed up in bounded memory", async (t) => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 100_000; at++) writeFileSync(`${bench.source}/entry ${at}`, "");
  const before = process.memoryUsage.rss();
  const report = await bench.backUp();
  assert.equal(report.counts.filesNew, 100_000);
  const again = await bench.backUp();
  assert.equal(again.counts.filesUnmodified, 100_000);
  assert.equal(again.snapshot.tree, report.snapshot.tree);
  const grownBytes = process.memoryUsage.rss() - before;
  t.diagnostic(`memory grew by ${grownBytes >> 20} MiB`);
  assert.ok(grownBytes < 400 * 2 ** 20, `${grownBytes >> 20} MiB`);
});

test("a snapshot says what was backed up, when, where, by whom, and how much it was", async () => {
  using bench = new Workbench();
  await bench.create();
  writeFileSync(`${bench.source}/file`, "content");
  const timeNs = 1_600_000_000_123_456_789n;
  const excludes = {
    patterns: ["*.tmp"],
    insensitivePatterns: ["*.BAK"],
    ifPresent: [],
    caches: false,
    largerThanBytes: 0,
    oneFileSystem: false,
  };
  const { snapshotId } = await bench.backUp({ tags: ["one", "two"], hostname: "elsewhere", timeNs, excludes, programVersion: "granary 1" });
  const [snapshot] = await bench.snapshots();
  assert.ok(snapshot !== undefined);
  assert.equal(snapshot.id, snapshotId);
  assert.equal(snapshot.timeNs, timeNs);
  assert.deepEqual(snapshot.paths, [bench.source]);
  assert.deepEqual(snapshot.tags, ["one", "two"]);
  assert.deepEqual(snapshot.excludes, ["*.tmp", "*.BAK"]);
  assert.equal(snapshot.hostname, "elsewhere");
  assert.equal(snapshot.username, "user");
  assert.equal(snapshot.uid, userInfo().uid);
  assert.equal(snapshot.parent, null);
  assert.equal(snapshot.programVersion, "granary 1");
  assert.equal(snapshot.summary?.filesNew, 1);
  assert.equal(snapshot.summary?.totalBytesProcessed, 7);
  assert.equal(snapshot.unknown.size, 0);
  const second = await bench.backUp({ hostname: "elsewhere" });
  assert.equal((await bench.snapshots()).at(-1)?.parent, snapshotId);
  assert.equal(second.counts.filesUnmodified, 1);
});

test("skipIfUnchanged makes no snapshot of what is as it was, and one of what is not", async () => {
  using bench = new Workbench();
  await bench.create();
  writeFileSync(`${bench.source}/file`, "content");
  const first = await bench.backUp({ skipIfUnchanged: true });
  assert.ok(first.snapshotId);
  const second = await bench.backUp({ skipIfUnchanged: true });
  assert.equal(second.snapshotId, undefined);
  utimesSync(`${bench.source}/file`, 1, 1);
  assert.ok((await bench.backUp({ skipIfUnchanged: true })).snapshotId);
  assert.equal((await bench.snapshots()).length, 2);
});

test("a dry run counts and writes nothing", async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 40; at++) writeFileSync(`${bench.source}/${at}`, fillBytes(100_000, `${at}`));
  const inside = { directory: fromUtf8(bench.source), targets: ["."] }; // the folders above have times of their own
  const dry = await bench.backUp({ ...inside, dryRun: true, packBytes: 500_000 });
  assert.equal(dry.snapshotId, undefined);
  for (const folder of ["data", "index", "snapshots", "locks"] as const) assert.equal(bench.countFiles(folder), 0, folder);
  const real = await bench.backUp({ ...inside, packBytes: 500_000 });
  assert.equal(real.snapshot.tree, dry.snapshot.tree);
  const counted = (counts: typeof real.counts): number[] => [
    counts.filesNew,
    counts.dirsNew,
    counts.dataBlobs,
    counts.treeBlobs,
    counts.dataAddedBytes,
  ];
  assert.deepEqual(counted(dry.counts), counted(real.counts));
});

test("equal bytes as a file and as a folder's tree are kept as both", { skip: skipWithout("restic") }, async () => {
  using bench = new Workbench();
  await bench.create();
  mkdirSync(`${bench.source}/empty`);
  writeFileSync(`${bench.source}/tree as a file`, '{"nodes":[]}\n');
  await bench.backUp();
  bench.check();
});

test("progress is told while a backup runs, ends with all that was done, and never goes back", async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 30; at++) writeFileSync(`${bench.source}/${at}`, fillBytes(2 << 20, `${at}`));
  const seen: number[] = [];
  const report = await bench.backUp({ onProgress: (counts) => seen.push(counts.bytesProcessed) });
  assert.ok(seen.length > 1, `${seen.length} times`);
  assert.deepEqual(
    seen,
    seen.toSorted((a, b) => a - b),
  );
  assert.equal(seen.at(-1), report.counts.bytesProcessed);
});

test("packs are about as large as asked for, and every blob that does not fit has one of its own", {
  skip: skipWithout("restic"),
}, async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 60; at++) writeFileSync(`${bench.source}/${at}`, fillBytes(300_000, `${at}`));
  writeFileSync(`${bench.source}/large`, fillBytes(9 << 20, "own"));
  await bench.backUp({ packBytes: 1 << 20, cut: { fixedBytes: 8 << 20 } });
  assert.ok(bench.countFiles("data") >= 18 && bench.countFiles("data") <= 26, `${bench.countFiles("data")} packs`);
  bench.check();
});

test("data of levels 0, 1, 9 and 19 is read again", { skip: skipWithout("restic") }, async () => {
  using bench = new Workbench();
  await bench.create();
  for (const level of [0, 1, 9, 19]) {
    rmSync(`${bench.source}/text`, { force: true });
    writeFileSync(`${bench.source}/text`, `level ${level} `.repeat(100_000));
    const { counts } = await bench.backUp({ level });
    assert.equal(counts.dataAddedPackedBytes > counts.dataAddedBytes, level === 0);
  }
  bench.check();
});

test("options that cannot be are refused before anything begins", async () => {
  using bench = new Workbench();
  await bench.create();
  for (const request of [
    { workers: 0 },
    { workers: 1.5 },
    { packBytes: 0 },
    { level: 20 },
    { level: -1 },
    { targets: [] },
    { targets: [""] },
    { cut: { fixedBytes: 100 } },
  ]) {
    await assert.rejects(bench.backUp(request), { code: "InvalidArgument" }, JSON.stringify(request));
  }
  assert.equal(bench.countFiles("locks"), 0);
});

test("a worker that is handed another user's files keeps their numbers", { skip: isRoot ? false : "needs root" }, async () => {
  using bench = new Workbench();
  await bench.create();
  writeFileSync(`${bench.source}/file`, "x");
  const { chownSync } = await import("node:fs");
  chownSync(`${bench.source}/file`, 4_000_000_000, 4_000_000_001);
  const { snapshot } = await bench.backUp({ targets: [fromUtf8(bench.source)] });
  const record = await recordSnapshot(await bench.open(), snapshot.tree, bench.source);
  assert.equal(record.get("file")?.owner, "4000000000:4000000001");
});
