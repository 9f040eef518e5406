/** Restores of real repositories, those of restic among them, compared entry by entry with what was backed up. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { fillBytes, isRoot, makeSampleTree, makeSparse } from "../../test/sample-tree.ts";
import { Workbench } from "../../test/workbench.ts";
import { fromUtf8 } from "../format/byte-string.ts";
import { closeHandle, makeDirectoryAt, openAt, openFlags, workingDirectory, writeHandleAt } from "../native/libc.ts";
import { compareTrees } from "./compare-trees.ts";
import type { RestoreTrouble } from "./messages.ts";
import { planRestore, type RestoreOptions, type RestoreProgress, type RestoreReport, restoreSnapshot, runRestore } from "./restore.ts";

type Request = Omit<Partial<RestoreOptions>, "onTrouble">;

/** Restores the newest snapshot of a workbench. */
async function restore(
  bench: Workbench,
  target: string,
  request: Request = {},
): Promise<{ report: RestoreReport; troubles: RestoreTrouble[] }> {
  const troubles: RestoreTrouble[] = [];
  const snapshot = (await bench.snapshots()).at(-1);
  assert.ok(snapshot !== undefined);
  const report = await restoreSnapshot(await bench.open(), {
    tree: Buffer.from(snapshot.tree, "hex"),
    target: fromUtf8(target),
    workers: 2,
    onTrouble: (trouble) => troubles.push(trouble),
    ...request,
  });
  return { report, troubles };
}

/** A workbench whose repository has one snapshot, of whose root the entries are those of `fill`'s folder. */
async function makeBench(fill: (folder: string) => void): Promise<Workbench> {
  const bench = new Workbench("restore");
  await bench.create();
  fill(bench.source);
  await bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true });
  return bench;
}

/** Restores what differs by nothing, and says so. */
async function restoreAndCompare(bench: Workbench, target: string, request: Request = {}): Promise<RestoreReport> {
  const { report, troubles } = await restore(bench, target, request);
  assert.deepEqual(troubles, []);
  assert.deepEqual(await compareTrees(bench.source, target), []);
  return report;
}

/** A path of 70 names of 200 bytes, which no call takes at once, with a file at its end. */
function makeDeepPath(folder: string): void {
  let handle = openAt(workingDirectory, folder, openFlags.readOnly | openFlags.directory);
  for (let level = 0; level < 70; level++) {
    const name = `${level}`.padEnd(200, "d");
    assert.equal(makeDirectoryAt(handle, name, 0o755), 0);
    const next = openAt(handle, name, openFlags.readOnly | openFlags.directory);
    closeHandle(handle);
    handle = next;
  }
  const file = openAt(handle, "at the end", openFlags.writeOnly | openFlags.create, 0o644);
  assert.equal(writeHandleAt(file, Buffer.from("deep"), 0), 0);
  closeHandle(file);
  closeHandle(handle);
}

test("what restic backed up is restored as it was, entry by entry", { skip: skipWithout("restic", "setfattr", "setfacl") }, async () => {
  using bench = new Workbench("restore");
  await bench.create();
  makeSampleTree(bench.source);
  // restic 0.14 keeps neither sockets nor, exactly, targets of links that are no UTF-8; nor does the format keep names of one fifo
  rmSync(join(bench.source, "socket"));
  rmSync(join(bench.source, "hard/fifo again"));
  rmSync(join(bench.source, "links/not UTF-8"));
  execFileSync("restic", ["--no-cache", "backup", "."], { cwd: bench.source, env: bench.resticEnvironment(), stdio: "pipe" });
  for (const sparse of [false, true]) await restoreAndCompare(bench, join(bench.folder, `sparse ${sparse}`), { sparse, verify: sparse });
});

test("what we backed up is restored as it was, paths of 14,000 bytes included", { skip: skipWithout("setfattr", "setfacl") }, async () => {
  using bench = await makeBench((folder) => {
    makeSampleTree(folder);
    makeDeepPath(folder);
    // not kept, as by restic
    rmSync(join(folder, "socket"));
    rmSync(join(folder, "hard/fifo again"));
  });
  const report = await restoreAndCompare(bench, join(bench.folder, "target"), { verify: true });
  assert.equal(report.filesVerified, report.files + 2); // the two second names of files are read as well
  // paths that are too long for rm are no trouble for it, but would be for Node's
  execFileSync("rm", ["-rf", join(bench.folder, "target"), bench.source]);
});

