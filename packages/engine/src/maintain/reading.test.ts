/** The reading verbs against the real restic: what it says of a repository, and what ours say, must be the same. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { type ByteString, fromUtf8 } from "../format/byte-string.ts";
import { bytesOfId, hexOf } from "../format/ids.ts";
import { formatTime } from "../format/time.ts";
import { openLocalStore } from "../store/local.ts";
import { backUp as backUpTargets } from "../../test/workbench.ts";
import { createTreeLoader, type TreeLoader } from "../repository/blob-load.ts";
import type { Repository } from "../repository/repository.ts";
import { findSnapshot, loadSnapshots, type StoredSnapshot } from "../repository/snapshots.ts";
import { compilePatterns } from "../selection/pattern.ts";
import { type DiffEvent, diffTrees } from "./diff.ts";
import { findEntries, type FindEvent, locateBlob, matchIdPrefixes, type NameQuery, type ObjectQuery, queryPacks } from "./find.ts";
import { formatGoMode, listSnapshot } from "./ls.ts";
import { ResticRunner } from "./restic-runner.ts";
import { changeSampleFolder, fillSampleFolder } from "./sample-folder.ts";
import { countStats, statsModes } from "./stats.ts";
import { findEntry, type TreeEntry } from "./tree-walk.ts";

for (const writer of ["restic", "granary"] as const) {
  describe(`beside restic, of what ${writer} wrote`, { skip: skipWithout("restic", "setfattr", "setfacl") }, () => {
    let restic: ResticRunner;
    let repository: Repository;
    let load: TreeLoader;
    let snapshots: StoredSnapshot[];
    let folder: string;

    before(async () => {
      restic = new ResticRunner();
      await restic.create();
      folder = restic.makeFolder("source");
      await fillSampleFolder(folder);
      const backUp = writer === "restic" ? backUpWithRestic : backUpWithGranary;
      await backUp(restic, [folder], "host");
      await backUp(restic, [`${folder}/docs`, `${folder}/same-1`], "other");
      changeSampleFolder(folder);
      await backUp(restic, [folder], "host");
      repository = await restic.open();
      load = createTreeLoader(repository);
      snapshots = await loadSnapshots(repository);
    });
    after(() => restic[Symbol.dispose]());

    const first = (): StoredSnapshot => snapshots[0] ?? assert.fail();
    const last = (): StoredSnapshot => snapshots[2] ?? assert.fail();

    test("countStats() counts as restic does, in each mode, of one snapshot and of all", async () => {
      for (const mode of statsModes) {
        for (const chosen of [snapshots, [first()], snapshots.slice(1)]) {
          const found = await countStats(
            { load, index: repository.index },
            chosen.map(({ tree }) => tree),
            { mode },
          );
          const expected = JSON.parse(restic.read("stats", "--json", "--mode", mode, ...chosen.map(({ id }) => id))) as Record<
            string,
            number
          >; // restic's JSON
          assert.equal(found.sizeBytes, expected.total_size, mode);
          assert.equal(found.fileCount, expected.total_file_count, mode);
          assert.equal(found.blobCount, expected.total_blob_count ?? 0, mode);
          assert.equal(found.snapshotsCount, chosen.length);
          if (mode === "raw-data")
            assert.ok(found.uncompressedBytes > found.sizeBytes && found.compressedBytes < found.compressedPlainBytes);
        }
      }
    });

    test("listSnapshot() lists what restic lists, of the whole, of folders, and recursively", async () => {
      const docs = `${folder}/docs`;
      const cases: { folders: string[]; recursive: boolean }[] = [
        { folders: [], recursive: false },
        { folders: ["/"], recursive: false },
        { folders: [folder], recursive: false },
        { folders: [`${docs}/`], recursive: false },
        { folders: [docs], recursive: true },
        { folders: [`${docs}/deep`, `${folder}/same-1`, `${folder}/big.bin`], recursive: false },
      ];
      for (const { folders, recursive } of cases) {
        const printed = restic.read("ls", "--json", ...(recursive ? ["--recursive"] : []), first().id, ...folders);
        const expected = printed
          .trim()
          .split("\n")
          .slice(1)
          .map((line) => readListed(line));
        const found = await collect(listSnapshot(load, first().tree, { folders: folders.map(fromUtf8), recursive }));
        assert.deepEqual(found.map(showListed), expected, JSON.stringify({ folders, recursive }));
        assert.ok(found.length > 0);
      }
    });

    test("listSnapshot() says which folder is not there, and wants absolute ones", async () => {
      await assert.rejects(collect(listSnapshot(load, first().tree, { folders: ["/not/there"] })), (error) =>
        isFailure(error, "PathNotFound"),
      );
      await assert.rejects(collect(listSnapshot(load, first().tree, { folders: ["docs"] })), (error) =>
        isFailure(error, "InvalidArgument"),
      );
    });

    test("diffTrees() tells the changes and the statistics that restic tells", async () => {
      for (const withMetadata of [false, true]) {
        for (const [a, b] of [
          [first(), last()],
          [last(), first()],
          [first(), first()],
        ] as const) {
          const printed = restic
            .read("diff", "--json", ...(withMetadata ? ["--metadata"] : []), a.id, b.id)
            .trim()
            .split("\n");
          const lines = printed.map((line) => JSON.parse(latin1ToUtf8(line)) as Record<string, unknown>); // restic's JSON
          const events: DiffEvent[] = await collectEvents(
            diffTrees({ load, index: repository.index, before: bytesOfId(a.tree), after: bytesOfId(b.tree) }, { withMetadata }),
          );
          const changes = events.flatMap((event) => (event.kind === "changes" ? event.changes : []));
          // restic does not tell of what is below an entry that changed its type; here those are empty
          assert.deepEqual(
            changes.map(({ path, modifier }) => [replaceInvalid(path), modifier.replace("?", "")]),
            lines.filter((line) => line.message_type === "change").map((line) => [line.path, line.modifier]),
          );
          const statistics = events.at(-1);
          const expected = lines.at(-1);
          assert.ok(statistics?.kind === "statistics" && expected !== undefined);
          assert.deepEqual(
            {
              changed_files: statistics.statistics.changedFiles,
              added: countsOf(statistics.statistics.added),
              removed: countsOf(statistics.statistics.removed),
            },
            { changed_files: expected.changed_files, added: expected.added, removed: expected.removed },
          );
          assert.equal(statistics.statistics.missingBlobs, 0);
          assert.equal(changes.length > 0, a !== b);
        }
      }
    });

    test("diffTrees() compares folders inside snapshots, and lists what is below a changed type", async () => {
      const treeOf = async (snapshot: StoredSnapshot, path: string): Promise<Uint8Array> =>
        (await findEntry(load, bytesOfId(snapshot.tree), { path })).node.subtree ?? assert.fail();
      const before = await treeOf(first(), `${folder}/docs/deep`);
      const inside = await collectEvents(
        diffTrees({ load, index: repository.index, before, after: await treeOf(last(), `${folder}/docs/deep`) }, { withMetadata: false }),
      );
      assert.deepEqual(changesOf(inside), [["/er/still/leaf.txt", "M"]]);
      const whole = await collectEvents(
        diffTrees({ load, index: repository.index, before: await treeOf(first(), folder), after: before }, { withMetadata: false }),
      );
      assert.ok(changesOf(whole).some(([path, modifier]) => path === "/docs/deep/er/" && modifier === "-"));
    });

    test("findEntries() finds by name what restic finds", async () => {
      const noon = BigInt(Date.UTC(2010, 0, 1)) * 1_000_000n;
      const cases: { flags: string[]; query: NameQuery }[] = [
        { flags: ["*.txt"], query: names(["*.txt"]) },
        { flags: ["docs/*", "twin.bin"], query: names(["docs/*", "twin.bin"]) },
        { flags: ["-i", "read*"], query: names(["read*"], true) },
        { flags: [`${folder}/**/still`], query: names([`${folder}/**/still`]) },
        { flags: ["-N", "2010-01-01", "*"], query: { ...names(["*"]), newestNs: noon } },
        { flags: ["-O", "2010-01-01", "*.t?t"], query: { ...names(["*.t?t"]), oldestNs: noon } },
        { flags: ["no such thing"], query: names(["no such thing"]) },
      ];
      for (const { flags, query } of cases) {
        for (const chosen of [snapshots, [last()]]) {
          const printed = restic.read("find", "--json", ...chosen.flatMap(({ id }) => ["-s", id]), ...flags);
          const expected = JSON.parse(latin1ToUtf8(printed)) as {
            matches: { path: string; permissions: string; mtime: string }[];
            snapshot: string;
          }[]; // restic's JSON
          const found = (await collect(findEntries(load, chosen, { query }))).map((event) => {
            assert.equal(event.kind, "match");
            return [event.snapshot.id, replaceInvalid(event.entry.path), formatGoMode(event.entry.node.mode)];
          });
          assert.deepEqual(
            found,
            expected.flatMap(({ matches, snapshot }) => matches.map(({ path, permissions }) => [snapshot, path, permissions])),
            flags.join(" "),
          );
        }
      }
    });

    test("findEntries() finds by id of blob and pack what restic finds, and trees", async () => {
      const twin = (await findEntry(load, bytesOfId(first().tree), { path: `${folder}/same-1/twin.bin` })).node.content ?? assert.fail();
      const blob = hexOf(twin);
      const pack = locateBlob(repository.index, blob)?.packId ?? assert.fail();
      const cases: { flags: string[]; query: ObjectQuery }[] = [
        { flags: ["--blob", blob], query: { kind: "objects", isBlob: matchIdPrefixes([blob]), isTree: () => false } },
        {
          flags: ["--blob", blob.slice(0, 8)],
          query: { kind: "objects", isBlob: matchIdPrefixes([blob.slice(0, 8)]), isTree: () => false },
        },
        { flags: ["--pack", pack], query: queryPacks(repository.index, [pack]) },
        { flags: ["--pack", pack.slice(0, 8)], query: queryPacks(repository.index, [pack.slice(0, 8)]) },
      ];
      for (const { flags, query } of cases) {
        const printed = restic.read("find", "--json", ...snapshots.flatMap(({ id }) => ["-s", id]), ...flags);
        const expected = JSON.parse(latin1ToUtf8(printed)) as Record<string, string>[]; // restic's JSON
        const found = (await collect(findEntries(load, snapshots, { query }))).map((event) =>
          event.kind === "object" ? objectOf(event) : assert.fail(),
        );
        assert.deepEqual(
          found,
          expected.map(({ object_type, id, path, parent_tree, snapshot }) => [object_type, id, path, parent_tree ?? "", snapshot]),
          flags.join(" "),
        );
        assert.ok(found.length > 0);
      }
      const tree = (await findEntry(load, bytesOfId(last().tree), { path: `${folder}/docs/deep/er` })).node.subtree ?? assert.fail();
      const query: ObjectQuery = {
        kind: "objects",
        isBlob: () => false,
        isTree: matchIdPrefixes([hexOf(tree), first().tree.slice(0, 12)]),
      };
      assert.deepEqual(
        (await collect(findEntries(load, snapshots, { query }))).map((event) =>
          event.kind === "object" ? objectOf(event) : assert.fail(),
        ),
        [
          ["tree", first().tree, "/", "", first().id],
          ["tree", hexOf(tree), `${folder}/docs/deep/er`, "", last().id],
        ],
      );
      assert.throws(
        () => queryPacks(repository.index, ["00".repeat(32)]),
        (error) => isFailure(error, "InvalidArgument"),
      );
      assert.throws(
        () => matchIdPrefixes(["XYZ"]),
        (error) => isFailure(error, "InvalidArgument"),
      );
    });

    test("findEntries() does not load again what it knows to hold no match", async () => {
      const loaded: string[] = [];
      const counting: TreeLoader = (id, signal) => {
        loaded.push(hexOf(id));
        return load(id, signal);
      };
      const twice = [first(), { ...first() }];
      assert.equal((await collect(findEntries(counting, twice, { query: names(["leaf.txt"]) }))).length, 2);
      const once = loaded.filter((id, i) => loaded.indexOf(id) === i && loaded.lastIndexOf(id) === i);
      assert.ok(once.length >= 6, `${once.length} of ${loaded.length} trees were loaded once`);
    });

    test("a snapshot is found by a name with a path behind it, and that path is what diff and ls take", async () => {
      const { snapshot, subpath } = await findSnapshot(repository, `${last().id.slice(0, 10)}:${folder}/docs`);
      assert.equal(snapshot.id, last().id);
      assert.equal((await findEntry(load, bytesOfId(snapshot.tree), { path: fromUtf8(subpath) })).node.type, "dir");
    });
  });
}

async function backUpWithRestic(restic: ResticRunner, paths: readonly string[], host: string): Promise<void> {
  restic.run("backup", ...paths, "--host", host);
}

async function backUpWithGranary(restic: ResticRunner, paths: readonly string[], host: string): Promise<void> {
  await backUpTargets(openLocalStore(restic.location), { targets: paths.map(fromUtf8), hostname: host });
}

test("formatGoMode() shows modes as Go does", () => {
  const cases: [number, string][] = [
    [0o644, "-rw-r--r--"],
    [2 ** 31 + 0o755, "drwxr-xr-x"],
    [2 ** 31 + 2 ** 20 + 0o777, "dtrwxrwxrwx"],
    [2 ** 27 + 0o777, "Lrwxrwxrwx"],
    [2 ** 26 + 2 ** 21 + 0o660, "Dcrw-rw----"],
    [2 ** 23 + 2 ** 22 + 0o6, "ug------rw-"],
    [2 ** 25, "p---------"],
    [2 ** 24, "S---------"],
    [2 ** 19, "?---------"],
  ];
  for (const [mode, shown] of cases) assert.equal(formatGoMode(mode), shown);
});

function names(patterns: readonly string[], insensitive = false): NameQuery {
  return { kind: "names", patterns: compilePatterns(patterns, { insensitive }) };
}

function objectOf(event: Extract<FindEvent<StoredSnapshot>, { kind: "object" }>): string[] {
  return [event.objectType, event.id, replaceInvalid(event.path), event.parentTree, event.snapshot.id];
}

function changesOf(events: readonly DiffEvent[]): [string, string][] {
  return events.flatMap((event) =>
    event.kind === "changes" ? event.changes.map(({ path, modifier }): [string, string] => [path, modifier]) : [],
  );
}

async function collect<T>(batches: AsyncIterable<readonly T[]>): Promise<T[]> {
  return (await Array.fromAsync(batches)).flat();
}

function collectEvents<T>(events: AsyncIterable<T>): Promise<T[]> {
  return Array.fromAsync(events);
}

function latin1ToUtf8(text: string): string {
  return Buffer.from(text, "latin1").toString("utf8");
}

/** As Go writes raw bytes into JSON: what is no UTF-8 is replaced, byte by byte. */
function replaceInvalid(path: ByteString): string {
  let out = "";
  for (const part of path.split(/(\xc3\xa9)/)) out += part === "\xc3\xa9" ? "é" : part.replace(/[\x80-\xff]/g, "\ufffd");
  return out;
}

function readListed(line: string): unknown[] {
  const node = JSON.parse(latin1ToUtf8(line)) as Record<string, unknown>; // restic's JSON
  return [
    node.path,
    node.type,
    node.uid,
    node.gid,
    node.size ?? null,
    node.mode ?? 0,
    node.permissions,
    node.mtime,
    node.atime,
    node.ctime,
  ];
}

function showListed({ path, node }: TreeEntry): unknown[] {
  return [
    replaceInvalid(path),
    node.type,
    node.uid,
    node.gid,
    node.type === "file" ? node.size : null,
    node.mode,
    formatGoMode(node.mode),
    formatTime(node.mtimeSeconds, node.mtimeNanos),
    formatTime(node.atimeSeconds, node.atimeNanos),
    formatTime(node.ctimeSeconds, node.ctimeNanos),
  ];
}

function countsOf(counts: Extract<DiffEvent, { kind: "statistics" }>["statistics"]["added"]): Record<string, number> {
  const { files, dirs, others, dataBlobs, treeBlobs, sizeBytes } = counts;
  return { files, dirs, others, data_blobs: dataBlobs, tree_blobs: treeBlobs, bytes: sizeBytes };
}
