/** Restores from repositories that are damaged or do not answer, and onto targets that are full. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { fillBytes, isRoot } from "../../test/sample-tree.ts";
import { Workbench } from "../../test/workbench.ts";
import { fromUtf8 } from "../format/byte-string.ts";
import { hexOf } from "../format/ids.ts";
import type { Repository } from "../repository/repository.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { openLocalStore } from "../store/local.ts";
import type { Store } from "../store/store.ts";
import { compareTrees } from "./compare-trees.ts";
import type { RestoreTrouble } from "./messages.ts";
import { planRestore, type RestoreOptions, type RestoreReport, restoreSnapshot, runRestore } from "./restore.ts";

/** A repository with 100 small files and two large ones. */
async function makeBench(): Promise<Workbench> {
  const bench = new Workbench("restore-faults");
  await bench.create();
  mkdirSync(join(bench.source, "small"));
  for (let at = 0; at < 100; at++) writeFileSync(join(bench.source, `small/${at}`.padEnd(10, "x")), fillBytes(2000, `${at}`));
  for (const name of ["large", "other"]) writeFileSync(join(bench.source, name), fillBytes(12 << 20, name));
  await bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true });
  return bench;
}

/** A store as a remote one: its files cannot be opened, only loaded. */
function hidePaths(inner: Store): Store {
  return {
    location: inner.location,
    concurrency: inner.concurrency,
    settleMs: inner.settleMs,
    create: () => inner.create(),
    save: (ref, data, signal) => inner.save(ref, data, signal),
    load: (ref, span, signal) => inner.load(ref, span, signal),
    stat: (ref, signal) => inner.stat(ref, signal),
    list: (kind, signal) => inner.list(kind, signal),
    remove: (ref, signal) => inner.remove(ref, signal),
    close: () => inner.close(),
  };
}

interface Outcome {
  readonly report: RestoreReport;
  readonly troubles: RestoreTrouble[];
}

async function restore(repository: Repository, target: string, request: Partial<RestoreOptions> & { tree: Uint8Array }): Promise<Outcome> {
  const troubles: RestoreTrouble[] = [];
  const onTrouble = (trouble: RestoreTrouble): void => void troubles.push(trouble);
  await using plan = await planRestore(repository, { target: fromUtf8(target), workers: 2, onTrouble, ...request });
  return { report: await runRestore(plan), troubles };
}

async function rootOf(bench: Workbench): Promise<Buffer> {
  const [snapshot] = await bench.snapshots();
  return Buffer.from(snapshot?.tree ?? "", "hex");
}

/** Where the file is that has a pack. */
function packPath(bench: Workbench, repository: Repository, pack: number): string {
  const name = hexOf(repository.index.packId(pack));
  const path = join(bench.location, "data", name.slice(0, 2), name);
  chmodSync(path, 0o600);
  return path;
}

/** Some data blobs of the repository and where they are. */
function listDataBlobs(repository: Repository): { pack: number; offsetBytes: number; sealedBytes: number }[] {
  const blobs: { pack: number; offsetBytes: number; sealedBytes: number }[] = [];
  for (let entry = 0; entry < repository.index.size; entry++) {
    const place = repository.index.placeOf(entry);
    if (place !== undefined && !place.isTree) blobs.push(place);
  }
  return blobs;
}

function flipByte(path: string, offsetBytes: number): void {
  const file = openSync(path, "r+");
  writeSync(file, Buffer.from([(readFileSync(path)[offsetBytes] ?? 0) ^ 0x40]), 0, 1, offsetBytes);
  closeSync(file);
}

