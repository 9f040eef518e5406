/** Which entries get into a snapshot: targets, exclusions and file systems, the same as with restic; and targets that are not there. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { fillBytes, isRoot } from "../../test/sample-tree.ts";
import { recordSnapshot } from "../../test/tree-record.ts";
import { type BackupOutcome, type BackupRequest, Workbench } from "../../test/workbench.ts";
import { fromUtf8 } from "../format/byte-string.ts";
import { cacheMarker, type ExcludeRules, noExcludes } from "../selection/exclude.ts";

const needsRestic = skipWithout("restic");
const cacheTag = `${cacheMarker.header}\n`;

/** What a snapshot has, as restic lists it. */
function listSnapshot(bench: Workbench, snapshot = "latest"): string[] {
  const lines = bench.restic("ls", "--json", snapshot).trim().split("\n").slice(1);
  return lines.map((line) => JSON.parse(line) as { path: string; type: string }).map(({ path, type }) => `${type} ${path}`); // restic's format
}

/** Backs the same up with restic and with us. @returns what both snapshots list */
async function backUpBoth(
  bench: Workbench,
  request: BackupRequest & { readonly targets: readonly string[] },
  flags: readonly string[],
): Promise<{ ours: string[]; theirs: string[]; report: BackupOutcome }> {
  const directory = request.directory ?? bench.source;
  const args = ["--no-cache", "backup", "--quiet", "--host", "restic", ...flags, "--", ...request.targets];
  execFileSync("restic", args, { cwd: directory, env: bench.resticEnvironment(), stdio: ["ignore", "pipe", "pipe"] });
  const theirs = listSnapshot(bench);
  const report = await bench.backUp({ isUnlocked: true, directory: fromUtf8(directory), allowShrink: true, ...request });
  return { theirs, ours: listSnapshot(bench), report };
}

function makeFolders(bench: Workbench): void {
  const files = [
    "a/one.txt",
    "a/two.TMP",
    "a/deep/er/three.txt",
    "b/one.txt",
    "b/cache/CACHEDIR.TAG",
    "b/cache/thing",
    "b/cache/deep/thing",
    "b/no cache/CACHEDIR.TAG",
    "b/no cache/thing",
    "c/.nobackup",
    "c/thing",
    "c/below/thing",
    "d/.nobackup/a folder of that name",
    "d/thing",
    "e/marked/with header",
    "e/marked/thing",
    "e/unmarked/with header",
    "e/unmarked/thing",
    "large",
    "larger",
    "top.txt",
  ];
  for (const file of files) {
    mkdirSync(`${bench.source}/${file}`.replace(/\/[^/]*$/, ""), { recursive: true });
    writeFileSync(`${bench.source}/${file}`, file);
  }
  writeFileSync(`${bench.source}/b/cache/CACHEDIR.TAG`, cacheTag);
  writeFileSync(`${bench.source}/b/no cache/CACHEDIR.TAG`, "something else");
  writeFileSync(`${bench.source}/e/marked/with header`, "skip this, please");
  writeFileSync(`${bench.source}/e/unmarked/with header`, "keep this, please");
  writeFileSync(`${bench.source}/large`, fillBytes(10_000, "large"));
  writeFileSync(`${bench.source}/larger`, fillBytes(10_001, "larger"));
  symlinkSync("a", `${bench.source}/link`);
}

test("targets are placed where restic places them", { skip: needsRestic }, async () => {
  using bench = new Workbench();
  await bench.create();
  makeFolders(bench);
  const { source } = bench;
  const cases: readonly (readonly [targets: readonly string[], directory: string])[] = [
    [["."], source],
    [["./"], source],
    [["a"], source],
    [["a/", "b"], source],
    [["a/deep/er", "b/one.txt"], source],
    [["a", "a/deep"], source],
    [["a/deep", "a"], source],
    [["../b"], `${source}/a`],
    [[".."], `${source}/a`],
    [["er/../../deep"], `${source}/a/deep`],
    [[`${source}/a`, `${source}/b/one.txt`], "/"],
    [[`${source}/a`, `${source}/a`], "/"],
    [[`${source}/`, `${source}/a/deep/er/three.txt`], "/"],
    [["link"], source],
    [["link/"], source],
    [["link/deep"], source],
    [["top.txt"], source],
  ];
  for (const [targets, directory] of cases) {
    const { ours, theirs } = await backUpBoth(bench, { targets, directory }, []);
    assert.deepEqual(ours, theirs, `${targets.join(" ")} in ${directory}`);
    assert.ok(ours.length > 0);
  }
});

