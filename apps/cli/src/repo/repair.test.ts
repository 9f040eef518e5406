import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { type Bench, makeBench, parseLines } from "../testing/run-cli.ts";

let bench: Bench;
let source: string;

function run(...args: readonly string[]): string {
  const { exitCode, stdout, stderr } = bench.granary("repo", ...args);
  assert.equal(exitCode, 0, `${args.join(" ")}: ${stderr}`);
  return stdout;
}

beforeEach(() => {
  bench = makeBench();
  source = join(bench.folder, "source");
  mkdirSync(source);
  for (const name of ["one", "two"]) writeFileSync(join(source, name), randomBytes(20_000));
  run("init");
  run("backup", source, "-q");
});
afterEach(() => bench[Symbol.dispose]());

function packPath(id: string): string {
  return join(bench.repository, "data", id.slice(0, 2), id);
}

/** The pack that holds this file's only blob, which is damaged in it. */
function damageBlobOf(file: string): string {
  const content = readFileSync(file);
  const blob = createHash("sha256").update(content).digest("hex");
  const entry = parseLines(run("list", "blobs", "--json")).find(({ id }) => id === blob);
  const pack = String(entry?.pack);
  const bytes = readFileSync(packPath(pack));
  const at = Number(entry?.offset) + 100;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  rmSync(packPath(pack));
  writeFileSync(packPath(pack), bytes);
  return pack;
}

test("a damaged pack is repaired: what is whole is saved, what is lost is named, and a new backup brings it back", () => {
  const pack = damageBlobOf(join(source, "one"));
  assert.equal(bench.granary("repo", "check", "--read-data").exitCode, 18);

  const plan = bench.granary("repo", "repair", "packs", pack.slice(0, 10), "--dry-run", "--json");
  assert.equal(plan.exitCode, 3, plan.stderr);
  assert.ok(existsSync(packPath(pack)));
  const told = parseLines(plan.stdout).at(-1) as { dry_run: boolean; packs: { id: string; state: string; lost_blobs: unknown[] }[] };
  assert.equal(told.dry_run, true);
  assert.deepEqual(
    told.packs.map(({ id, state, lost_blobs }) => [id, state, lost_blobs.length]),
    [[pack, "damaged", 1]],
  );

  const repaired = bench.granary("repo", "repair", "packs", pack);
  assert.equal(repaired.exitCode, 3, repaired.stderr);
  assert.match(repaired.stderr, /data blob [0-9a-f]{64} of pack [0-9a-f]{8} is lost/);
  assert.match(repaired.stdout, /set 1 pack aside/);
  assert.ok(!existsSync(packPath(pack)));

  run("backup", source, "--force", "-q");
  run("check", "--read-data", "-q");
});

test("what is not brought back is taken out of the snapshots", { skip: skipWithout("restic") }, () => {
  const pack = damageBlobOf(join(source, "one"));
  bench.granary("repo", "repair", "packs", pack);
  const dry = run("repair", "snapshots", "--dry-run");
  assert.match(dry, new RegExp(`${source}/one: file taken out`));
  assert.equal((JSON.parse(run("snapshots", "--json")) as unknown[]).length, 1);
  const done = parseLines(run("repair", "snapshots", "--forget", "--json")).at(-1) as {
    repaired_snapshots: unknown[];
    snapshots_set_aside: unknown[];
  };
  assert.deepEqual([done.repaired_snapshots.length, done.snapshots_set_aside.length], [1, 1]);
  const [snapshot] = JSON.parse(run("snapshots", "--json")) as { tags: string[] }[];
  assert.deepEqual(snapshot?.tags, ["repaired"]);
  run("check", "--read-data", "-q");
  assert.equal(bench.run("restic", "check", "--read-data").status, 0);
  assert.equal(run("ls", "latest", source, "-q").trim().split("\n").length, 2);
});

test("a lost index is made again from the packs, by either name of the command", () => {
  const folder = join(bench.repository, "index");
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  assert.equal(bench.granary("repo", "check").exitCode, 18);
  assert.match(run("repair", "index", "--dry-run"), /packs listed anew: \d+, no more: 0/);
  assert.deepEqual(readdirSync(folder), []);
  assert.match(run("rebuild-index"), /wrote 1 index file/);
  run("check", "--read-data", "-q");
  assert.match(run("repair", "index"), /the index is in order/);
  assert.match(run("repair", "snapshots"), /1 snapshot, all whole/);
});

test("a pack that is missing is dropped from the index with a warning", () => {
  const pack = damageBlobOf(join(source, "two"));
  rmSync(packPath(pack));
  const repaired = bench.granary("repo", "repair", "index", "--json");
  assert.equal(repaired.exitCode, 3, repaired.stderr);
  const summary = parseLines(repaired.stdout).at(-1) as { packs_dropped: { id: string; reason: string }[] };
  assert.deepEqual(
    summary.packs_dropped.map(({ id, reason }) => [id, reason]),
    [[pack, "missing"]],
  );
  const unknown = bench.granary("repo", "repair", "packs", "ffffffff");
  assert.equal(unknown.exitCode, 13);
});
