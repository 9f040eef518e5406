/** Backups that end by SIGKILL, wherever they are; and several writers in one repository at the same time. */
import assert from "node:assert/strict";
import { type ChildProcess, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { fromUtf8 } from "../src/format/byte-string.ts";
import { listLocks, removeStaleLocks } from "../src/repository/lock-list.ts";
import { fillBytes } from "./sample-tree.ts";
import { diffRecords, recordFolder, recordSnapshot } from "./tree-record.ts";
import { Workbench } from "./workbench.ts";

const needsRestic = skipWithout("restic");
const script = join(import.meta.dirname, "backup-in-child.ts");

function fillSource(folder: string, seed: string, sizeBytes: number): void {
  for (let at = 0; at < 24; at++) {
    mkdirSync(`${folder}/${at % 6}`, { recursive: true });
    writeFileSync(`${folder}/${at % 6}/${at}`, fillBytes(Math.ceil(sizeBytes / 24), `${seed} ${at}`));
  }
}

/** A save, counted from 1, and whether the process dies before, in the midst of, or after it. */
type CommitPoint = readonly [kind: string, nth: number, mode: string];

/** Runs a backup in a child until it dies at a save. */
function dieAtSave(bench: Workbench, [kind, nth, mode]: CommitPoint): void {
  const args = ["--conditions=source", script, bench.location, bench.source, kind, `${nth}`, mode];
  const child = spawnSync(process.execPath, args, { encoding: "utf8" });
  assert.equal(child.signal, "SIGKILL", child.stderr);
}

/** Every snapshot that was not looked at before can be read to its last byte. @returns how many snapshots there are */
async function expectWhole(bench: Workbench, seen: Set<string>): Promise<number> {
  const repository = await bench.open();
  const snapshots = await bench.snapshots();
  for (const { id, tree } of snapshots) {
    if (!seen.has(id)) await recordSnapshot(repository, tree, bench.source);
    seen.add(id);
  }
  return snapshots.length;
}

async function expectNewest(bench: Workbench, folder: string = bench.source): Promise<void> {
  const newest = (await bench.snapshots()).at(-1);
  assert.ok(newest !== undefined);
  assert.deepEqual(diffRecords(recordFolder(folder), await recordSnapshot(await bench.open(), newest.tree, folder)), []);
}

/** What a dead process leaves is no obstacle: its lock is told to be stale, by us and by restic, and its temporary files are skipped. */
async function cleanUp(bench: Workbench, by: "us" | "restic"): Promise<void> {
  const left = await listLocks(await bench.open());
  assert.ok(left.every((lock) => lock.hostname === hostname() && lock.pid !== process.pid));
  if (by === "us") assert.equal(await removeStaleLocks(await bench.open()), left.length);
  else bench.restic("unlock");
  assert.equal(bench.countFiles("locks"), 0);
}

const commitPoints: readonly CommitPoint[] = [
  ["lock", 1, "after"],
  ["pack", 1, "before"],
  ["pack", 1, "midway"],
  ["pack", 3, "after"],
  ["pack", 6, "midway"],
  ["index", 1, "before"],
  ["index", 1, "midway"],
  ["index", 1, "after"],
  ["snapshot", 1, "before"],
  ["snapshot", 1, "midway"],
  ["snapshot", 1, "after"],
];

test("a backup killed at any commit point leaves a sound repository, and the next backup completes it", { skip: needsRestic }, async () => {
  using bench = new Workbench("crash");
  await bench.create();
  const seen = new Set<string>();
  for (const [round, [kind, nth, mode]] of commitPoints.entries()) {
    fillSource(bench.source, `${round}`, 3_000_000);
    const before = (await bench.snapshots()).length;
    dieAtSave(bench, [kind, nth, mode]);
    const isCommitted = kind === "snapshot" && mode === "after";
    const found = await expectWhole(bench, seen);
    assert.ok(found === before + (isCommitted ? 1 : 0) || (mode === "midway" && kind === "snapshot"), `${kind} ${nth} ${mode}`);
    await cleanUp(bench, round % 2 === 0 ? "us" : "restic");
    const again = await bench.backUp();
    assert.deepEqual(again.troublesSeen, []);
    // What is in an index file need not be stored again; packs that none names are stored again, and are for prune to remove.
    if (kind === "snapshot" || (kind === "index" && mode === "after")) assert.equal(again.counts.dataBlobs, 0, `${kind} ${mode}`);
    await expectNewest(bench);
  }
  bench.check();
  bench.restic("prune", "--max-unused", "0");
  bench.check();
  await expectNewest(bench);
});

test("a backup killed at any moment leaves a sound repository, and the next backup completes it", { skip: needsRestic }, async (t) => {
  using bench = new Workbench("crash");
  await bench.create();
  let seed = Number(process.env["GRANARY_SEED"] ?? Date.now() % 1_000_000);
  t.diagnostic(`seed ${seed}`);
  const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
  let killed = 0;
  const seen = new Set<string>();
  for (let round = 0; round < 6; round++) {
    fillSource(bench.source, `${round} ${seed}`, 6_000_000);
    const child = bench.start(process.execPath, ["--conditions=source", script, bench.location, bench.source], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const ended = once(child, "exit");
    // From the first pack on, which is where something can be half done.
    await Promise.race([once(child.stdout ?? child, "data"), ended]);
    await new Promise((resolve) => setTimeout(resolve, random() * 120));
    child.kill("SIGKILL");
    if ((await ended)[1] === "SIGKILL") killed++;
    await expectWhole(bench, seen);
    await cleanUp(bench, random() < 0.5 ? "us" : "restic");
  }
  t.diagnostic(`${killed} of 6 killed`);
  bench.check();
  await bench.backUp();
  await expectNewest(bench);
  bench.restic("prune", "--max-unused", "0");
  bench.check();
  await expectNewest(bench);
});

test("a snapshot that was acknowledged is there after the process that made it was killed at once", { skip: needsRestic }, async () => {
  using bench = new Workbench("crash");
  await bench.create();
  for (let round = 0; round < 3; round++) {
    fillSource(bench.source, `${round}`, 2_000_000);
    const child: ChildProcess = bench.start(process.execPath, ["--conditions=source", script, bench.location, bench.source], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const ended = once(child, "exit");
    let text = "";
    for await (const piece of child.stdout ?? []) {
      text += String(piece);
      if (/^[0-9a-f]{64}$/m.test(text)) child.kill("SIGKILL");
    }
    await ended;
    const id = /^[0-9a-f]{64}$/m.exec(text)?.[0];
    assert.ok((await bench.snapshots()).some((snapshot) => snapshot.id === id));
    await expectNewest(bench);
    await cleanUp(bench, "us");
  }
  bench.check();
});

test("what killed backups leave half written is skipped by everyone, and does not stop anybody", { skip: needsRestic }, async () => {
  using bench = new Workbench("crash");
  await bench.create();
  fillSource(bench.source, "x", 3_000_000);
  for (const mode of ["midway", "midway", "midway"]) dieAtSave(bench, ["pack", 2, mode]);
  const names = readdirSync(join(bench.location, "data"), { recursive: true, encoding: "utf8" }).filter((name) => name.length > 2);
  for (const name of names.filter((each) => !each.includes("tmp"))) {
    const bytes = readFileSync(join(bench.location, "data", name));
    assert.ok(bytes.length > 0, "a pack under its final name is whole");
  }
  await cleanUp(bench, "us");
  await bench.backUp();
  bench.check();
  await expectNewest(bench);
});

test("several of our writers and restic's at the same time fill one repository, and each has its snapshot", {
  skip: needsRestic,
}, async () => {
  using bench = new Workbench("crash");
  await bench.create();
  const folders = Array.from({ length: 4 }, (_, at) => bench.makeFolder(`folder ${at}`));
  for (let round = 0; round < 2; round++) {
    for (const [at, folder] of folders.entries()) {
      fillSource(folder, `${at} ${round}`, 4_000_000);
      fillSource(folder, `in all ${round}`, 2_000_000);
      for (let file = 0; file < 12; file++) writeFileSync(`${folder}/own ${file}`, fillBytes(200_000, `${at} ${round} ${file}`));
    }
    const [first = "", second = "", third = "", fourth = ""] = folders;
    const child = bench.start(process.execPath, ["--conditions=source", script, bench.location, third]);
    const ended = once(child, "exit");
    await Promise.all([
      bench.backUp({ targets: [fromUtf8(first)] }),
      bench.backUp({ targets: [fromUtf8(second)], packBytes: 500_000 }),
      bench.resticAsync("backup", "--quiet", "--host", "host", fourth),
      ended,
    ]);
    assert.deepEqual(await ended, [0, null]);
  }
  const snapshots = await bench.snapshots();
  assert.equal(snapshots.length, 8);
  const repository = await bench.open();
  for (const folder of folders) {
    const newest = snapshots.findLast(({ paths }) => paths[0] === folder);
    assert.ok(newest !== undefined);
    assert.deepEqual(diffRecords(recordFolder(folder), await recordSnapshot(repository, newest.tree, folder)), []);
  }
  assert.equal(bench.countFiles("locks"), 0);
  bench.check();
  bench.restic("prune", "--max-unused", "0");
  bench.check();
});