const rules: readonly (readonly [flags: readonly string[], excludes: Partial<ExcludeRules>])[] = [
  [["--exclude", "*.txt"], { patterns: ["*.txt"] }],
  [["--exclude", "a", "--exclude", "!a/deep"], { patterns: ["a", "!a/deep"] }],
  [["--exclude", "a/*", "--exclude", "!a/deep"], { patterns: ["a/*", "!a/deep"] }],
  [["--iexclude", "*.tmp"], { insensitivePatterns: ["*.tmp"] }],
  [["--exclude-caches"], { caches: true }],
  [["--exclude-if-present", ".nobackup"], { ifPresent: [{ name: ".nobackup" }] }],
  [["--exclude-if-present", "with header:skip this"], { ifPresent: [{ name: "with header", header: "skip this" }] }],
  [["--exclude-larger-than", "10000"], { largerThanBytes: 10_000 }],
  [
    ["--exclude", "deep", "--exclude-caches", "--exclude-if-present", ".nobackup", "--exclude-larger-than", "1K"],
    { patterns: ["deep"], caches: true, ifPresent: [{ name: ".nobackup" }], largerThanBytes: 1024 },
  ],
];

test("what is excluded is what restic excludes", { skip: needsRestic }, async () => {
  using bench = new Workbench();
  await bench.create();
  makeFolders(bench);
  for (const [flags, excludes] of rules) {
    for (const targets of [[bench.source]]) {
      const { ours, theirs, report } = await backUpBoth(bench, { targets, excludes: { ...noExcludes, ...excludes } }, flags);
      assert.deepEqual(ours, theirs, `${flags.join(" ")} of ${targets.join(" ")}`);
      assert.deepEqual(report.troublesSeen, []);
    }
  }
});

test("exclusions hold in every worker, however the work is shared", async () => {
  using bench = new Workbench();
  await bench.create();
  for (let folder = 0; folder < 40; folder++) {
    mkdirSync(`${bench.source}/${folder}/skip`, { recursive: true });
    for (let file = 0; file < 10; file++) writeFileSync(`${bench.source}/${folder}/${file}.${file % 2 === 0 ? "txt" : "tmp"}`, "x");
    writeFileSync(`${bench.source}/${folder}/skip/file`, "x");
  }
  const report = await bench.backUp({ workers: 4, excludes: { ...noExcludes, patterns: ["*.tmp", "skip"] } });
  assert.equal(report.counts.filesNew, 200);
  const found = await recordSnapshot(await bench.open(), report.snapshot.tree, bench.source);
  assert.equal([...found.keys()].filter((path) => /\.tmp$|skip/.test(path)).length, 0);
});

test("one file system: mount points stay empty folders, unless they are targets themselves", {
  skip: isRoot ? needsRestic : "needs root",
}, async (t) => {
  using bench = new Workbench();
  await bench.create();
  makeFolders(bench);
  const mounts = [`${bench.source}/a/mounted`, `${bench.source}/top mount`];
  for (const path of mounts) {
    mkdirSync(path);
    try {
      execFileSync("mount", ["-t", "tmpfs", "none", path], { stdio: ["ignore", "pipe", "pipe"] });
    } catch (error) {
      t.skip(`cannot mount: ${String(error)}`);
      return;
    }
  }
  try {
    for (const path of mounts) {
      writeFileSync(`${path}/inside`, "x");
      mkdirSync(`${path}/below/deeper`, { recursive: true });
      writeFileSync(`${path}/below/deeper/file`, "x");
    }
    const excludes = { ...noExcludes, oneFileSystem: true };
    const cases = [
      [bench.source],
      ["."],
      [bench.source, mounts[0] ?? ""],
      [".", "a/mounted"],
      [mounts[0] ?? ""],
      [`${mounts[0]}/below`],
      ["a", "top mount"],
    ];
    for (const targets of cases) {
      const { ours, theirs } = await backUpBoth(bench, { targets, excludes }, ["--one-file-system"]);
      assert.equal(ours.join("\n"), theirs.join("\n"), targets.join(" "));
    }
    const all = await bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true });
    const files = (paths: Iterable<string>): number => [...paths].filter((path) => path.endsWith("inside")).length;
    assert.equal(files((await recordSnapshot(await bench.open(), all.snapshot.tree)).keys()), 2);
  } finally {
    for (const path of mounts) execFileSync("umount", [path]);
  }
});