test("a plan changes nothing, and lists what will be done", async () => {
  using bench = await makeBench((folder) => {
    mkdirSync(join(folder, "a"));
    writeFileSync(join(folder, "a/new"), "new");
    writeFileSync(join(folder, "a/same"), "same");
    writeFileSync(join(folder, "a/longer"), "longer than it was");
    writeFileSync(join(folder, "a/kind"), "a file");
    linkSync(join(folder, "a/same"), join(folder, "b"));
    symlinkSync("a", join(folder, "link"));
  });
  const target = join(bench.folder, "target");
  mkdirSync(join(target, "a"), { recursive: true });
  writeFileSync(join(target, "a/same"), "same");
  writeFileSync(join(target, "a/longer"), "longer");
  symlinkSync("longer", join(target, "a/kind"));
  writeFileSync(join(target, "extra"), "extra");
  const before = join(bench.folder, "before");
  execFileSync("cp", ["-a", target, before]);
  const [snapshot] = await bench.snapshots();
  const source = await bench.open();
  const events: RestoreProgress[] = [];
  await using plan = await planRestore(source, {
    tree: Buffer.from(snapshot?.tree ?? "", "hex"),
    target: fromUtf8(target),
    deleteExtra: true,
    onProgress: (event) => events.push(event),
  });
  assert.deepEqual([...plan.list()].map(({ path, type, action, sizeBytes }) => `${action} ${type} ${path} ${sizeBytes}`).sort(), [
    "create file /a/new 3",
    "create symlink /link 0",
    "link file /b 4",
    "refresh directory /a 0",
    "refresh file /a/same 4",
    "remove extra /extra 0",
    "replace file /a/kind 6",
    "update file /a/longer 18",
  ]);
  const { directories, files, links, others, bytes, filesToWrite, filesToReplace, filesUnchanged, bytesToWrite, extras, failed } =
    plan.summary;
  assert.deepEqual(
    { directories, files, links, others, bytes, filesToWrite, filesToReplace, filesUnchanged, bytesToWrite, extras, failed },
    {
      directories: 1,
      files: 4,
      links: 1,
      others: 1,
      bytes: 31,
      filesToWrite: 1,
      filesToReplace: 2,
      filesUnchanged: 1,
      bytesToWrite: 27,
      extras: 1,
      failed: 0,
    },
  );
  assert.deepEqual(await compareTrees(before, target), []);
  assert.equal(events.at(-1)?.phase, "plan");
  const report = await runRestore(plan);
  assert.deepEqual(await compareTrees(bench.source, target), []);
  assert.equal(report.bytesWritten, 27);
  assert.equal(report.extrasRemoved, 1);
  const last = events.at(-1);
  assert.deepEqual([last?.filesDone, last?.filesTotal, last?.bytesDone, last?.bytesTotal], [4, 4, 31, 31]);
  await assert.rejects(runRestore(plan), (error) => isFailure(error, "Bug"));
});

test("a dry run makes not even the target", async () => {
  using bench = await makeBench((folder) => writeFileSync(join(folder, "file"), "x"));
  const target = join(bench.folder, "target");
  const { report } = await restore(bench, target, { dryRun: true });
  assert.equal(report.summary.files, 1);
  assert.equal(report.files, 0);
  assert.equal(existsSync(target), false);
});

