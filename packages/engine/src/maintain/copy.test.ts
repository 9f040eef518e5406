import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { skipWithout } from "@granary/base/testing";
import { loadIndex } from "../repository/index-load.ts";
import { openRepository, type Repository } from "../repository/repository.ts";
import { createScratch, flip, listNames, spoil } from "../repository/scratch.ts";
import { loadSnapshots } from "../repository/snapshots.ts";
import { createFaultyStore, type FaultRule } from "../store/faulty.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { type CopyEvent, type CopyOptions, type CopyReport, copySnapshots } from "./copy.ts";
import { ResticRunner } from "./restic-runner.ts";
import { changeSampleFolder, fillSampleFolder } from "./sample-folder.ts";

/** Copies all snapshots, as a command would after locking. */
async function copyAll(source: Repository, target: Repository, options: Partial<CopyOptions> = {}): Promise<CopyReport> {
  return await copySnapshots(source, target, {
    snapshots: await loadSnapshots(source),
    existing: await loadSnapshots(target),
    workers: 2,
    ...options,
  });
}

/** Reopens a repository, so that nothing but what is stored counts. */
async function reopen({ store, key }: Repository): Promise<Repository> {
  const repository = await openRepository(store, { password: new Secret("correct horse battery staple") });
  assert.deepEqual(repository.key, key);
  await loadIndex(repository);
  return repository;
}

async function copyStore(from: Store, to: Store): Promise<void> {
  for (const kind of ["config", "key", "snapshot", "index", "pack"] as const) {
    for await (const { name } of from.list(kind)) await to.save({ kind, name }, await from.load({ kind, name }));
  }
}