test("the top of the file system is backed up without the file systems mounted in it", {
  skip: isRoot ? false : "needs root",
}, async () => {
  using bench = new Workbench();
  await bench.create();
  // Everything but what the system itself brings is left out, so that it takes no time.
  const patterns = readdirSync("/")
    .filter((name) => !["proc", "sys", "dev"].includes(name))
    .map((name) => `/${name}`);
  const own = ["proc", "sys", "dev"].filter((name) => statSync(`/${name}`).dev !== statSync("/").dev);
  assert.ok(own.length > 0, "something is mounted");
  const report = await bench.backUp({ targets: ["/"], isUnlocked: true, excludes: { ...noExcludes, patterns, oneFileSystem: true } });
  const paths = [...(await recordSnapshot(await bench.open(), report.snapshot.tree)).keys()];
  for (const name of own)
    assert.deepEqual(
      paths.filter((path) => path === name || path.startsWith(`${name}/`)),
      [name],
    );
});

test("a target that is not there is told, and the others are backed up; paths are those that were found", async () => {
  using bench = new Workbench();
  await bench.create();
  makeFolders(bench);
  const targets = ["a", "nowhere", "nowhere/deep/in", "b/one.txt/not a folder", "top.txt"];
  const report = await bench.backUp({ targets, directory: fromUtf8(bench.source), isUnlocked: true });
  assert.deepEqual(
    report.troublesSeen.map(({ path, reason }) => [path.slice(bench.source.length), reason]),
    [
      ["/nowhere", "unreadable"],
      ["/nowhere/deep/in", "unreadable"],
      ["/b/one.txt/not a folder", "unreadable"],
    ],
  );
  assert.match(report.troublesSeen[0]?.message ?? "", /ENOENT/);
  assert.equal(report.troubles, 3);
  assert.deepEqual(report.snapshot.paths, [`${bench.source}/a`, `${bench.source}/top.txt`]);
  assert.equal(report.snapshot.unknown.get("granary"), '{"warnings":3}');
  assert.equal(report.counts.filesNew, 4);
});

test("when no target is there the backup fails, names them, and leaves no snapshot", async () => {
  using bench = new Workbench();
  await bench.create();
  await assert.rejects(
    bench.backUp({ targets: ["/nowhere at all", "/\xff\xfe"], isUnlocked: true }),
    (error: Error & { code?: string }) => {
      assert.equal(error.code, "SourceUnreadable");
      assert.match(error.message, /nowhere at all \(ENOENT\).*\\xff\\xfe \(ENOENT\)/);
      return true;
    },
  );
  assert.equal(bench.countFiles("snapshots"), 0);
});

test("folders above targets have their own attributes, also when a link leads to them", async () => {
  using bench = new Workbench();
  await bench.create();
  mkdirSync(`${bench.source}/real/below`, { recursive: true });
  writeFileSync(`${bench.source}/real/below/file`, "x");
  symlinkSync("real", `${bench.source}/link`);
  utimesSync(`${bench.source}/real`, 1000, 1000);
  const report = await bench.backUp({ targets: ["link/below"], directory: fromUtf8(bench.source), isUnlocked: true });
  const found = await recordSnapshot(await bench.open(), report.snapshot.tree);
  assert.deepEqual([...found.keys()], ["link", "link/below", "link/below/file"]);
  assert.equal(found.get("link")?.type, "dir");
  assert.equal(found.get("link")?.mode, 0o755);
  assert.equal(found.get("link")?.mtimeNs, 1000n * 1_000_000_000n);
});

test("a folder that stands for 5,000 entries is one slice, not one task for each", async () => {
  using bench = new Workbench();
  await bench.create();
  for (let at = 0; at < 5000; at++) writeFileSync(`${bench.source}/${at}`, "");
  const report = await bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true });
  assert.equal(report.counts.filesNew, 5000);
  const again = await bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true });
  assert.equal(again.counts.filesUnmodified, 5000);
  assert.equal(again.snapshot.tree, report.snapshot.tree);
});

test("an empty folder backs up as nothing, and a target with names of any byte as itself", async () => {
  using bench = new Workbench();
  await bench.create();
  const empty = await bench.backUp({ targets: ["."], directory: fromUtf8(bench.source), isUnlocked: true });
  assert.equal((await recordSnapshot(await bench.open(), empty.snapshot.tree)).size, 0);
  const name = "caf\xe9 \x01\xff";
  mkdirSync(Buffer.from(`${bench.source}/${name}`, "latin1"));
  writeFileSync(Buffer.from(`${bench.source}/${name}/file`, "latin1"), "x");
  const report = await bench.backUp({ targets: [`${bench.source}/${name}`], isUnlocked: true });
  assert.deepEqual(report.snapshot.paths, [`${bench.source}/caf\\xe9 \\x01\\xff`]);
  const found = await recordSnapshot(await bench.open(), report.snapshot.tree, `${bench.source}/${name}`);
  assert.deepEqual([...found.keys()], ["", "file"]);
  rmSync(bench.source, { recursive: true });
});
