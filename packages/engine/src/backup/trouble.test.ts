/** Sources that cannot be read, change, or break off; streams; and sources that have shrunken. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { fillBytes, isRoot } from "../../test/sample-tree.ts";
import { diffRecords, recordFolder, recordSnapshot } from "../../test/tree-record.ts";
import { type BackupOutcome, type BackupRequest, Workbench } from "../../test/workbench.ts";
import { fromUtf8 } from "../format/byte-string.ts";

const nobody = 65534;

function inside(bench: Workbench, request: BackupRequest = {}): Promise<BackupOutcome> {
  return bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true, ...request });
}

async function listPaths(bench: Workbench, { snapshot }: BackupOutcome): Promise<string[]> {
  return [...(await recordSnapshot(await bench.open(), snapshot.tree)).keys()];
}

test("what the user may not read is told and left out, and the snapshot says how much it lacks", {
  skip: isRoot ? false : "needs root",
}, async () => {
  using bench = new Workbench();
  await bench.create();
  mkdirSync(`${bench.source}/open`);
  mkdirSync(`${bench.source}/closed`);
  writeFileSync(`${bench.source}/closed/file`, "x");
  writeFileSync(`${bench.source}/open/readable`, "x");
  writeFileSync(`${bench.source}/open/secret`, "secret");
  writeFileSync(`${bench.source}/open/empty secret`, "");
  chmodSync(`${bench.source}/closed`, 0o700);
  chmodSync(`${bench.source}/open/secret`, 0o600);
  chmodSync(`${bench.source}/open/empty secret`, 0o600);
  execFileSync("chown", ["-R", `${nobody}:${nobody}`, bench.location]);
  let report: BackupOutcome;
  process.setegid?.(nobody);
  process.seteuid?.(nobody);
  try {
    report = await inside(bench);
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
  const told = report.troublesSeen.map(({ path, reason }) => `${reason} ${path.slice(bench.source.length)}`).sort();
  assert.deepEqual(told, ["unreadable /closed", "unreadable /open/secret"]);
  for (const { message } of report.troublesSeen) assert.match(message, /EACCES/);
  assert.equal(report.troubles, 2);
  assert.equal(report.counts.troubles, 2);
  assert.deepEqual(await listPaths(bench, report), ["open", "open/empty secret", "open/readable"]);
  const [snapshot] = await bench.snapshots();
  assert.equal(snapshot?.unknown.get("granary"), '{"warnings":2}');
  // As root all can be read, and the next backup has it.
  const whole = await inside(bench);
  assert.equal(whole.troubles, 0);
  assert.equal((await listPaths(bench, whole)).length, 6);
});

test("a file that grows without end while it is read does not hold up the backup", { skip: skipWithout("restic") }, async () => {
  using bench = new Workbench();
  await bench.create();
  const path = `${bench.source}/growing`;
  writeFileSync(path, fillBytes(60 << 20, "growing"));
  writeFileSync(`${bench.source}/other`, "other");
  const child = bench.start("sh", ["-c", `while :; do head -c 4000000 /dev/zero >> '${path}'; sleep 0.001; done`]);
  try {
    const report = await inside(bench);
    const grown = statSync(path).size;
    const record = await recordSnapshot(await bench.open(), report.snapshot.tree);
    const savedBytes = Number(record.get("growing")?.sizeBytes);
    assert.ok(savedBytes >= 60 << 20 && savedBytes < grown, `${savedBytes} of ${grown}`);
    assert.ok(report.troublesSeen.some(({ reason, path: about }) => reason === "changed" && about === path));
    assert.ok(record.has("other"));
  } finally {
    child.kill("SIGKILL");
  }
  bench.check();
});

test("a tree in which files come and go, grow and shrink while it is backed up makes a sound snapshot", {
  skip: skipWithout("restic"),
}, async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 300; at++) {
    mkdirSync(`${bench.source}/${at % 20}`, { recursive: true });
    writeFileSync(`${bench.source}/${at % 20}/${at}`, fillBytes(20_000, `${at}`));
  }
  const script = `
    cd '${bench.source}'; i=0
    while :; do
      i=$((i+1)); d=$((i % 20)); f=$((i * 7 % 300))
      case $((i % 6)) in
        0) head -c $((i * 37 % 90000)) /dev/zero > $d/new$i;;
        1) rm -f $d/new$((i - 40)) ;;
        2) mv -f $d/$f $d/moved$i 2>/dev/null ;;
        3) mkdir -p $d/folder$((i % 50)); echo x > $d/folder$((i % 50))/x ;;
        4) rm -rf $d/folder$((i % 50)) ;;
        5) : > $d/$f ;;
      esac
    done`;
  const child = bench.start("sh", ["-c", script]);
  try {
    for (let round = 0; round < 4; round++) {
      const report = await inside(bench, { workers: 3, allowShrink: true });
      for (const { reason } of report.troublesSeen) assert.ok(["vanished", "changed"].includes(reason), reason);
      await recordSnapshot(await bench.open(), report.snapshot.tree);
    }
  } finally {
    child.kill("SIGKILL");
  }
  await new Promise((resolve) => child.on("exit", resolve));
  const last = await inside(bench, { allowShrink: true });
  assert.deepEqual(last.troublesSeen, []);
  const source = new Map(recordFolder(bench.source));
  source.delete("");
  assert.deepEqual(diffRecords(source, await recordSnapshot(await bench.open(), last.snapshot.tree)), []);
  bench.check();
});

test("files of which only reading tells the size are read", { skip: process.platform === "linux" ? false : "needs /proc" }, async () => {
  using bench = new Workbench();
  await bench.create();
  assert.equal(statSync("/proc/version").size, 0);
  const report = await bench.backUp({ targets: ["/proc/version"], isUnlocked: true });
  assert.deepEqual(report.troublesSeen, []);
  assert.equal(bench.restic("dump", "latest", "/proc/version"), readFileSync("/proc/version", "utf8"));
});

/** A pipe whose other end a program fills. */
function openPipe(bench: Workbench, command: string): number {
  const child = spawn("sh", ["-c", command], { stdio: ["ignore", "pipe", "inherit"] });
  child.stdout.pause();
  const path = `${bench.folder}/pipe`;
  rmSync(path, { force: true });
  execFileSync("mkfifo", [path]);
  bench.start("sh", ["-c", `{ ${command}; } > '${path}'`]);
  child.kill();
  return openSync(path, "r");
}

