import assert from "node:assert/strict";
import { test } from "node:test";
import { type Failure, isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { sha256 } from "../crypto/hash.ts";
import { hexOf } from "../format/ids.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import { type Sample, SampleTrees } from "./sample-trees.ts";
import { findEntry, MAX_TREES_AHEAD, type TreeEntry, walkTree, type WalkOptions } from "./tree-walk.ts";

async function collect(trees: SampleTrees, root: Uint8Array, options: WalkOptions = {}): Promise<TreeEntry[]> {
  const found: TreeEntry[] = [];
  for await (const batch of walkTree(trees.load, root, options)) {
    assert.ok(batch.length > 0);
    found.push(...batch);
  }
  return found;
}

function* expectedPaths(sample: Sample, prefix = ""): Generator<string> {
  for (const name of Object.keys(sample).sort()) {
    const value = sample[name];
    yield `${prefix}/${name}`;
    if (typeof value === "object") yield* expectedPaths(value, `${prefix}/${name}`);
  }
}

const sampleArbitrary: fc.Arbitrary<Sample> = fc.letrec<{ dir: Sample; value: Sample | number }>((tie) => ({
  dir: fc.dictionary(fc.stringMatching(/^[a-f]{1,3}$/), tie("value"), { depthIdentifier: "tree", maxKeys: 6 }),
  value: fc.oneof({ depthIdentifier: "tree", maxDepth: 5 }, fc.nat(), tie("dir")),
})).dir;

test("walkTree() yields every entry once, depth first, in the order of the names", async () => {
  await fc.assert(
    fc.asyncProperty(sampleArbitrary, async (sample) => {
      const trees = new SampleTrees();
      const entries = await collect(trees, trees.add(sample));
      assert.deepEqual(
        entries.map((entry) => entry.path),
        [...expectedPaths(sample)],
      );
      for (const entry of entries) {
        assert.equal(entry.depth, entry.path.split("/").length - 1);
        assert.equal(entry.path.endsWith(`/${entry.node.name}`), true);
      }
    }),
  );
});

test("walkTree() loads ahead, but never more trees than it says", async () => {
  const trees = new SampleTrees();
  const wide = (depth: number): Sample =>
    depth === 0
      ? { file: 1 }
      : Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`d${depth}-${i}`, { [`u${i}`]: wide(depth - 1) }]));
  const root = trees.add(wide(3));
  const entries = await collect(trees, root);
  assert.equal(entries.filter((entry) => entry.node.type === "file").length, 12 ** 3);
  assert.ok(trees.mostLoading > 4, `at most ${trees.mostLoading} at once`);
  assert.ok(trees.mostLoading <= MAX_TREES_AHEAD + 8, `${trees.mostLoading} at once`);
});

test("walkTree() goes through a directory with many entries in batches, subdirectories among them", async () => {
  const trees = new SampleTrees();
  const sample: Record<string, Sample | number> = {};
  for (let i = 0; i < 2000; i++) sample[String(i).padStart(5, "0")] = i % 97 === 0 ? { inside: i } : i;
  const entries = await collect(trees, trees.add(sample));
  assert.deepEqual(
    entries.map((entry) => entry.path),
    [...expectedPaths(sample)],
  );
});

test("walkTree() asks about each directory once and stays out of those refused", async () => {
  const trees = new SampleTrees();
  const asked: string[] = [];
  const root = trees.add({ a: { b: { c: 1 }, d: 2 }, e: { b: { c: 1 } } });
  const entries = await collect(trees, root, {
    prefix: "/top",
    enter: (entry) => {
      asked.push(entry.path);
      return entry.path !== "/top/a/b";
    },
  });
  assert.deepEqual(asked, ["/top/a", "/top/e", "/top/a/b", "/top/e/b"]);
  assert.deepEqual(
    entries.map((entry) => entry.path),
    ["/top/a", "/top/a/b", "/top/a/d", "/top/e", "/top/e/b", "/top/e/b/c"],
  );
});

