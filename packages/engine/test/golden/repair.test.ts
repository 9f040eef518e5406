/** Repair on repositories that restic wrote and that were then damaged: it heals what can be healed, and restic agrees. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { sha256Hex } from "../../src/crypto/hash.ts";
import { parsePackId } from "../../src/format/ids.ts";
import { checkRepository } from "../../src/maintain/check.ts";
import type { CheckError } from "../../src/maintain/check-report.ts";
import { type IndexedPack, readEverything, readPlainFiles, savePlainFile, savePlainPack } from "../../src/maintain/plain-repository.ts";
import { planPrune, runPrune } from "../../src/maintain/prune.ts";
import { type IndexRepairPlan, planIndexRepair, type PlanIndexOptions, runIndexRepair } from "../../src/maintain/rebuild-index.ts";
import { type PackRepairPlan, planPackRepair, runPackRepair } from "../../src/maintain/repair-packs.ts";
import { planSnapshotRepair, runSnapshotRepair, type SnapshotRepairPlan } from "../../src/maintain/repair-snapshots.ts";
import type { Repository } from "../../src/repository/repository.ts";
import { createMemoryStore } from "../../src/store/memory.ts";
import type { Store } from "../../src/store/store.ts";
import { GoldenCopy, goldenPassword } from "./golden.ts";

const without = skipWithout("restic");

function restic(copy: GoldenCopy, ...args: string[]): void {
  execFileSync("restic", ["--no-cache", "--quiet", ...args], {
    cwd: copy.folder,
    env: { ...process.env, RESTIC_REPOSITORY: copy.location, RESTIC_PASSWORD: goldenPassword },
    stdio: "pipe",
  });
}

async function check(copy: GoldenCopy): Promise<readonly CheckError["kind"][]> {
  const { errors } = await checkRepository(await copy.open(), { workers: 1, readData: { kind: "all" } });
  return [...new Set(errors.map(({ kind }) => kind))].sort();
}

/** Check, restic's check, and a prune: the repository is as good as new. */
async function assertHealed(copy: GoldenCopy): Promise<void> {
  assert.deepEqual(await check(copy), []);
  const repository = await copy.open();
  await runPrune(repository, await planPrune(repository, { workers: 1, maxUnused: { kind: "size", sizeBytes: 0 } }), { workers: 1 });
  assert.deepEqual(await check(copy), []);
  if (without === false) restic(copy, "check", "--read-data");
}

async function repairIndex(copy: GoldenCopy, options: PlanIndexOptions = {}): Promise<IndexRepairPlan> {
  const repository = await copy.open();
  const plan = await planIndexRepair(repository, options);
  assert.deepEqual(JSON.parse(JSON.stringify(plan)), plan);
  await runIndexRepair(repository, plan);
  return plan;
}

async function repairPacks(copy: GoldenCopy, ...ids: readonly string[]): Promise<PackRepairPlan> {
  const repository = await copy.open();
  const plan = await planPackRepair(repository, ids.map(parsePackId));
  assert.deepEqual(JSON.parse(JSON.stringify(plan)), plan);
  await runPackRepair(repository, plan);
  return plan;
}

async function repairSnapshots(copy: GoldenCopy, options: { forget?: boolean; keepPartialFiles?: boolean } = {}): Promise<SnapshotRepairPlan> {
  const repository = await copy.open();
  const plan = await planSnapshotRepair(repository, options);
  await runSnapshotRepair(repository, plan, options);
  return plan;
}

/** Packs by what is in them, the largest first. */
async function findPacks(copy: GoldenCopy, type: "data" | "tree"): Promise<IndexedPack[]> {
  const indexes = [...(await readPlainFiles(await copy.open(), "index")).values()] as { packs: IndexedPack[] }[];
  const size = ({ blobs }: IndexedPack): number => blobs.reduce((sum, { length }) => sum + length, 0);
  return indexes
    .flatMap(({ packs }) => packs)
    .filter(({ blobs }) => blobs[0]?.type === type)
    .sort((a, b) => size(b) - size(a));
}

