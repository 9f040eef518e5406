/** Backups of sources too large for every day. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { skipWithout } from "@granary/base/testing";
import { Workbench } from "../../test/workbench.ts";

const script = fileURLToPath(import.meta.resolve("../../test/backup-in-child.ts"));

/** Backs the source up in a process of its own. @returns the most memory it took, in MiB */
function peakOfBackup(bench: Workbench): number {
  const child = spawnSync(process.execPath, ["--conditions=source", script, bench.location, bench.source], { encoding: "utf8" });
  assert.equal(child.status, 0, child.stderr);
  return Number(/peak (\d+) KiB/.exec(child.stdout)?.[1]) / 1024;
}

test("a folder of a million entries is backed up, found unchanged, and read by restic", { skip: skipWithout("restic") }, async (t) => {
  using bench = new Workbench("million");
  await bench.create();
  const count = 1_000_000;
  for (let at = 0; at < count; at++) closeSync(openSync(`${bench.source}/entry number ${at}`, "w"));
  const firstMiB = peakOfBackup(bench);
  const secondMiB = peakOfBackup(bench);
  t.diagnostic(`peak memory ${Math.round(firstMiB)} MiB, with a parent ${Math.round(secondMiB)} MiB`);
  // The tree alone is one blob of some 330 MiB, which is compressed, sealed, and opened again to prove it.
  assert.ok(firstMiB < 2500 && secondMiB < 3500);
  const snapshots = await bench.snapshots();
  assert.equal(snapshots.length, 2);
  assert.equal(snapshots[1]?.summary?.filesUnmodified, count);
  bench.check();
});