/** A file for each way in which a target can differ from the snapshot: older, newer, changed with the same size and time, absent. */
async function makeOverwriteBench(): Promise<{ bench: Workbench; target: string }> {
  const time = new Date("2026-01-01T00:00:00Z");
  const older = new Date("2025-01-01T00:00:00Z");
  const newer = new Date("2026-06-01T00:00:00Z");
  const bench = await makeBench((folder) => {
    for (const name of ["older", "newer", "disguised", "absent", "same", "link"]) {
      writeFileSync(join(folder, name), `snapshot ${name}`);
      utimesSync(join(folder, name), time, time);
    }
  });
  const target = join(bench.folder, "target");
  mkdirSync(target);
  for (const [name, content, mtime] of [
    ["older", "target, older", older],
    ["newer", "target, newer", newer],
    ["disguised", "somethin disguised".slice(0, 18), time],
    ["same", "snapshot same", time],
  ] as const) {
    writeFileSync(join(target, name), content);
    utimesSync(join(target, name), mtime, mtime);
  }
  symlinkSync("/nowhere", join(target, "link"));
  return { bench, target };
}

function readAll(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => [
      name,
      lstatSync(join(folder, name)).isSymbolicLink() ? "a link" : readFileSync(join(folder, name), "utf8"),
    ]),
  );
}

const allOfSnapshot = {
  older: "snapshot older",
  newer: "snapshot newer",
  disguised: "snapshot disguised",
  absent: "snapshot absent",
  same: "snapshot same",
  link: "snapshot link",
};

for (const { overwrite, expected, skipped } of [
  { overwrite: "always", expected: allOfSnapshot, skipped: 0 },
  { overwrite: "if-changed", expected: { ...allOfSnapshot, disguised: "somethin disguised" }, skipped: 0 },
  {
    overwrite: "if-newer",
    expected: { ...allOfSnapshot, newer: "target, newer", disguised: "somethin disguised", link: "a link" },
    skipped: 4,
  },
  {
    overwrite: "never",
    expected: { ...allOfSnapshot, older: "target, older", newer: "target, newer", disguised: "somethin disguised", link: "a link" },
    skipped: 5,
  },
] as const) {
  test(`overwriting ${overwrite} leaves the files that it should`, async () => {
    const { bench, target } = await makeOverwriteBench();
    using _ = bench;
    const { report, troubles } = await restore(bench, target, { overwrite });
    assert.deepEqual(readAll(target), expected);
    assert.deepEqual(troubles, []);
    assert.equal(report.summary.skipped, skipped);
  });
}

test("what is right on disk is not written again", async () => {
  using bench = await makeBench((folder) => {
    writeFileSync(join(folder, "large"), fillBytes(20 << 20, "large"));
    writeFileSync(join(folder, "small"), "small");
    chmodSync(join(folder, "small"), 0o600);
    symlinkSync("small", join(folder, "link"));
    execFileSync("mkfifo", [join(folder, "fifo")]);
  });
  const target = join(bench.folder, "target");
  await restoreAndCompare(bench, target);
  const inode = statSync(join(target, "small")).ino;
  const again = await restoreAndCompare(bench, target);
  assert.equal(again.bytesWritten, 0);
  assert.deepEqual([again.summary.filesUnchanged, again.files, again.others], [2, 2, 2]);
  // one byte in a large file, and metadata of a small one
  const content = readFileSync(join(target, "large"));
  content[7 << 20] = (content[7 << 20] ?? 0) ^ 1;
  writeFileSync(join(target, "large"), content);
  chmodSync(join(target, "small"), 0o777);
  const third = await restoreAndCompare(bench, target);
  assert.ok(third.bytesWritten > 0 && third.bytesWritten <= 8 << 20, `${third.bytesWritten} bytes written`);
  assert.equal(statSync(join(target, "small")).ino, inode);
});

test("a file that grew, shrank or has other names is set right, and the other names keep what they have", async () => {
  using bench = await makeBench((folder) => {
    for (const name of ["grew", "shrank", "named twice"]) writeFileSync(join(folder, name), fillBytes(3 << 20, name));
  });
  const target = join(bench.folder, "target");
  await restoreAndCompare(bench, target);
  appendFileSync(join(target, "grew"), "more");
  truncateSync(join(target, "shrank"), 1 << 20);
  const other = join(bench.folder, "other name");
  linkSync(join(target, "named twice"), other);
  appendFileSync(other, "changed");
  await restoreAndCompare(bench, target);
  assert.equal(statSync(other).size, (3 << 20) + 7);
});