test("walkTree() fails at a missing or damaged directory, or reports it and goes on", async () => {
  const trees = new SampleTrees();
  const lost = trees.add({ gone: 1 });
  const broken = trees.addRaw('{"nodes":[{"name":"good","type":"file","content":[]},{"name":"zbad","type":"file","size":-1}]}');
  const cut = trees.addRaw('{"nodes":[');
  const nowhere = trees.addRaw('{"nodes":[{"name":"d","type":"dir"}]}');
  const dirs: [string, Buffer][] = [
    ["a", lost],
    ["b", broken],
    ["c", cut],
    ["d", nowhere],
  ];
  const root = trees.addRaw(
    JSON.stringify({
      nodes: [...dirs.map(([name, id]) => ({ name, type: "dir", subtree: hexOf(id) })), { name: "z", type: "file", content: [] }],
    }),
  );
  trees.blobs.delete(hexOf(lost));
  await assert.rejects(collect(trees, root), (error) => isFailure(error, "BlobMissing"));

  const faults: [string, string, Failure][] = [];
  const entries = await collect(trees, root, { onUnreadable: (path, id, failure) => faults.push([path, hexOf(id), failure]) });
  assert.deepEqual(
    entries.map((entry) => entry.path),
    ["/a", "/b", "/b/good", "/c", "/d", "/z"],
  );
  assert.deepEqual(
    faults.map(([path, id, failure]) => [path, id, failure.code]),
    [
      ["/a", hexOf(lost), "BlobMissing"],
      ["/b", hexOf(broken), "TreeInvalid"],
      ["/c", hexOf(cut), "TreeInvalid"],
      ["/d", hexOf(nowhere), "TreeInvalid"],
    ],
  );
});

test("walkTree() refuses a directory that contains itself, and one too deep", async () => {
  const own = sha256(Buffer.from("any"));
  const cycle: TreeLoader = async () => Buffer.from(JSON.stringify({ nodes: [{ name: "again", type: "dir", subtree: hexOf(own) }] }));
  await assert.rejects(async () => {
    for await (const _ of walkTree(cycle, own));
  }, /contains itself/);

  // each tree is named by its depth, and leads one deeper, for ever
  const endless: TreeLoader = async (id) => {
    const next = Buffer.from(id);
    next.writeUInt32LE(next.readUInt32LE() + 1);
    return Buffer.from(JSON.stringify({ nodes: [{ name: "d", type: "dir", subtree: hexOf(next) }] }));
  };
  let most = 0;
  await assert.rejects(async () => {
    for await (const batch of walkTree(endless, Buffer.alloc(32))) most = batch[0]?.depth ?? 0;
  }, /directories deep/);
  assert.equal(most, 16_384);
});

test("walkTree() stops when it is cancelled, and cleans up when its consumer leaves", async () => {
  const trees = new SampleTrees();
  const root = trees.add(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`d${i}`, { file: 1 }])));
  const abort = new AbortController();
  let seen = 0;
  await assert.rejects(
    async () => {
      for await (const batch of walkTree(trees.load, root, { signal: abort.signal })) {
        seen += batch.length;
        abort.abort();
      }
    },
    (error) => isFailure(error, "Cancelled"),
  );
  assert.ok(seen > 0 && seen < 50);
  for await (const _ of walkTree(trees.load, root)) break;
  assert.equal(trees.loading, 0);
});

test("findEntry() finds files, directories and the root, and says what is missing", async () => {
  const trees = new SampleTrees();
  const root = trees.add({ home: { alice: { "notes.txt": 5 } } });
  assert.equal((await findEntry(trees.load, root, { path: "/home/alice/notes.txt" })).node.size, 5);
  assert.equal((await findEntry(trees.load, root, { path: "home//./alice/" })).path, "/home/alice");
  const top = await findEntry(trees.load, root, { path: "/" });
  assert.deepEqual([top.path, top.depth, top.node.type, hexOf(top.node.subtree ?? root)], ["", 0, "dir", hexOf(root)]);
  for (const path of ["/home/bob", "/home/alice/notes.txt/x", "/.."]) {
    await assert.rejects(findEntry(trees.load, root, { path }), (error) => isFailure(error, "PathNotFound"));
  }
});
