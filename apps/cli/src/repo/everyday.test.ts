import assert from "node:assert/strict";
import {
  chmodSync,
  cpSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { type Bench, type CliResult, makeBench, parseLines } from "../testing/run-cli.ts";

let bench: Bench;
let source: string;

before(() => {
  bench = makeBench();
  source = join(bench.folder, "source");
  mkdirSync(join(source, "notes"), { recursive: true });
  mkdirSync(join(source, "cache"));
  writeFileSync(join(source, "notes/one.txt"), "one\n");
  writeFileSync(join(source, "notes/two.txt"), "two\n".repeat(10_000));
  writeFileSync(join(source, "notes/draft.tmp"), "not needed");
  writeFileSync(join(source, "cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n");
  writeFileSync(join(source, "cache/big"), "x");
  symlinkSync("one.txt", join(source, "notes/link"));
  writeFileSync(Buffer.concat([Buffer.from(`${source}/caf`), Buffer.from([0xe9])]), "latin1");
  chmodSync(join(source, "notes/one.txt"), 0o640);
  lutimesSync(join(source, "notes/one.txt"), 1_000_000_000.123, 1_000_000_000.123);
});
after(() => bench[Symbol.dispose]());

function assertSame(first: string, second: string, ...options: readonly string[]): void {
  const { status, stdout, stderr } = bench.run("diff", "-r", "--no-dereference", ...options, first, second);
  assert.equal(status, 0, stdout + stderr);
}

test("init makes a repository, once", () => {
  const made = bench.granary("repo", "init", "--json");
  assert.equal(made.exitCode, 0, made.stderr);
  const message = JSON.parse(made.stdout) as Record<string, string>;
  assert.equal(message.message_type, "initialized");
  assert.equal(message.repository, bench.repository);
  assert.match(message.id ?? "", /^[0-9a-f]{64}$/);
  const again = bench.granary("repo", "init");
  assert.equal(again.exitCode, 14);
  assert.match(again.stderr, /RepositoryExists/);
});

test("backup --dry-run stores nothing", () => {
  const before = readdirSync(join(bench.repository, "data")).length;
  const run = bench.granary("repo", "backup", source, "--dry-run");
  assert.equal(run.exitCode, 0, run.stderr);
  assert.match(run.stdout, /Would add to the repository/);
  assert.equal(bench.granary("repo", "snapshots", "--json").stdout, "[]\n");
  assert.equal(readdirSync(join(bench.repository, "data")).length, before);
});

test("backup makes a snapshot, leaves out what is excluded, and says what it did", () => {
  const run = bench.granary("repo", "backup", source, "--exclude", "*.tmp", "--exclude-caches", "--tag", "a,b", "--host", "web1", "--json");
  assert.equal(run.exitCode, 0, run.stderr);
  assert.equal(run.stderr, "");
  const summary = parseLines(run.stdout).at(-1) ?? {};
  assert.equal(summary.message_type, "summary");
  assert.equal(summary.files_new, 4);
  assert.equal(summary.total_files_processed, 4);
  assert.equal(summary.warnings, 0);
  assert.match(String(summary.snapshot_id), /^[0-9a-f]{64}$/);
  const [snapshot] = JSON.parse(bench.granary("repo", "snapshots", "--json").stdout) as Record<string, unknown>[];
  assert.equal(snapshot?.id, summary.snapshot_id);
  assert.equal(snapshot?.short_id, String(summary.snapshot_id).slice(0, 8));
  assert.deepEqual(snapshot?.tags, ["a", "b"]);
  assert.equal(snapshot?.hostname, "web1");
  assert.deepEqual(snapshot?.paths, [source]);
});

test("a second backup reads nothing anew, and finds its parent by itself", () => {
  const run = bench.granary("repo", "backup", source, "--exclude", "*.tmp", "--exclude-caches", "--host", "web1");
  assert.match(run.stdout, /using parent snapshot [0-9a-f]{8}/);
  assert.match(run.stdout, /0 new, +0 changed, +4 unmodified/);
  assert.match(run.stdout, /snapshot [0-9a-f]{8} saved/);
  const skipped = bench.granary(
    "repo",
    "backup",
    source,
    "--exclude",
    "*.tmp",
    "--exclude-caches",
    "--host",
    "web1",
    "--skip-if-unchanged",
  );
  assert.match(skipped.stdout, /nothing has changed, so no snapshot was made/);
  const forced = bench.granary(
    "repo",
    "backup",
    source,
    "--exclude",
    "*.tmp",
    "--exclude-caches",
    "--host",
    "web1",
    "--force",
    "--dry-run",
  );
  assert.match(forced.stdout, /4 new, +0 changed, +0 unmodified/);
});

test("backup takes standard input, the time, and paths whose bytes are no UTF-8", () => {
  const stdin = bench.granaryWith(
    { input: "from a pipe\n" },
    "repo",
    "backup",
    "--stdin",
    "--stdin-filename",
    "/pipe.txt",
    "--time",
    "2026-01-31 08:00:00",
    "--quiet",
  );
  assert.equal(stdin.exitCode, 0, stdin.stderr);
  assert.equal(stdin.stdout, "");
  assert.equal(bench.granary("repo", "dump", "latest", "/pipe.txt", "--path", "/pipe.txt").stdout, "from a pipe\n");
  const [snapshot] = JSON.parse(bench.granary("repo", "snapshots", "--json", "--path", "/pipe.txt").stdout) as { time: string }[];
  assert.equal(new Date(snapshot?.time ?? "").getTime(), new Date(2026, 0, 31, 8).getTime());

  const odd = bench.run(
    "sh",
    "-c",
    `exec "$0" --conditions=source "$1" repo backup --json source/caf$(printf '\\351')`,
    process.execPath,
    join(import.meta.dirname, "../main.ts"),
  );
  assert.equal(odd.status, 0, odd.stderr);
  assert.equal(parseLines(odd.stdout).at(-1)?.total_files_processed, 1);
});

test("backup takes what a command writes, and makes no snapshot when it fails", () => {
  const backup = (...command: readonly string[]): CliResult =>
    bench.granary("repo", "backup", "--stdin-from-command", "--stdin-filename", "dump.sql", "--quiet", "--", ...command);
  const done = backup("sh", "-c", "seq 1 200000; sleep 0.2; echo the end");
  assert.equal(done.exitCode, 0, done.stderr);
  const dumped = bench.granary("repo", "dump", "latest", "/dump.sql", "--path", "/dump.sql").stdout;
  assert.equal(dumped, `${Array.from({ length: 200_000 }, (_, i) => `${i + 1}\n`).join("")}the end\n`);

  const failed = backup("sh", "-c", "seq 1 200000; exit 3");
  assert.equal(failed.exitCode, 1);
  assert.match(failed.stderr, /"sh" writes: it ended with exit code 3.*SourceCommandFailed/s);
  const missing = backup("no-such-program-here");
  assert.match(missing.stderr, /ENOENT.*SourceCommandFailed/s);
  assert.equal((JSON.parse(bench.granary("repo", "snapshots", "--json", "--path", "/dump.sql").stdout) as unknown[]).length, 1);
  assert.equal(bench.granary("repo", "list", "locks").stdout, "");
});

test("a path that is not there is told, and the backup ends with exit code 3", () => {
  writeFileSync(join(bench.folder, "list"), `${source}/notes\n${bench.folder}/missing\n`);
  const run = bench.granary("repo", "backup", "--files-from-verbatim", "list", "--json");
  assert.equal(run.exitCode, 3, run.stderr);
  const [trouble] = parseLines(run.stderr);
  assert.equal(trouble?.message_type, "error");
  assert.equal(trouble?.during, "archival");
  assert.equal(trouble?.item, join(bench.folder, "missing"));
  assert.equal(parseLines(run.stdout).at(-1)?.warnings, 1);
});

test("backup refuses a source that has shrunk, unless that is allowed", () => {
  const folder = join(bench.folder, "disk");
  mkdirSync(folder);
  for (let i = 0; i < 12; i++) writeFileSync(join(folder, `${i}`), `${i}`);
  assert.equal(bench.granary("repo", "backup", folder, "-q").exitCode, 0);
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  const refused = bench.granary("repo", "backup", folder);
  assert.equal(refused.exitCode, 14);
  assert.match(refused.stderr, /SourceShrunken.*exit code 14/);
  assert.equal(bench.granary("repo", "backup", folder, "--allow-shrink", "-q").exitCode, 0);
});

test("restore brings everything back, to the nanosecond, and goes on where it stopped", () => {
  const target = join(bench.folder, "restored");
  const run = bench.granary("repo", "restore", "latest", "--path", source, "--target", target, "--verify", "--json");
  assert.equal(run.exitCode, 0, run.stderr);
  const summary = parseLines(run.stdout).at(-1) ?? {};
  assert.equal(summary.message_type, "summary");
  assert.equal(summary.files_verified, 4);
  assertSame(source, join(target, source), "-x", "*.tmp", "-x", "big");
  const [before, after] = [source, join(target, source)].map(
    (folder) => bench.run("stat", "-c", "%a %Y %y %N", join(folder, "notes/one.txt")).stdout.split("'")[0],
  );
  assert.equal(after, before);
  rmSync(join(target, source, "notes/two.txt"));
  const again = bench.granary("repo", "restore", "latest", "--path", source, "--target", target);
  assert.match(again.stdout, /3 files were right already/);
});

test("restore takes part of a snapshot, shows a plan, and deletes only when told to", () => {
  const target = join(bench.folder, "part");
  const plan = bench.granary(
    "repo",
    "restore",
    `latest:${source}`,
    "--path",
    source,
    "--target",
    target,
    "--include",
    "*.txt",
    "--dry-run",
    "-v",
  );
  assert.equal(plan.exitCode, 0, plan.stderr);
  assert.match(plan.stdout, /^create +\/notes\/one\.txt$/m);
  assert.ok(!existsSync(target));
  assert.equal(bench.granary("repo", "restore", `latest:${source}/notes`, "--path", source, "-t", target, "-q").exitCode, 0);
  assert.deepEqual(readdirSync(target).sort(), ["link", "one.txt", "two.txt"]);
  writeFileSync(join(target, "extra"), "");
  assert.equal(bench.granary("repo", "restore", `latest:${source}/notes`, "--path", source, "-t", target, "-q", "--delete").exitCode, 0);
  assert.deepEqual(readdirSync(target).sort(), ["link", "one.txt", "two.txt"]);
  const missing = bench.granary("repo", "restore", "latest:/nowhere", "--path", source, "-t", target);
  assert.equal(missing.exitCode, 13);
});

test("snapshots shows a table, groups, and only the latest", () => {
  const table = bench.granary("repo", "snapshots", "--path", source);
  assert.match(table.stdout, /^ID +Time +Host +Tags +Paths +Size$/m);
  assert.match(table.stdout, /2 snapshots\n$/);
  const latest = JSON.parse(bench.granary("repo", "snapshots", "--path", source, "--latest", "1", "--json").stdout) as unknown[];
  assert.equal(latest.length, 1);
  const groups = JSON.parse(bench.granary("repo", "snapshots", "--group-by", "host", "--json").stdout) as {
    group_key: { hostname: string };
    snapshots: unknown[];
  }[];
  assert.ok(groups.some(({ group_key, snapshots }) => group_key.hostname === "web1" && snapshots.length === 2));
  const unknown = bench.granary("repo", "snapshots", "ffffffff");
  assert.equal(unknown.exitCode, 13);
});

test("restic reads what the command line wrote", { skip: skipWithout("restic") }, () => {
  const check = bench.run("restic", "check", "--read-data");
  assert.equal(check.status, 0, check.stderr + check.stdout);
  const target = join(bench.folder, "by-restic");
  const restored = bench.run("restic", "restore", "latest", "--path", source, "--target", target);
  assert.equal(restored.status, 0, restored.stderr);
  assertSame(source, join(target, source), "-x", "*.tmp", "-x", "big");
  assert.equal(readFileSync(join(target, source, "notes/two.txt"), "utf8").length, 40_000);
});

test("the command line restores what restic wrote", { skip: skipWithout("restic") }, () => {
  const copy = join(bench.folder, "for-restic");
  cpSync(source, copy, { recursive: true });
  assert.equal(bench.run("restic", "backup", copy, "--quiet").status, 0);
  const target = join(bench.folder, "from-restic");
  assert.equal(bench.granary("repo", "restore", "latest", "--path", copy, "--target", target, "--quiet").exitCode, 0);
  assertSame(copy, join(target, copy));
});