test("an interrupted restore is recognised as unfinished and goes on where it stopped", async () => {
  using bench = await makeBench((folder) => {
    writeFileSync(join(folder, "huge"), fillBytes(64 << 20, "huge"));
    for (let at = 0; at < 500; at++) writeFileSync(join(folder, `file ${at}`), fillBytes(3000, `${at}`));
  });
  const target = join(bench.folder, "target");
  const stop = new AbortController();
  let written = 0;
  const onProgress = ({ phase, bytesDone }: RestoreProgress): void => {
    written = bytesDone;
    if (phase === "write" && bytesDone > 8 << 20) stop.abort();
  };
  // a clock that tells of progress at every chance
  const clock = { nowMs: () => 0, monotonicMs: () => 0, sleep: () => Promise.resolve(), every: eagerly };
  await assert.rejects(restore(bench, target, { onProgress, clock, signal: stop.signal, workers: 1 }), (error) => isFailure(error));
  assert.ok(written < 64 << 20);
  const huge = join(target, "huge");
  assert.ok(existsSync(huge));
  assert.notEqual(statSync(huge).mtimeMs, statSync(join(bench.source, "huge")).mtimeMs);
  assert.equal(statSync(huge).mode & 0o777, 0o600);
  const report = await restoreAndCompare(bench, target);
  assert.ok(report.bytesWritten < (64 << 20) - (4 << 20), `${report.bytesWritten} bytes written again`);
});

/** Calls a function at every turn of the event loop. */
function eagerly(_ms: number, fn: () => void | Promise<void>): () => void {
  let isStopped = false;
  const turn = (): void => {
    if (isStopped) return;
    void fn();
    setImmediate(turn);
  };
  setImmediate(turn);
  return () => {
    isStopped = true;
  };
}

test("with deletion, what is extra goes, but not what is beyond the selection or on the way", async () => {
  using bench = await makeBench((folder) => {
    mkdirSync(join(folder, "kept/inner"), { recursive: true });
    writeFileSync(join(folder, "kept/inner/file"), "x");
    mkdirSync(join(folder, "other"));
    writeFileSync(join(folder, "other/file"), "x");
  });
  const target = join(bench.folder, "target");
  const fill = (): void => {
    mkdirSync(join(target, "kept/inner/extra/deep/er"), { recursive: true });
    mkdirSync(join(target, "other/extra"), { recursive: true });
    writeFileSync(join(target, "kept/inner/extra/deep/er/file"), "x");
    writeFileSync(join(target, "other/extra/file"), "x");
    writeFileSync(join(target, "top"), "x");
    writeFileSync(join(bench.folder, "outside"), "x");
    symlinkSync(bench.folder, join(target, "kept/way out"));
  };
  fill();
  const include = { patterns: ["/kept"], insensitivePatterns: [] };
  const exclude = { patterns: [], insensitivePatterns: [] };
  const { report } = await restore(bench, target, { deleteExtra: true, selection: { include, exclude } });
  assert.equal(report.extrasRemoved, 2);
  assert.deepEqual(readdirSync(join(target, "kept")), ["inner"]);
  assert.deepEqual(readdirSync(target).sort(), ["kept", "other", "top"]);
  assert.ok(existsSync(join(target, "other/extra/file")));
  assert.ok(existsSync(join(bench.folder, "outside")));
  await restoreAndCompare(bench, target, { deleteExtra: true });
});

