import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { cleanEnv, type CliResult, commandLine, makeBench, parseLines } from "../testing/run-cli.ts";

let work: string;
let folder: string;

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), "granary-start-"));
  folder = join(work, "[my] documents");
  mkdirSync(join(folder, "sub"), { recursive: true });
  for (let i = 0; i < 20; i++) writeFileSync(join(folder, `sub/${i}`), `${i}\n`.repeat(i * 100));
  symlinkSync("sub/1", join(folder, "link"));
});
afterEach(() => rmSync(work, { recursive: true }));

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): CliResult {
  using bench = makeBench();
  return bench.granaryWith({ cwd: work, env: cleanEnv(env) }, "start", ...args);
}

test("start backs a folder up, restores it beside, compares, and says how fast it was", () => {
  const run = start([folder]);
  assert.equal(run.exitCode, 0, run.stderr);
  assert.match(run.stdout, /repository .*\.granary\/repository, created now/);
  assert.match(run.stdout, /back up +20 files \(20 new, 0 changed, 0 unmodified\), .* in \d+\.\d+ s \([\d.]+ \wi?B\/s\)/);
  assert.match(run.stdout, /restore +20 files/);
  assert.match(run.stdout, /all the same: content, modes, owners, times, links, attributes/);
  const home = join(work, ".granary");
  assert.deepEqual(readdirSync(home).sort(), ["password", "repository"]);
  assert.equal(statSync(home).mode & 0o777, 0o700);
  assert.equal(statSync(join(home, "password")).mode & 0o777, 0o600);

  const second = start([folder]);
  assert.equal(second.exitCode, 0, second.stderr);
  assert.match(second.stdout, /\(0 new, 0 changed, 20 unmodified\)/);
  assert.match(second.stdout, /2 snapshots/);
});

test("start keeps everything in GRANARY_HOME, the copy too with --keep, and tells it as JSON", { skip: skipWithout("restic") }, () => {
  const home = join(work, "elsewhere");
  const run = start([folder, "--keep", "--json"], { GRANARY_HOME: home });
  assert.equal(run.exitCode, 0, run.stderr);
  const summary = parseLines(run.stdout).at(-1) as {
    folder: string;
    is_new: boolean;
    backup: { files_new: number };
    compare: { files: number; differences: number };
  };
  assert.equal(summary.folder, folder);
  assert.equal(summary.is_new, true);
  assert.deepEqual([summary.backup.files_new, summary.compare.files, summary.compare.differences], [20, 20, 0]);
  assert.equal(readFileSync(join(home, "restored", folder, "sub/1"), "utf8"), "1\n".repeat(100));
  assert.ok(!existsSync(join(work, ".granary")));
  using bench = makeBench();
  const check = bench.run("restic", "-r", join(home, "repository"), "-p", join(home, "password"), "check");
  assert.equal(check.status, 0, check.stderr);
});

test("start leaves out its own data folder when that is inside the folder", () => {
  for (let i = 0; i < 2; i++) {
    const run = start(["."]);
    assert.equal(run.exitCode, 0, run.stderr);
    assert.match(run.stdout, /back up +20 files/);
  }
  const inside = start([join(work, ".granary/repository")]);
  assert.equal(inside.exitCode, 1);
  assert.match(inside.stderr, /it is in the data folder/);
});

test("start ends with exit code 18, and names what differs, when the folder changes meanwhile", async () => {
  const big = join(folder, "changing");
  writeFileSync(big, "");
  const [program, args] = commandLine("start", folder);
  const writer = spawn(process.execPath, [
    "-e",
    `const fs = require("fs"); setInterval(() => fs.appendFileSync(process.argv[1], "x"), 1)`,
    big,
  ]);
  await new Promise((resolve) => setTimeout(resolve, 100));
  const child = spawn(program, args, { cwd: work, env: cleanEnv(), stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.on("data", (piece: Buffer) => {
    stderr += piece.toString();
  });
  const exitCode = await new Promise((resolve) => child.on("close", resolve));
  writer.kill();
  await new Promise((resolve) => writer.on("close", resolve));
  assert.equal(exitCode, 18, stderr);
  assert.match(stderr, /differs: changing: .* \(changed since the backup began\)/);
  assert.match(stderr, /CopyDiffers, exit code 18/);
});

test("started by npm, a relative folder is where the user was, and without one the project's docs are taken", () => {
  const run = start(["sub"], { npm_lifecycle_event: "start", INIT_CWD: folder });
  assert.equal(run.exitCode, 0, run.stderr);
  assert.match(run.stdout, /folder .*documents\/sub\n/);
  const docs = start([]);
  assert.equal(docs.exitCode, 0, docs.stderr);
  assert.match(docs.stdout, /folder +\/.*\/docs\n/);
});