for (const isRemote of [false, true]) {
  const how = isRemote ? "through a store without paths" : "from a local store";
  const openStore = (bench: Workbench): Store => (isRemote ? hidePaths(openLocalStore(bench.location)) : openLocalStore(bench.location));

  test(`a damaged blob costs the files that need it, which are named; all others are restored, ${how}`, async () => {
    using bench = await makeBench();
    const repository = await bench.open(openStore(bench));
    const target = join(bench.folder, "target");
    // a small file's only blob, and one of several of a large file
    const blobs = listDataBlobs(repository);
    const small = blobs.find(({ sealedBytes }) => sealedBytes < 3000);
    const large = blobs.find(({ sealedBytes }) => sealedBytes > 300_000);
    assert.ok(small !== undefined && large !== undefined);
    for (const { pack, offsetBytes } of [small, large]) flipByte(packPath(bench, repository, pack), offsetBytes + 40);
    const { report, troubles } = await restore(repository, target, { tree: await rootOf(bench) });
    assert.deepEqual([report.lost, report.failed, report.files, troubles.length], [2, 2, 100, 2]);
    for (const { reason, message } of troubles) {
      assert.equal(reason, "damaged");
      assert.match(message, /Cannot read blob "[0-9a-f]{64}": .*, in pack "[0-9a-f]{64}"/);
    }
    const lost = troubles.map(({ path }) => path).sort();
    const differences = await compareTrees(bench.source, target);
    assert.deepEqual(new Set(differences.map((text) => text.replace(/: .*/, ""))), new Set(lost));
    // what could be had of the large file is there, but it does not look finished
    const broken = lost.find((path) => !path.startsWith("/small")) ?? "";
    const { size, mode } = statSync(join(target, broken));
    assert.deepEqual([size, mode & 0o777], [12 << 20, 0o600]);
    const one = readFileSync(join(bench.source, broken));
    const other = readFileSync(join(target, broken));
    assert.ok(one.subarray(0, 100).equals(other.subarray(0, 100)) || one.subarray(-100).equals(other.subarray(-100)));
    await assert.rejects(
      restoreSnapshot(repository, { tree: await rootOf(bench), target: fromUtf8(target), workers: 1 }),
      (error) => isFailure(error, "RestoreIncomplete") && error.details["lost"] === 2,
    );
  });

  test(`a pack that is cut off or missing costs the files that need it, ${how}`, async () => {
    using bench = await makeBench();
    const repository = await bench.open(openStore(bench));
    const packs = [...new Set(listDataBlobs(repository).map(({ pack }) => pack))];
    assert.ok(packs.length >= 2);
    const [first = 0, second = 0] = packs;
    truncateSync(packPath(bench, repository, first), 3 << 20);
    rmSync(packPath(bench, repository, second));
    const target = join(bench.folder, "target");
    const { report, troubles } = await restore(repository, target, { tree: await rootOf(bench) });
    assert.ok(report.lost > 0 && report.lost === troubles.length);
    assert.ok(troubles.every(({ reason }) => reason === "damaged"));
    const differences = await compareTrees(bench.source, target);
    assert.deepEqual(new Set(differences.map((text) => text.replace(/: .*/, ""))), new Set(troubles.map(({ path }) => path)));
    const isWholeBefore = listDataBlobs(repository).some(
      ({ pack, offsetBytes, sealedBytes }) => pack === first && offsetBytes + sealedBytes <= 3 << 20,
    );
    assert.ok(!isWholeBefore || report.bytesWritten > 0);
  });
}

test("a store that does not answer ends the restore, and a second try goes on", async () => {
  using bench = await makeBench();
  const tree = await rootOf(bench);
  const store = createFaultyStore(hidePaths(openLocalStore(bench.location)), [
    { operation: "load", kind: "pack", mode: "before", from: 6 },
  ]);
  const target = join(bench.folder, "target");
  const repository = await bench.open(store);
  await assert.rejects(restore(repository, target, { tree, workers: 1 }), (error) => isFailure(error, "StoreUnavailable"));
  await restore(await bench.open(), target, { tree });
  assert.deepEqual(await compareTrees(bench.source, target), []);
});