describe("copySnapshots()", { skip: skipWithout("restic", "setfattr", "setfacl") }, () => {
  let theirs: ResticRunner;
  let folder: string;
  let source: Repository;

  before(async () => {
    theirs = new ResticRunner();
    await theirs.create();
    folder = theirs.makeFolder("source");
    await fillSampleFolder(folder);
    theirs.run("backup", folder, "--tag", "a,b", "--time", "2025-03-01 10:00:00");
    theirs.run("backup", `${folder}/docs`, "--host", "other");
    changeSampleFolder(folder);
    theirs.run("backup", folder);
    source = await theirs.open();
  });
  after(() => theirs[Symbol.dispose]());

  test("copies what restic wrote so that restic finds nothing wrong with it, and nothing twice", async () => {
    const ours = new ResticRunner({ beside: theirs, name: "ours" });
    const target = await ours.create();
    const events: CopyEvent[] = [];
    const report = await copyAll(source, target, { onEvent: (event) => events.push(event) });
    assert.deepEqual([report.saved.size, report.skipped.size], [3, 0]);
    assert.match(ours.run("check", "--read-data"), /no errors were found/);

    // what restic says of both is the same, but for ids and parents
    const described = (runner: ResticRunner): unknown => {
      const list = JSON.parse(runner.read("snapshots", "--json")) as Record<string, unknown>[]; // restic's JSON
      return list
        .map(({ id: _id, short_id: _short, parent: _parent, original: _original, ...rest }) => rest)
        .sort((a, b) => (String(a.time) < String(b.time) ? -1 : 1));
    };
    assert.deepEqual(described(ours), described(theirs));
    for (const [from, to] of report.saved) {
      assert.equal(
        ours.read("ls", "-l", to, "--recursive").split("\n").slice(1).join("\n"),
        theirs.read("ls", "-l", from, "--recursive").split("\n").slice(1).join("\n"),
      );
    }
    const last = events.filter((event) => event.kind === "progress").at(-1);
    assert.ok(
      last !== undefined && last.blobsDone === last.blobsTotal && last.bytesDone === last.bytesTotal && last.blobsDone === report.blobs,
    );
    assert.equal(ours.read("stats", "--json", "--mode", "raw-data"), theirs.read("stats", "--json", "--mode", "raw-data"));

    // a second time, and by restic, there is nothing to do
    const again = await copyAll(source, await ours.open());
    assert.deepEqual([again.saved.size, again.skipped, again.blobs], [0, report.saved, 0]);
    assert.match(ours.run("copy", "--from-repo", theirs.location), /was already copied to snapshot/);
    assert.equal((await loadSnapshots(target)).length, 3);
  });

  test("knows what restic has copied, and copies from a copy", async () => {
    const ours = new ResticRunner({ beside: theirs, name: "copied-by-restic" });
    await ours.create();
    ours.run("copy", "--from-repo", theirs.location);
    assert.deepEqual(await copyAll(source, await ours.open()).then(({ saved, skipped }) => [saved.size, skipped.size]), [0, 3]);
    const third = await createScratch();
    assert.equal((await copyAll(await ours.open(), third)).saved.size, 3);
    // copies of one snapshot know each other by their original
    assert.equal((await copyAll(source, await reopen(third))).skipped.size, 3);
  });

  test("copies only what is missing, and shares packs between snapshots", async () => {
    const target = await createScratch();
    const [first, second, third] = await loadSnapshots(source);
    assert.ok(first !== undefined && second !== undefined && third !== undefined);
    const before = await copyAll(source, target, { snapshots: [first] });
    const rest = await copyAll(source, await reopen(target));
    assert.equal(rest.skipped.size, 1);
    assert.ok(rest.blobs > 0 && rest.sealedBytes < before.sealedBytes);
    const whole = await createScratch();
    const all = await copyAll(source, whole, { packBytes: 64 * 2 ** 20, workers: 1 });
    assert.equal(all.blobs, before.blobs + rest.blobs);
    assert.equal((await listNames(whole.store, "pack")).length, 2); // one of data, one of trees
  });

  test("goes on after a failure where it stopped, wherever that was", async () => {
    const whole = await copyAll(source, await createScratch(), { packBytes: 2 ** 20 });
    const faults: FaultRule[] = [
      { operation: "save", kind: "pack", from: 3, mode: "before" },
      { operation: "save", kind: "pack", from: 2, mode: "after" },
      { operation: "save", kind: "index", from: 1, mode: "before" },
      { operation: "save", kind: "snapshot", from: 2, mode: "before" },
      { operation: "save", kind: "snapshot", from: 2, mode: "after" },
    ];
    for (const fault of faults) {
      const target = await createScratch();
      const faulty: Repository = { ...target, store: createFaultyStore(target.store, [{ ...fault, code: "StoreFull" }]) };
      await assert.rejects(copyAll(source, faulty, { packBytes: 2 ** 20 }), (error) => isFailure(error, "StoreFull"));
      const after = await reopen(target);
      const left = await copyAll(source, after, { packBytes: 2 ** 20 });
      const isIndexed = fault.kind !== "index";
      assert.ok(
        isIndexed ? left.blobs < whole.blobs : left.blobs === whole.blobs,
        `${fault.kind} ${fault.mode}: ${left.blobs} of ${whole.blobs}`,
      );
      assert.equal((await copyAll(source, await reopen(target))).skipped.size, 3);
      assert.equal((await loadSnapshots(target)).length, 3);
    }
  });

  test("stops when it is cancelled, and the next run finds what was done", async () => {
    const target = await createScratch();
    const abort = new AbortController();
    const onEvent = (event: CopyEvent): void => {
      if (event.kind === "progress" && event.bytesDone > event.bytesTotal / 2) abort.abort();
    };
    await assert.rejects(copyAll(source, target, { packBytes: 2 ** 20, onEvent, signal: abort.signal }), (error) =>
      isFailure(error, "Cancelled"),
    );
    assert.equal((await loadSnapshots(target)).length, 0);
    assert.equal((await copyAll(source, await reopen(target))).saved.size, 3);
  });

  test("a damaged or missing blob ends the copy before its snapshot, and names it", async () => {
    const damage = async (change: (store: Store, largest: string) => Promise<void>, code: string): Promise<void> => {
      const store = createMemoryStore();
      await copyStore(source.store, store);
      const packs = await Array.fromAsync(store.list("pack"));
      await change(store, packs.sort((a, b) => b.sizeBytes - a.sizeBytes)[0]?.name ?? "");
      const target = await createScratch();
      const damaged: Repository = { ...source, store };
      await assert.rejects(copyAll(damaged, target), (error) => isFailure(error, code));
      assert.equal((await loadSnapshots(target)).length, 0);
    };
    await damage((store, name) => spoil(store, { kind: "pack", name }, flip), "BlobInvalid");
    await damage((store, name) => store.remove({ kind: "pack", name }), "StoreFileNotFound");
    const forgetful: Repository = { ...source, index: (await createScratch()).index };
    const [snapshot] = await loadSnapshots(source);
    await assert.rejects(
      copyAll(forgetful, await createScratch()),
      (error) => isFailure(error, "BlobMissing") && error.details.snapshotId === snapshot?.id,
    );
  });

  test("reads and writes stores that are not on this machine", async () => {
    const store = createMemoryStore();
    await copyStore(source.store, store);
    const target = await createScratch();
    assert.equal((await copyAll({ ...source, store }, target)).saved.size, 3);
    assert.equal((await copyAll(source, await reopen(target))).skipped.size, 3);
  });

  test("adds compression to what comes from version 1, and takes it off for version 1", async () => {
    const first = new ResticRunner({ beside: theirs, name: "version-1" });
    first.run("init", "--repository-version", "1");
    assert.equal((await copyAll(source, await first.open())).saved.size, 3);
    assert.match(first.run("check", "--read-data"), /no errors were found/);
    const second = new ResticRunner({ beside: theirs, name: "version-2" });
    await second.create();
    const report = await copyAll(await first.open(), await second.open());
    assert.equal(report.saved.size, 3);
    assert.match(second.run("check", "--read-data"), /no errors were found/);
    const sizeOf = (runner: ResticRunner): number =>
      Number(execFileSync("du", ["-sb", `${runner.location}/data`], { encoding: "utf8" }).split("\t")[0]);
    assert.ok(sizeOf(second) < sizeOf(first), `${sizeOf(second)} and ${sizeOf(first)}`);
  });

  test("what was copied restores, by restic, to the same files", async () => {
    const ours = new ResticRunner({ beside: theirs, name: "restored" });
    const { saved } = await copyAll(source, await ours.create());
    const [first] = await loadSnapshots(source);
    const copyId = saved.get(first?.id ?? assert.fail()) ?? assert.fail();
    theirs.run("restore", first?.id ?? "", "--target", theirs.makeFolder("restored-from-source"));
    ours.run("restore", copyId, "--target", theirs.makeFolder("restored-from-copy"));
    execFileSync("diff", [
      "-r",
      "--no-dereference",
      `${theirs.folder}/restored-from-source${folder}/docs`,
      `${theirs.folder}/restored-from-copy${folder}/docs`,
    ]);
    execFileSync("diff", [
      "-r",
      `${theirs.folder}/restored-from-source${folder}/same-1`,
      `${theirs.folder}/restored-from-copy${folder}/same-1`,
    ]);
    execFileSync("cmp", [`${theirs.folder}/restored-from-source${folder}/big.bin`, `${theirs.folder}/restored-from-copy${folder}/big.bin`]);
  });
});