test("includes and excludes choose what is restored; folders on the way come along", async () => {
  using bench = await makeBench((folder) => {
    for (const path of ["a/b/c", "a/x", "d/b"]) mkdirSync(join(folder, path), { recursive: true });
    for (const path of ["a/b/c/one.txt", "a/b/two.TXT", "a/x/three.txt", "d/b/four.txt", "d/five"]) writeFileSync(join(folder, path), path);
  });
  const find = (target: string): string[] => readdirSync(target, { recursive: true, encoding: "utf8" }).sort();
  const none = { patterns: [], insensitivePatterns: [] };
  const include = async (name: string, patterns: string[], insensitivePatterns: string[] = []): Promise<string[]> => {
    const target = join(bench.folder, name);
    await restore(bench, target, { selection: { include: { patterns, insensitivePatterns }, exclude: none } });
    return find(target);
  };
  assert.deepEqual(await include("one", ["/a/b"]), ["a", "a/b", "a/b/c", "a/b/c/one.txt", "a/b/two.TXT"]);
  assert.deepEqual(await include("two", ["*.txt"]), [
    "a",
    "a/b",
    "a/b/c",
    "a/b/c/one.txt",
    "a/x",
    "a/x/three.txt",
    "d",
    "d/b",
    "d/b/four.txt",
  ]);
  assert.deepEqual(await include("three", [], ["/A/B/*.txt"]), ["a", "a/b", "a/b/two.TXT"]);
  assert.equal(statSync(join(bench.folder, "one/a")).mtimeMs, statSync(join(bench.source, "a")).mtimeMs);
  const target = join(bench.folder, "four");
  await restore(bench, target, { selection: { include: none, exclude: { patterns: ["b", "*.TXT"], insensitivePatterns: ["FIVE"] } } });
  assert.deepEqual(find(target), ["a", "a/x", "a/x/three.txt", "d"]);
  const both = { include: { ...none, patterns: ["/a"] }, exclude: { ...none, patterns: ["c"] } };
  await restore(bench, join(bench.folder, "five"), { selection: both });
  assert.deepEqual(find(join(bench.folder, "five")), ["a", "a/b", "a/b/two.TXT", "a/x", "a/x/three.txt"]);
  const malformed = { include: { ...none, patterns: ["["] }, exclude: none };
  await assert.rejects(restore(bench, target, { selection: malformed }), (error) => isFailure(error, "InvalidArgument"));
});

test("with sparse, long runs of zeros are holes; without, they are not", async () => {
  using bench = await makeBench((folder) => {
    makeSparse(join(folder, "image"), 40 << 20, [
      [0, 100_000],
      [17 << 20, 5 << 20],
    ]);
    makeSparse(join(folder, "hole"), 10 << 20, []);
  });
  await restoreAndCompare(bench, join(bench.folder, "full"));
  await restoreAndCompare(bench, join(bench.folder, "sparse"), { sparse: true });
  const allocated = (path: string): number => statSync(join(bench.folder, path)).blocks * 512;
  assert.ok(allocated("full/image") >= 40 << 20);
  assert.ok(allocated("sparse/image") < 6 << 20);
  assert.ok(allocated("sparse/hole") < 1 << 20);
});

test("a file where a folder should be is replaced, a full folder where a file should be stays and is reported", async () => {
  using bench = await makeBench((folder) => {
    mkdirSync(join(folder, "folder"));
    writeFileSync(join(folder, "folder/file"), "x");
    mkdirSync(join(folder, "linked"));
    writeFileSync(join(folder, "linked/file"), "y");
    for (const name of ["file", "replaced"]) writeFileSync(join(folder, name), "x");
  });
  const target = join(bench.folder, "target");
  mkdirSync(join(target, "file/full"), { recursive: true });
  mkdirSync(join(target, "replaced"));
  writeFileSync(join(target, "folder"), "x");
  const outside = bench.makeFolder("outside");
  symlinkSync(outside, join(target, "linked"));
  const { report, troubles } = await restore(bench, target);
  assert.deepEqual(
    troubles.map(({ path, reason }) => `${path} ${reason}`),
    ["/file blocked"],
  );
  assert.deepEqual([report.failed, report.lost], [1, 0]);
  assert.deepEqual(await compareTrees(bench.source, target), ["/file: type file and dir"]);
  assert.deepEqual(readdirSync(outside), []);
  // asked to overwrite nothing, it leaves the link, and what would be below it
  rmSync(target, { recursive: true });
  mkdirSync(target);
  symlinkSync(outside, join(target, "linked"));
  const careful = await restore(bench, target, { overwrite: "never" });
  assert.deepEqual(
    careful.troubles.map(({ path, reason }) => `${path} ${reason}`),
    ["/linked blocked"],
  );
  assert.deepEqual(readdirSync(outside), []);
});

test("a target that is no folder is refused", async () => {
  using bench = await makeBench((folder) => writeFileSync(join(folder, "file"), "x"));
  const file = join(bench.folder, "a file");
  writeFileSync(file, "");
  for (const target of [file, join(file, "below")])
    await assert.rejects(restore(bench, target), (error) => isFailure(error, "TargetInvalid"), target);
});

