/** What a backup reads again and what it takes over from its parent, ours or restic's. */
import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { fillBytes, makeSampleTree, setTimes } from "../../test/sample-tree.ts";
import { diffRecords, recordFolder, recordSnapshot } from "../../test/tree-record.ts";
import { type BackupOutcome, type BackupRequest, Workbench } from "../../test/workbench.ts";
import { fromUtf8 } from "../format/byte-string.ts";
import { scanAllIndexes } from "../repository/index-load.ts";

const needsRestic = skipWithout("restic");

/** Backs up what is in the source's folder, so that folders above it do not count. */
function inside(bench: Workbench, request: BackupRequest = {}): Promise<BackupOutcome> {
  return bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true, ...request });
}

function fill(bench: Workbench, files: number): void {
  for (let at = 0; at < files; at++) {
    const folder = `${bench.source}/${at % 7}`;
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/${at}`, fillBytes(2000 + at, `${at}`));
  }
}

async function expectSame(bench: Workbench, report: BackupOutcome): Promise<void> {
  const source = new Map(recordFolder(bench.source));
  source.delete("");
  assert.deepEqual(diffRecords(source, await recordSnapshot(await bench.open(), report.snapshot.tree)), []);
}

function added({ counts }: BackupOutcome): number[] {
  return [counts.dataBlobs, counts.treeBlobs, counts.dataAddedBytes];
}

test("a second backup of what has not changed adds nothing", async () => {
  using bench = new Workbench();
  await bench.create();
  makeSampleTree(bench.source);
  const first = await inside(bench);
  const packs = bench.countFiles("data");
  const second = await inside(bench);
  assert.deepEqual(added(second), [0, 0, 0]);
  assert.equal(second.snapshot.tree, first.snapshot.tree);
  assert.equal(second.counts.filesUnmodified, first.counts.filesNew);
  assert.deepEqual([second.counts.filesNew, second.counts.filesChanged, second.counts.dirsNew, second.counts.dirsChanged], [0, 0, 0, 0]);
  assert.equal(second.counts.dirsUnmodified, first.counts.dirsNew);
  assert.deepEqual([bench.countFiles("data"), bench.countFiles("index")], [packs, 1]);
});

test("with a parent of restic's nothing is read again, in whatever time zone it was written", {
  skip: needsRestic,
}, async () => {
  using bench = new Workbench();
  await bench.create();
  makeSampleTree(bench.source);
  for (const zone of ["UTC", "Asia/Tokyo", "America/New_York"]) {
    bench.restic("backup", "--quiet", "--host", zone, bench.source, { TZ: zone });
    const parent = (await bench.snapshots()).at(-1);
    assert.ok(parent !== undefined);
    const report = await bench.backUp({ parent });
    assert.equal(report.counts.filesUnmodified, report.counts.filesNew + report.counts.filesChanged + report.counts.filesUnmodified, zone);
    assert.equal(report.counts.dataBlobs, 0, zone);
    const found = await recordSnapshot(await bench.open(), report.snapshot.tree, bench.source);
    assert.deepEqual(
      diffRecords(recordFolder(bench.source), found, ["sameAs"]).filter((line) => !line.startsWith('"socket"')),
      [],
    );
  }
});

test("restic takes over from a parent of ours without reading", { skip: needsRestic }, async () => {
  using bench = new Workbench();
  await bench.create();
  makeSampleTree(bench.source);
  await bench.backUp({ cut: "gear" });
  const lines = bench.restic("backup", "--json", "--host", "host", bench.source).trim().split("\n");
  const summary = JSON.parse(lines.at(-1) ?? "") as Record<string, number>; // restic's own format
  assert.deepEqual([summary["files_new"], summary["files_changed"], summary["data_blobs"]], [0, 0, 0]);
});

test("only what has changed is read and stored", async () => {
  using bench = new Workbench();
  await bench.create();
  fill(bench, 400);
  const first = await inside(bench);
  for (let at = 0; at < 400; at += 100) appendFileSync(`${bench.source}/${at % 7}/${at}`, "more");
  const second = await inside(bench);
  assert.deepEqual([second.counts.filesNew, second.counts.filesChanged, second.counts.filesUnmodified], [0, 4, 396]);
  assert.equal(second.counts.dataBlobs, 4);
  // Files 0, 100, 200 and 300 are in folders 0, 2, 4 and 6; and the folder above them.
  assert.deepEqual([second.counts.dirsChanged, second.counts.dirsUnmodified, second.counts.treeBlobs], [5, 3, 5]);
  assert.notEqual(second.snapshot.tree, first.snapshot.tree);
  await expectSame(bench, second);
});

test("changes of every kind between two backups are in the second", async () => {
  using bench = new Workbench();
  await bench.create();
  fill(bench, 50);
  mkdirSync(`${bench.source}/folder/below`, { recursive: true });
  writeFileSync(`${bench.source}/folder/below/file`, "x");
  symlinkSync("folder", `${bench.source}/link`);
  await inside(bench);
  chmodSync(`${bench.source}/1/1`, 0o600);
  rmSync(`${bench.source}/2/2`);
  renameSync(`${bench.source}/3/3`, `${bench.source}/3/renamed`);
  rmSync(`${bench.source}/4/4`);
  mkdirSync(`${bench.source}/4/4`);
  writeFileSync(`${bench.source}/4/4/in a folder that was a file`, "x");
  rmSync(`${bench.source}/folder`, { recursive: true });
  writeFileSync(`${bench.source}/folder`, "a file that was a folder");
  rmSync(`${bench.source}/link`);
  writeFileSync(`${bench.source}/link`, "a file that was a link");
  truncateSync(`${bench.source}/5/5`, 10);
  writeFileSync(`${bench.source}/6/new`, "new");
  copyFileSync(`${bench.source}/6/6`, `${bench.source}/6/copy`);
  utimesSync(`${bench.source}/0/0`, 5, 5);
  const second = await inside(bench);
  await expectSame(bench, second);
  assert.equal(second.counts.dataBlobs, 4, "two that were something else, the shortened and the new one");
});

test("a file is unchanged by its size and times: content of the same size with its old time is not noticed but by its change time", async () => {
  using bench = new Workbench();
  await bench.create();
  const path = `${bench.source}/file`;
  const write = (content: string): void => {
    writeFileSync(path, content);
    setTimes(path, 1_000_000_000, 7);
  };
  write("one");
  await inside(bench);
  write("two");
  assert.equal((await inside(bench)).counts.filesChanged, 1, "the change time tells");
  write("six");
  assert.equal((await inside(bench, { ignoreCtime: true })).counts.filesUnmodified, 1, "unless it is ignored");
  const second = `${bench.source}/second`;
  writeFileSync(second, "ten");
  setTimes(second, 1_000_000_000, 7);
  renameSync(second, path);
  assert.equal((await inside(bench, { ignoreCtime: true })).counts.filesChanged, 1, "another inode tells");
  writeFileSync(second, "old");
  setTimes(second, 1_000_000_000, 7);
  renameSync(second, path);
  assert.equal(
    (await inside(bench, { ignoreInode: true })).counts.filesUnmodified,
    1,
    "ignoring the inode ignores the change time too, as restic has it",
  );
  setTimes(path, 1_000_000_000, 8);
  assert.equal((await inside(bench, { ignoreInode: true, ignoreCtime: true })).counts.filesChanged, 1, "a nanosecond tells");
  appendFileSync(path, "x");
  setTimes(path, 1_000_000_000, 8);
  assert.equal((await inside(bench, { ignoreInode: true })).counts.filesChanged, 1, "the size tells");
});

test("attributes are always those of now, also of a file that is not read again", async () => {
  using bench = new Workbench();
  await bench.create();
  writeFileSync(`${bench.source}/file`, "content");
  await inside(bench);
  const { ino } = statSync(`${bench.source}/file`);
  chmodSync(`${bench.source}/file`, 0o751);
  const second = await inside(bench, { ignoreCtime: true });
  assert.equal(second.counts.filesUnmodified, 1);
  assert.equal(statSync(`${bench.source}/file`).ino, ino);
  await expectSame(bench, second);
});

test("without a parent everything is read, and nothing stored twice", async () => {
  using bench = new Workbench();
  await bench.create();
  fill(bench, 100);
  const first = await inside(bench);
  const second = await inside(bench, { parent: null });
  assert.equal(second.counts.filesNew, 100);
  assert.deepEqual(added(second), [0, 0, 0]);
  assert.equal(second.snapshot.tree, first.snapshot.tree);
  assert.equal(second.snapshot.parent, null);
});

test("access times are kept when asked for, and else do not make a file look changed", async () => {
  using bench = new Workbench();
  await bench.create();
  writeFileSync(`${bench.source}/file`, "content");
  utimesSync(`${bench.source}/file`, 1000, 2000);
  utimesSync(bench.source, 1, 1);
  const first = await inside(bench);
  utimesSync(`${bench.source}/file`, 5000, 2000);
  const second = await inside(bench, { ignoreCtime: true });
  assert.equal(second.counts.filesUnmodified, 1);
  const third = await inside(bench, { withAtime: true, parent: null });
  const json = bench.restic("cat", "blob", third.snapshot.tree);
  assert.match(json, /"mtime":"1970-01-01T00:33:20Z","atime":"1970-01-01T01:23:20Z"/);
  assert.match(bench.restic("cat", "blob", first.snapshot.tree), /"mtime":"1970-01-01T00:33:20Z","atime":"1970-01-01T00:33:20Z"/);
});

/** Removes the packs that hold blobs of one type, as a failing disk would, or spoils their content. @returns their names */
async function damagePacks(bench: Workbench, wanted: "data" | "tree", damage: "remove" | "spoil"): Promise<ReadonlySet<string>> {
  const packs = await findPacks(bench, wanted);
  assert.ok(packs.size > 0);
  for (const name of packs) damagePack(bench, name, damage);
  return packs;
}

function damagePack(bench: Workbench, name: string, damage: "remove" | "spoil"): void {
  const path = `${bench.location}/data/${name.slice(0, 2)}/${name}`;
  if (damage === "remove") return rmSync(path, { force: true });
  const bytes = readFileSync(path);
  for (let at = 20; at < bytes.length; at += 200) bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  rmSync(path);
  writeFileSync(path, bytes);
}

/** The packs that the index names for blobs of one type. */
async function findPacks(bench: Workbench, wanted: "data" | "tree"): Promise<ReadonlySet<string>> {
  const repository = await bench.open();
  const packs = new Set<string>();
  let pack = "";
  await scanAllIndexes(repository, {
    pack: (id) => {
      pack = Buffer.from(id).toString("hex");
    },
    blob: ({ isTree }) => {
      if (isTree === (wanted === "tree")) packs.add(pack);
    },
  });
  return packs;
}

for (const damage of ["remove", "spoil"] as const) {
  test(`folders of the parent that cannot be read (${damage}) are told, read anew, and stored anew`, { skip: needsRestic }, async () => {
    using bench = new Workbench();
    await bench.create();
    fill(bench, 60);
    const first = await inside(bench);
    const damaged = await damagePacks(bench, "tree", damage);
    const second = await inside(bench);
    assert.ok(second.troublesSeen.some(({ reason }) => reason === "parent"));
    assert.equal(second.counts.filesNew, 60);
    assert.equal(second.counts.dataBlobs, 0);
    assert.ok(second.counts.treeBlobs > 0, "the same trees, stored once more");
    assert.equal(second.snapshot.tree, first.snapshot.tree);
    assert.equal(second.snapshot.unknown.size, 0, "this snapshot lacks nothing");
    // Once the damaged packs are gone, both snapshots are whole again, with the trees of the second backup.
    for (const name of damaged) damagePack(bench, name, "remove");
    bench.restic("rebuild-index");
    await expectSame(bench, second);
    bench.check();
  });
}

test("a file whose content the index no longer names is read again, though it has not changed", { skip: needsRestic }, async () => {
  using bench = new Workbench();
  await bench.create();
  fill(bench, 60);
  await inside(bench);
  await damagePacks(bench, "data", "remove");
  bench.restic("rebuild-index");
  const second = await inside(bench);
  assert.equal(second.counts.dataBlobs, 60);
  await expectSame(bench, second);
  bench.check();
});

test("a parent snapshot that refers to what is not in the repository at all is no parent, but no obstacle", async () => {
  using bench = new Workbench();
  await bench.create();
  fill(bench, 20);
  await inside(bench);
  const [parent] = await bench.snapshots();
  assert.ok(parent !== undefined);
  const { parseBlobId } = await import("../format/ids.ts");
  const second = await inside(bench, { parent: { ...parent, tree: parseBlobId("ab".repeat(32)) } });
  assert.equal(second.counts.filesNew, 20);
  await expectSame(bench, second);
});
