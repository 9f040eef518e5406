/** Prune and check beside the real restic: each after the other, on one repository. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { lockRepository } from "../repository/lock.ts";
import { checkRepository } from "./check.ts";
import { readEverything } from "./plain-repository.ts";
import { planPrune, type PlanPruneOptions, type PruneReport, runPrune } from "./prune.ts";
import { ResticRunner } from "./restic-runner.ts";

const megabyte = 1 << 20;

/** A folder that changes from snapshot to snapshot, and four backups of it by restic. */
async function createHistory(restic: ResticRunner): Promise<void> {
  await restic.create();
  const home = restic.makeFolder("home");
  for (let state = 1; state <= 4; state++) {
    for (let i = 0; i < 40; i++) {
      const folder = join(home, `folder-${i % 7}`);
      mkdirSync(folder, { recursive: true });
      if (i % state === 0) writeFileSync(join(folder, `file-${i}`), `state ${state} `.repeat(50 * i));
    }
    execFileSync("sh", ["-c", `head -c ${2 * megabyte} /dev/urandom > "$1"`, "sh", join(home, `noise-${state}`)]);
    if (state > 1) rmSync(join(home, `noise-${state - 1}`));
    appendFileSync(join(home, "log"), `state ${state}\n`.repeat(1000));
    restic.run("backup", "--host", "h", "home");
  }
}

async function prune(restic: ResticRunner, options: PlanPruneOptions = {}): Promise<PruneReport> {
  const repository = await restic.open();
  await using lock = await lockRepository(repository, { exclusive: true });
  const plan = await planPrune(repository, { ...options, signal: lock.signal });
  return await runPrune(repository, plan, { signal: lock.signal });
}

async function assertCheckAgrees(restic: ResticRunner): Promise<void> {
  const { errors, contentVerifiedMs } = await checkRepository(await restic.open(), { readData: { kind: "all" } });
  assert.deepEqual(
    errors.map(({ message }) => message),
    [],
  );
  assert.notEqual(contentVerifiedMs, null);
  restic.run("check", "--read-data");
}

function restoreLatest(restic: ResticRunner, name: string): string {
  const target = join(restic.folder, name);
  restic.run("restore", "latest", "--target", target);
  return execFileSync("sh", ["-c", "find . -type f -exec sha256sum {} + | sort -k2", "sh"], { cwd: target, encoding: "utf8" });
}

describe("beside restic", { skip: skipWithout("restic") }, () => {
  test("what prune leaves of restic's repository, restic checks, restores, backs up to and prunes", async () => {
    using restic = new ResticRunner();
    await createHistory(restic);
    const wanted = restoreLatest(restic, "before");
    restic.run("forget", "--keep-last", "2");
    const left = await readEverything(await restic.open());
    const report = await prune(restic, { maxUnused: { kind: "size", sizeBytes: 0 } });
    assert.ok(report.packsRemoved > 0 && report.packsWritten > 0, JSON.stringify(report));
    await assertCheckAgrees(restic);
    assert.deepEqual(await readEverything(await restic.open()), left);
    assert.equal(restoreLatest(restic, "after"), wanted);
    writeFileSync(join(restic.folder, "home", "more"), "more");
    restic.run("backup", "--host", "h", "home");
    restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0");
    await assertCheckAgrees(restic);
  });

  test("after restic's prune there is nothing to do, and check agrees", async () => {
    using restic = new ResticRunner();
    await createHistory(restic);
    restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0");
    await assertCheckAgrees(restic);
    const { errors, notes } = await checkRepository(await restic.open(), { checkUnused: true });
    assert.deepEqual([errors, notes], [[], []]);
    const report = await prune(restic);
    assert.equal(report.packsRemoved + report.indexesWritten, 0);
  });

  test("prune sees as unused exactly what restic does", async () => {
    using restic = new ResticRunner();
    await createHistory(restic);
    restic.run("forget", "--keep-last", "1");
    const plan = await planPrune(await restic.open(), { maxUnused: { kind: "unlimited" } });
    const told = /used:\s+(\d+) blobs[^]*unused:\s+(\d+) blobs/i.exec(restic.run("prune", "--dry-run", "--verbose"));
    assert.notEqual(told, null);
    assert.deepEqual([plan.summary.usedBlobs, plan.summary.unusedBlobs], [Number(told?.[1]), Number(told?.[2])]);
    assert.ok(readFileSync(join(restic.folder, "home", "log")).length > 0);
  });

  test("prune keeps packs of the asked size, and copies large blobs whole", async () => {
    using restic = new ResticRunner();
    await createHistory(restic);
    restic.run("forget", "--keep-last", "1");
    await prune(restic, { maxUnused: { kind: "size", sizeBytes: 0 }, packBytes: 4 * megabyte, repackSmall: true });
    await assertCheckAgrees(restic);
    const again = await prune(restic, { maxUnused: { kind: "size", sizeBytes: 0 }, packBytes: 4 * megabyte, repackSmall: true });
    assert.equal(again.packsRepacked, 0);
  });

  test("an exclusive lock of restic's keeps prune out", async () => {
    using restic = new ResticRunner();
    await createHistory(restic);
    const repository = await restic.open();
    await using lock = await lockRepository(repository, { exclusive: true });
    assert.throws(() => restic.run("prune"), /locked/);
    assert.equal(lock.signal.aborted, false);
  });
});