test("a stream is saved as one file until its end, whatever its pieces", { skip: skipWithout("restic") }, async () => {
  using bench = new Workbench();
  await bench.create();
  const content = fillBytes(12_345_678, "stream");
  writeFileSync(`${bench.folder}/content`, content);
  const file = `'${bench.folder}/content'`;
  const commands = [`cat ${file}`, `dd if=${file} bs=4097 2>/dev/null`, `head -c 100000 ${file}; sleep 0.3; tail -c +100001 ${file}`];
  for (const command of commands) {
    const handle = openPipe(bench, command);
    const report = await bench.backUp({ stream: { handle, name: "dump.sql" }, tags: ["stream"] });
    closeSync(handle);
    assert.equal(report.counts.bytesProcessed, content.length);
    assert.equal(report.counts.filesNew, 1);
    assert.deepEqual(report.snapshot.paths, ["/dump.sql"]);
    execFileSync("sh", ["-c", `restic --no-cache dump latest /dump.sql | cmp - ${file}`], { env: bench.resticEnvironment() });
    if (command !== commands[0]) assert.equal(report.counts.dataBlobs, 0, "cut at the same places");
  }
  const empty = openPipe(bench, "true");
  const report = await bench.backUp({ stream: { handle: empty, name: "empty" } });
  closeSync(empty);
  assert.equal(report.counts.bytesProcessed, 0);
  bench.check();
});

test("a stream that cannot be read to its end makes no snapshot", async () => {
  using bench = new Workbench();
  await bench.create();
  const folder = openSync(bench.source, "r");
  await assert.rejects(bench.backUp({ stream: { handle: folder, name: "dump" } }), { code: "SourceUnreadable" });
  closeSync(folder);
  assert.equal(bench.countFiles("snapshots"), 0);
});

test("a backup of a stream that gives nothing can be cancelled", { timeout: 20_000 }, async () => {
  using bench = new Workbench();
  await bench.create();
  const handle = openPipe(bench, "head -c 3000000 /dev/zero; sleep 60");
  const stop = new AbortController();
  const seen: number[] = [];
  const started = bench.backUp({
    stream: { handle, name: "dump" },
    signal: stop.signal,
    onProgress: (counts) => void seen.push(counts.bytesProcessed),
  });
  setTimeout(() => stop.abort(), 500);
  await assert.rejects(started, { code: "Cancelled" });
  assert.equal(bench.countFiles("snapshots"), 0);
  assert.equal(bench.countFiles("locks"), 0);
  closeSync(handle);
});

test("a source in which hardly anything is left is refused, unless that is allowed or there is no parent", async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 50; at++) writeFileSync(`${bench.source}/${at}`, "x");
  await inside(bench);
  for (let at = 4; at < 50; at++) rmSync(`${bench.source}/${at}`);
  await assert.rejects(inside(bench), (error: Error & { code?: string; details?: unknown }) => {
    assert.equal(error.code, "SourceShrunken");
    assert.match(error.message, /only 4 files were found, the parent snapshot [0-9a-f]{8} has 50/);
    return true;
  });
  assert.equal((await bench.snapshots()).length, 1);
  await assert.rejects(inside(bench, { dryRun: true }), { code: "SourceShrunken" });
  assert.ok((await inside(bench, { parent: null })).snapshotId);
  for (let at = 0; at < 50; at++) writeFileSync(`${bench.source}/${at}`, "x");
  await inside(bench);
  for (let at = 0; at < 50; at++) rmSync(`${bench.source}/${at}`);
  await assert.rejects(inside(bench), { code: "SourceShrunken" });
  assert.ok((await inside(bench, { allowShrink: true })).snapshotId);
  assert.equal((await inside(bench)).counts.filesNew, 0, "nothing out of nothing is no loss");
});

test("a parent of restic's, which does not say how many files it has, is counted; links are none", {
  skip: skipWithout("restic"),
}, async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 40; at++) symlinkSync("nowhere", `${bench.source}/link ${at}`);
  writeFileSync(`${bench.source}/file`, "x");
  bench.restic("backup", "--quiet", "--host", "host", bench.source);
  assert.ok((await bench.backUp({ isUnlocked: true })).snapshotId, "one file of one is there");
  mkdirSync(`${bench.source}/folder/deep`, { recursive: true });
  for (let at = 0; at < 20; at++) writeFileSync(`${bench.source}/folder/deep/${at}`, "x");
  bench.restic("backup", "--quiet", "--host", "host", bench.source);
  rmSync(`${bench.source}/folder`, { recursive: true });
  await assert.rejects(bench.backUp({ isUnlocked: true }), { code: "SourceShrunken" });
  assert.ok((await bench.backUp({ isUnlocked: true, allowShrink: true })).snapshotId);
});