test("what the target inherits to new files does not stay on what is restored", { skip: skipWithout("setfacl") || !isRoot }, async () => {
  using bench = await makeBench((folder) => {
    mkdirSync(join(folder, "folder"));
    writeFileSync(join(folder, "folder/file"), "x");
    writeFileSync(join(folder, "with a list"), "x");
    execFileSync("setfacl", ["-m", "u:12:r", join(folder, "with a list")]);
  });
  const target = bench.makeFolder("target");
  execFileSync("setfacl", ["-d", "-m", "u:1:rwx,g:2:rwx", target]);
  chmodSync(target, 0o2755);
  execFileSync("chgrp", ["4", target]);
  await restoreAndCompare(bench, target);
});

test("without being root, all but owners is restored, which is told once", {
  skip: isRoot ? false : "needs root to become another user",
}, async () => {
  using bench = await makeBench((folder) => {
    mkdirSync(join(folder, "folder"));
    for (const name of ["folder/file", "another", "setuid"]) writeFileSync(join(folder, name), name);
    chmodSync(join(folder, "setuid"), 0o4755);
    chmodSync(join(folder, "folder"), 0o555);
    mkdirSync(join(folder, "unreadable"), { mode: 0o300 });
    writeFileSync(join(folder, "unreadable/file"), "x");
    execFileSync("mknod", [join(folder, "device"), "c", "1", "3"]);
  });
  execFileSync("chmod", ["-R", "go+rX", bench.location]);
  chmodSync(join(bench.location, "config"), 0o644);
  const target = bench.makeFolder("target");
  execFileSync("chown", ["nobody", target]);
  const script = join(import.meta.dirname, "../../test/restore-as-user.ts");
  const run = (): { troubles: string[]; failed: number } =>
    JSON.parse(
      execFileSync(
        "setpriv",
        ["--reuid=nobody", "--regid=nogroup", "--clear-groups", process.execPath, "--conditions=source", script, bench.location, target],
        {
          encoding: "utf8",
        },
      ),
    ) as { troubles: string[]; failed: number }; // printed by the script
  // a second time over what is there, with folders that must be opened first
  for (let time = 0; time < 2; time++) {
    const { troubles, failed } = run();
    assert.equal(failed, 1);
    assert.deepEqual(troubles.sort(), ["/device target", " metadata"].sort());
    const differences = await compareTrees(bench.source, target, { owners: false, modes: false });
    assert.deepEqual(differences, ["/device: only in the first"]);
    assert.equal(statSync(join(target, "folder")).mode & 0o7777, 0o555);
    assert.equal(statSync(join(target, "setuid")).mode & 0o7777, 0o755);
    assert.equal(statSync(join(target, "setuid")).uid, 65534);
  }
});

test("what comes into the target while the restore runs stays, and is reported", async () => {
  using bench = await makeBench((folder) => {
    for (const name of ["file", "link", "second"]) writeFileSync(join(folder, name), `of the snapshot ${name}`);
    rmSync(join(folder, "link"));
    symlinkSync("file", join(folder, "link"));
    linkSync(join(folder, "second"), join(folder, "third"));
  });
  const target = bench.makeFolder("target");
  const [snapshot] = await bench.snapshots();
  const troubles: RestoreTrouble[] = [];
  await using plan = await planRestore(await bench.open(), {
    tree: Buffer.from(snapshot?.tree ?? "", "hex"),
    target: fromUtf8(target),
    workers: 1,
    onTrouble: (trouble) => troubles.push(trouble),
  });
  for (const name of ["file", "link", "third"]) writeFileSync(join(target, name), "came later");
  const report = await runRestore(plan);
  assert.deepEqual(troubles.map(({ path, reason }) => `${path} ${reason}`).sort(), ["/file blocked", "/link blocked", "/third blocked"]);
  assert.deepEqual([report.failed, report.lost], [3, 0]);
  for (const name of ["file", "link", "third"]) assert.equal(readFileSync(join(target, name), "utf8"), "came later");
});