function listQuarantine(copy: GoldenCopy, kind: string): string[] {
  const folder = join(copy.location, "quarantine", kind);
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

function flipAt(at: number): (bytes: Buffer) => Buffer {
  return (bytes) => Buffer.from(bytes.map((byte, i) => (i === (at < 0 ? bytes.length + at : at) ? byte ^ 8 : byte)));
}

/** Replaces an index file by one that says something else. */
async function changeIndex(copy: GoldenCopy, change: (pack: { id: string; blobs: { type: string; offset: number; length: number }[] }) => void): Promise<void> {
  const repository = await copy.open();
  const [first] = await readPlainFiles(repository, "index");
  if (first === undefined) throw new Error("an index file needed");
  const [name, json] = first;
  for (const pack of (json as { packs: { id: string; blobs: { type: string; offset: number; length: number }[] }[] }).packs) change(pack);
  copy.remove("index", name);
  await savePlainFile(repository, "index", json);
}

describe("repair index heals", () => {
  const cases: readonly { readonly name: string; readonly damage: (copy: GoldenCopy) => Promise<void> | void; readonly readAllPacks?: boolean; readonly setAside: number }[] = [
    { name: "nothing where nothing is wrong", damage: () => {}, setAside: 0 },
    { name: "an index file that is missing", damage: (copy) => copy.remove("index", copy.list("index")[0] ?? ""), setAside: 0 },
    { name: "all index files missing", damage: (copy) => copy.list("index").forEach((name) => copy.remove("index", name)), setAside: 0 },
    { name: "a flipped bit", damage: (copy) => copy.change("index", copy.list("index")[0] ?? "", flipAt(99)), setAside: 1 },
    { name: "an index file cut short", damage: (copy) => copy.change("index", copy.list("index")[0] ?? "", (bytes) => bytes.subarray(0, 99)), setAside: 1 },
    { name: "an index file without content", damage: (copy) => copy.write("index", copy.list("index")[0] ?? "", Buffer.alloc(0)), setAside: 1 },
    {
      name: "wrong offsets",
      damage: (copy) => changeIndex(copy, ({ blobs }) => blobs.forEach((blob) => (blob.offset += blob.offset > 0 ? 1 : 0))),
      setAside: 1,
    },
    {
      name: "a pack that is listed without one of its blobs",
      damage: (copy) => changeIndex(copy, ({ blobs }) => void blobs.sort((a, b) => a.offset - b.offset).pop()),
      setAside: 1,
    },
    {
      name: "data that is listed as a tree, when it reads all packs",
      damage: (copy) => changeIndex(copy, ({ blobs }) => blobs.forEach((blob) => (blob.type = blob.type === "data" ? "tree" : "data"))),
      readAllPacks: true,
      setAside: 3,
    },
  ];
  for (const { name, damage, readAllPacks = false, setAside } of cases) {
    test(name, async () => {
      using copy = await GoldenCopy.make();
      const files = await readEverything(await copy.open());
      await damage(copy);
      const plan = await repairIndex(copy, { readAllPacks });
      assert.deepEqual(plan.dropped, []);
      assert.equal(plan.replaced.length, setAside);
      assert.equal(listQuarantine(copy, "index").length, setAside);
      assert.deepEqual(await readEverything(await copy.open()), files);
      await assertHealed(copy);
      assert.deepEqual((await repairIndex(copy)).replaced, []);
    });
  }

  test("packs that no index file lists, and leaves what is no pack where it is", async () => {
    using copy = await GoldenCopy.make();
    const pack = await savePlainPack(await copy.open(), [{ type: "data", plain: Buffer.from("left behind") }]);
    const rubbish = Buffer.from("no pack at all".repeat(20));
    copy.write("data", sha256Hex(rubbish), rubbish);
    const plan = await repairIndex(copy);
    assert.deepEqual(plan.reindexed, [{ packId: pack.id, blobs: 1 }]);
    assert.deepEqual(plan.dropped.map(({ packId, reason }) => [packId, reason]), [[sha256Hex(rubbish), "damaged"]]);
    assert.ok(copy.has("data", sha256Hex(rubbish)));
    assert.deepEqual(await check(copy), []);
  });

  test("what a pack that is gone leaves behind: its files, once they are backed up again", { skip: without }, async () => {
    using copy = await GoldenCopy.make();
    const files = await readEverything(await copy.open());
    const times = [...(await readPlainFiles(await copy.open(), "snapshot"))].map(([name, json]) => ({ name, time: (json as { time: string }).time }));
    const latest = times.sort((a, b) => (a.time < b.time ? 1 : -1))[0]?.name ?? "";
    restic(copy, "restore", "latest", "--target", "restored");
    const [pack] = await findPacks(copy, "data");
    copy.remove("data", pack?.id ?? "");
    assert.deepEqual(await check(copy), ["packMissing"]);
    const plan = await repairIndex(copy);
    assert.deepEqual(plan.dropped.map(({ packId, reason, blobs }) => [packId, reason, blobs]), [[pack?.id, "missing", pack?.blobs.length]]);
    assert.deepEqual(await check(copy), ["blobMissing"]);
    restic(copy, "backup", "--force", "restored");
    restic(copy, "forget", "--keep-last", "1", "--group-by", "");
    assert.deepEqual(await check(copy), []);
    const now = new Set([...(await readEverything(await copy.open())).values()].flatMap((entries) => [...entries.values()]));
    const wanted = [...(files.get(latest)?.values() ?? [])];
    assert.ok(wanted.length > 10);
    for (const hash of wanted) assert.ok(now.has(hash), hash);
    await assertHealed(copy);
  });

  test("nothing when it is only planned", async () => {
    using copy = await GoldenCopy.make();
    copy.write("index", copy.list("index")[0] ?? "", Buffer.alloc(0));
    const before = [copy.list("index"), copy.list("data")];
    const plan = await planIndexRepair(await copy.open());
    assert.equal(plan.replaced.length, 1);
    assert.match(plan.replaced[0]?.damage ?? "", /index/);
    assert.deepEqual([copy.list("index"), copy.list("data")], before);
    assert.deepEqual(listQuarantine(copy, "index"), []);
  });
});

/** The same repository in a store that cannot set files aside, as a REST server. */
function withoutQuarantine(repository: Repository): Repository {
  const inner = repository.store;
  const store: Store = {
    location: inner.location,
    concurrency: inner.concurrency,
    settleMs: inner.settleMs,
    create: () => inner.create(),
    save: (ref, bytes, signal) => inner.save(ref, bytes, signal),
    load: (ref, span, signal) => inner.load(ref, span, signal),
    stat: (ref, signal) => inner.stat(ref, signal),
    list: (kind, signal) => inner.list(kind, signal),
    remove: (ref, signal) => inner.remove(ref, signal),
    close: () => inner.close(),
  };
  return { ...repository, store };
}

test("a store that cannot set files aside needs another place for them, and nothing is changed without one", async () => {
  using copy = await GoldenCopy.make();
  const [index = ""] = copy.list("index");
  copy.change("index", index, (bytes) => bytes.subarray(0, 99));
  const damaged = copy.read("index", index);
  const before = copy.list("index");
  const repository = withoutQuarantine(await copy.open());
  const plan = await planIndexRepair(repository);
  await assert.rejects(runIndexRepair(repository, plan), (error) => isFailure(error, "InvalidArgument"));
  assert.deepEqual(copy.list("index"), before);
  const quarantine = createMemoryStore();
  await runIndexRepair(repository, plan, { quarantine });
  assert.deepEqual(Buffer.from(await quarantine.load({ kind: "index", name: index })), damaged);
  assert.ok(!copy.has("index", index));
  await assertHealed(copy);
});

describe("repair packs", () => {
  test("saves all blobs of a pack whose header is damaged", async () => {
    using copy = await GoldenCopy.make();
    const files = await readEverything(await copy.open());
    const [pack] = await findPacks(copy, "data");
    const id = pack?.id ?? "";
    copy.change("data", id, flipAt(-20));
    const [repair] = (await repairPacks(copy, id)).packs;
    assert.deepEqual([repair?.state, repair?.savedBlobs, repair?.lost], ["damaged", pack?.blobs.length, []]);
    assert.deepEqual(listQuarantine(copy, "pack"), [id]);
    assert.ok(!copy.has("data", id));
    assert.deepEqual(await readEverything(await copy.open()), files);
    await assertHealed(copy);
  });

  test("saves what is whole of a pack, names what is lost, and repair snapshots does the rest", async () => {
    using copy = await GoldenCopy.make();
    const files = await readEverything(await copy.open());
    const [pack] = await findPacks(copy, "data");
    const id = pack?.id ?? "";
    const hurt = pack?.blobs.toSorted((a, b) => b.offset - a.offset)[0];
    copy.change("data", id, flipAt((hurt?.offset ?? 0) + 40));
    const [repair] = (await repairPacks(copy, id)).packs;
    assert.equal(repair?.savedBlobs, (pack?.blobs.length ?? 0) - 1);
    assert.deepEqual(repair?.lost, [{ blobId: hurt?.id, blobType: "data", hasOtherCopy: false }]);
    assert.deepEqual(await check(copy), ["blobMissing"]);
    const plan = await repairSnapshots(copy, { forget: true });
    const changed = plan.snapshots.filter(({ state }) => state === "damaged");
    assert.ok(changed.length > 0);
    for (const { changes } of changed) assert.ok(changes.every(({ what }) => what === "fileRemoved"));
    assert.deepEqual(listQuarantine(copy, "snapshot"), changed.map(({ snapshotId }) => snapshotId).sort());
    // All that was left out is the files that are named, and they had the lost blob.
    const after = await readEverything(await copy.open());
    const removed = changed.reduce((sum, { changeCount }) => sum + changeCount, 0);
    const count = (of: Map<string, Map<string, string>>): number => [...of.values()].reduce((sum, { size }) => sum + size, 0);
    assert.ok(removed > 0 && count(after) < count(files));
    const old = new Set([...files.values()].flatMap((entries) => [...entries].map(([path, hash]) => `${path} ${hash}`)));
    for (const entries of after.values()) for (const [path, hash] of entries) assert.ok(old.has(`${path} ${hash}`), path);
    await assertHealed(copy);
  });

  test("saves the beginning of a pack that was cut short", async () => {
    using copy = await GoldenCopy.make();
    const [pack] = await findPacks(copy, "data");
    const id = pack?.id ?? "";
    copy.change("data", id, (bytes) => bytes.subarray(0, bytes.length / 2));
    const [repair] = (await repairPacks(copy, id)).packs;
    assert.ok((repair?.savedBlobs ?? 0) > 0 && (repair?.lost.length ?? 0) > 0);
    assert.equal((repair?.savedBlobs ?? 0) + (repair?.lost.length ?? 0), pack?.blobs.length);
    await repairSnapshots(copy, { forget: true });
    await assertHealed(copy);
  });

  test("takes nothing from a pack without content but its place", async () => {
    using copy = await GoldenCopy.make();
    const [pack] = await findPacks(copy, "data");
    const id = pack?.id ?? "";
    copy.write("data", id, Buffer.alloc(0));
    const [repair] = (await repairPacks(copy, id)).packs;
    assert.deepEqual([repair?.state, repair?.savedBlobs, repair?.lost.length], ["damaged", 0, pack?.blobs.length]);
    await repairSnapshots(copy, { forget: true });
    await assertHealed(copy);
  });

  test("leaves whole packs alone, and says which are missing", async () => {
    using copy = await GoldenCopy.make();
    const [pack] = await findPacks(copy, "data");
    const gone = sha256Hex(Buffer.from("gone"));
    const before = [copy.list("data"), copy.list("index")];
    const { packs } = await repairPacks(copy, pack?.id ?? "", gone);
    assert.deepEqual(packs.map(({ packId, state }) => [packId, state]), [[pack?.id, "whole"], [gone, "missing"]]);
    assert.deepEqual([copy.list("data"), copy.list("index")], before);
  });

  test("changes nothing when it is only planned", async () => {
    using copy = await GoldenCopy.make();
    const [pack] = await findPacks(copy, "data");
    copy.change("data", pack?.id ?? "", flipAt(50));
    const before = [copy.list("data"), copy.list("index"), copy.list("snapshots")];
    const plan = await planPackRepair(await copy.open(), [parsePackId(pack?.id ?? "")]);
    assert.equal(plan.packs[0]?.lost.length, 1);
    assert.match(plan.packs[0]?.problems.join("\n") ?? "", /has the hash/);
    assert.deepEqual([copy.list("data"), copy.list("index"), copy.list("snapshots")], before);
  });
});

describe("repair snapshots", () => {
  test("empties a directory whose tree is lost, and keeps its entry", async () => {
    using copy = await GoldenCopy.make();
    const repository = await copy.open();
    const trees = new Map<string, string>();
    for (const snapshot of (await readPlainFiles(repository, "snapshot")).values()) {
      const { tree, time } = snapshot as { tree: string; time: string };
      trees.set(tree, time);
    }
    // A tree that is no root.
    const [victim] = (await findPacks(copy, "tree")).flatMap(({ id, blobs }) => blobs.filter((blob) => !trees.has(blob.id)).map((blob) => ({ id, blob })));
    copy.change("data", victim?.id ?? "", flipAt((victim?.blob.offset ?? 0) + 40));
    const [repair] = (await repairPacks(copy, victim?.id ?? "")).packs;
    assert.deepEqual(repair?.lost.map(({ blobId, blobType }) => [blobId, blobType]), [[victim?.blob.id, "tree"]]);
    const plan = await repairSnapshots(copy, { forget: true });
    const changes = plan.snapshots.flatMap((snapshot) => snapshot.changes);
    assert.ok(changes.some(({ what }) => what === "directoryEmptied"));
    const emptied = changes.find(({ what }) => what === "directoryEmptied")?.path ?? "";
    const after = await readEverything(await copy.open());
    assert.ok([...after.values()].some((entries) => [...entries.keys()].some((path) => path === emptied)));
    await assertHealed(copy);
  });

  test("marks what it made, and leaves originals where it is not told to forget them", async () => {
    using copy = await GoldenCopy.make();
    const [pack] = await findPacks(copy, "data");
    copy.remove("data", pack?.id ?? "");
    await repairIndex(copy);
    const before = copy.list("snapshots");
    const plan = await repairSnapshots(copy);
    const damaged = plan.snapshots.filter(({ state }) => state === "damaged").map(({ snapshotId }) => snapshotId);
    assert.ok(before.every((name) => copy.has("snapshots", name)));
    const made = [...(await readPlainFiles(await copy.open(), "snapshot"))].filter(([name]) => !before.includes(name));
    assert.equal(made.length, damaged.length);
    for (const [, json] of made) {
      const { tags, original } = json as { tags: string[]; original: string };
      assert.deepEqual([tags, damaged.some((id) => id === original)], [["repaired"], true]);
    }
    // A second run, told to forget, makes nothing new.
    await repairSnapshots(copy, { forget: true });
    assert.equal(copy.list("snapshots").length, before.length);
    await assertHealed(copy);
  });

  test("keeps files without the pieces they miss, when asked to", async () => {
    using copy = await GoldenCopy.make();
    const [pack] = await findPacks(copy, "data");
    copy.remove("data", pack?.id ?? "");
    await repairIndex(copy);
    const plan = await repairSnapshots(copy, { forget: true, keepPartialFiles: true });
    assert.ok(plan.snapshots.flatMap(({ changes }) => changes).every(({ what }) => what === "fileShortened"));
    await assertHealed(copy);
  });

  test("sets a snapshot aside that cannot be read, when told to forget", async () => {
    using copy = await GoldenCopy.make();
    const [snapshot = ""] = copy.list("snapshots");
    copy.change("snapshots", snapshot, (bytes) => bytes.subarray(0, 60));
    const [lost] = (await repairSnapshots(copy)).snapshots.filter(({ state }) => state === "lost");
    assert.equal(lost?.snapshotId, snapshot);
    assert.ok(copy.has("snapshots", snapshot));
    await repairSnapshots(copy, { forget: true });
    assert.deepEqual(listQuarantine(copy, "snapshot"), [snapshot]);
    await assertHealed(copy);
  });

  test("changes nothing where nothing is wrong, and nothing when it is only planned", async () => {
    using copy = await GoldenCopy.make();
    const before = [copy.list("data"), copy.list("index"), copy.list("snapshots")];
    const plan = await repairSnapshots(copy, { forget: true });
    assert.ok(plan.snapshots.every(({ state }) => state === "whole"));
    const [pack] = await findPacks(copy, "data");
    copy.remove("data", pack?.id ?? "");
    const planned = await planSnapshotRepair(await copy.open());
    assert.ok(planned.snapshots.some(({ state }) => state === "damaged"));
    assert.deepEqual([[...copy.list("data"), pack?.id ?? ""].sort(), copy.list("index"), copy.list("snapshots")], before);
  });
});

test("a repaired repository takes backups, and gives back what was not lost", { skip: without }, async () => {
  using copy = await GoldenCopy.make();
  const [pack] = await findPacks(copy, "data");
  const id = pack?.id ?? "";
  copy.change("data", id, flipAt(60));
  copy.change("index", copy.list("index")[0] ?? "", flipAt(60));
  await repairIndex(copy);
  await repairPacks(copy, id);
  await repairSnapshots(copy, { forget: true });
  mkdirSync(join(copy.folder, "more"));
  writeFileSync(join(copy.folder, "more", "file"), "more");
  restic(copy, "backup", "more");
  restic(copy, "restore", "latest", "--target", "restored");
  assert.ok(existsSync(join(copy.folder, "restored")));
  restic(copy, "prune", "--max-unused", "0");
  await assertHealed(copy);
});