test("a damaged folder of the snapshot is named, the others are restored", async () => {
  using bench = await makeBench();
  const repository = await bench.open();
  const [place] = Array.from({ length: repository.index.size }, (_, entry) => repository.index.placeOf(entry)).filter(
    (found) => found !== undefined && found.isTree && found.plainBytes > 20_000,
  );
  assert.ok(place !== undefined);
  flipByte(packPath(bench, repository, place.pack), place.offsetBytes + 50);
  const target = join(bench.folder, "target");
  const { report, troubles } = await restore(repository, target, { tree: await rootOf(bench) });
  assert.deepEqual(
    troubles.map(({ path, reason }) => `${path} ${reason}`),
    ["/small damaged"],
  );
  assert.deepEqual([report.files, report.lost], [2, 1]);
  assert.deepEqual(readdirSync(target).sort(), ["large", "other", "small"]);
});

test("a second look finds what changed on disk after it was written", async () => {
  using bench = await makeBench();
  const target = join(bench.folder, "target");
  const troubles: RestoreTrouble[] = [];
  await using plan = await planRestore(await bench.open(), {
    tree: await rootOf(bench),
    target: fromUtf8(target),
    workers: 1,
    verify: true,
    onTrouble: (trouble) => troubles.push(trouble),
    onProgress({ phase }) {
      // the metadata of folders comes before the second look
      if (phase === "finish") flipByte(join(target, "other"), 5 << 20);
    },
  });
  const report = await runRestore(plan);
  assert.equal(report.filesVerified, 102);
  assert.deepEqual(
    troubles.map(({ path, reason }) => `${path} ${reason}`),
    ["/other verify"],
  );
});

test("a target that fills up stops the restore; with more room it goes on", { skip: isRoot ? false : "needs root to mount" }, async () => {
  using bench = await makeBench();
  const repository = await bench.open();
  const tree = await rootOf(bench);
  const target = bench.makeFolder("target");
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=10m", "tmpfs", target]);
  try {
    await assert.rejects(
      restore(repository, target, { tree }),
      (error) => isFailure(error, "TargetFull") && /Cannot write "\/(?:large|other|small)/.test(error.message),
    );
    // nothing that looks finished is wrong
    for (const name of ["large", "other"]) {
      const isThere = readdirSync(target).includes(name);
      if (isThere) assert.notEqual(statSync(join(target, name)).mtimeMs, statSync(join(bench.source, name)).mtimeMs);
    }
    execFileSync("mount", ["-o", "remount,size=40m", target]);
    const { report } = await restore(repository, target, { tree });
    assert.ok(report.bytesWritten < 25 << 20);
    assert.deepEqual(await compareTrees(bench.source, target), []);
  } finally {
    execFileSync("umount", [target]);
  }
});

test("a target without room for another file stops the restore", { skip: isRoot ? false : "needs root to mount" }, async () => {
  using bench = await makeBench();
  const target = bench.makeFolder("target");
  execFileSync("mount", ["-t", "tmpfs", "-o", "nr_inodes=50", "tmpfs", target]);
  try {
    const tree = await rootOf(bench);
    await assert.rejects(restore(await bench.open(), target, { tree }), (error) => isFailure(error, "TargetFull"));
  } finally {
    execFileSync("umount", [target]);
  }
});

test("workers leave no open files behind, whether the restore succeeds, fails or is stopped", async () => {
  using bench = await makeBench();
  const tree = await rootOf(bench);
  const repository = await bench.open();
  const count = (): number => readdirSync("/proc/self/fd").length;
  await restore(repository, join(bench.folder, "warm up"), { tree });
  const before = count();
  for (let time = 0; time < 3; time++) {
    await restore(repository, join(bench.folder, `target ${time}`), { tree });
    const stop = new AbortController();
    const onProgress = (): void => stop.abort();
    await assert.rejects(restore(repository, join(bench.folder, `stopped ${time}`), { tree, onProgress, signal: stop.signal }), (error) =>
      isFailure(error),
    );
    await assert.rejects(restore(repository, join(bench.folder, `no tree ${time}`), { tree: Buffer.alloc(32) }), (error) =>
      isFailure(error, "BlobMissing"),
    );
  }
  assert.ok(count() <= before, `${count()} open files, ${before} before`);
});
