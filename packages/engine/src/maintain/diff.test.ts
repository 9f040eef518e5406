import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { sha256 } from "../crypto/hash.ts";
import { hexOf } from "../format/ids.ts";
import { type DiffEvent, type DiffStatistics, diffTrees } from "./diff.ts";
import { type Sample, SampleTrees } from "./sample-trees.ts";

interface Comparison {
  /** Modifiers and paths. */
  readonly lines: readonly string[];
  readonly statistics: DiffStatistics;
  readonly events: readonly DiffEvent[];
}

async function compare(trees: SampleTrees, before: Uint8Array, after: Uint8Array): Promise<Comparison> {
  const events = await Array.fromAsync(diffTrees({ load: trees.load, index: trees.index, before, after }, { withMetadata: false }));
  const last = events.at(-1);
  assert.ok(last?.kind === "statistics");
  const lines = events.flatMap((event) =>
    event.kind === "changes" ? event.changes.map(({ path, modifier }) => `${modifier} ${path}`) : [],
  );
  return { lines, statistics: last.statistics, events };
}

test("diffTrees() tells what is below an entry that became a directory, or is none any more", async () => {
  const trees = new SampleTrees();
  const before = trees.add({ a: { inner: { x: "1" } }, b: "text" });
  const after = trees.add({ a: "text", b: { y: "2" } });
  const { lines, statistics } = await compare(trees, before, after);
  assert.deepEqual(lines, ["T /a", "- /a/inner/", "- /a/inner/x", "T /b/", "+ /b/y"]);
  assert.deepEqual([statistics.removed.files, statistics.removed.dirs, statistics.added.files], [1, 1, 1]);
  // "text" moved, and is neither new nor gone
  assert.deepEqual([statistics.added.dataBlobs, statistics.removed.dataBlobs], [1, 1]);
});

test("diffTrees() does not count as new what a common folder has already", async () => {
  const trees = new SampleTrees();
  const common = { deep: { er: { x: "shared", z: "other" } } };
  const { statistics, lines } = await compare(trees, trees.add({ common }), trees.add({ common, copy: "shared", fresh: "fresh" }));
  assert.deepEqual(lines, ["+ /copy", "+ /fresh"]);
  assert.deepEqual(statistics.added, { files: 2, dirs: 0, others: 0, dataBlobs: 1, treeBlobs: 1, sizeBytes: statistics.added.sizeBytes });
});

test("diffTrees() reads nothing of two trees that are one", async () => {
  const trees = new SampleTrees();
  const root = trees.add({ a: { b: "c" } });
  const { lines, statistics } = await compare(trees, root, root);
  assert.deepEqual([lines, trees.loads, statistics.added.treeBlobs], [[], 0, 0]);
});

test("diffTrees() marks content that changed while nothing else did", async () => {
  const trees = new SampleTrees();
  const { lines } = await compare(trees, trees.add({ rotten: "abc", edited: "abc" }), trees.add({ rotten: "abd", edited: "longer" }));
  assert.deepEqual(lines, ["M /edited", "M? /rotten"]);
});

test("diffTrees() reports folders that cannot be read and goes on; a root must be readable", async () => {
  const trees = new SampleTrees();
  const before = trees.add({ a: { lost: "1" }, b: "1", c: { gone: "2" } });
  const after = trees.add({ a: { lost: "2" }, b: "2" });
  for (const [id, bytes] of trees.blobs) if (/"(?:lost|gone)"/.test(bytes.toString())) trees.blobs.delete(id);
  const { lines, events } = await compare(trees, before, after);
  assert.deepEqual(lines, ["M? /b", "- /c/"]);
  assert.deepEqual(
    events.flatMap((event) => (event.kind === "unreadable" ? [event.path] : [])),
    ["/a", "/c"],
  );
  await assert.rejects(compare(trees, before, sha256(Buffer.from("nowhere"))), (error) => isFailure(error, "BlobMissing"));
});

test("diffTrees() counts blobs that the index does not know", async () => {
  const trees = new SampleTrees();
  const lost = hexOf(sha256(Buffer.from("lost")));
  const after = trees.addRaw(`{"nodes":[{"name":"f","type":"file","content":["${lost}","${lost}"]}]}`);
  const { statistics } = await compare(trees, trees.add({}), after);
  assert.deepEqual([statistics.missingBlobs, statistics.added.dataBlobs, statistics.added.files], [1, 0, 1]);
});

test("diffTrees() of any two trees tells exactly the paths that differ, and the reverse turns the signs", async () => {
  const anySample: fc.Arbitrary<Sample> = fc.letrec<{ dir: Sample; value: Sample | string }>((tie) => ({
    dir: fc.dictionary(fc.constantFrom("a", "b", "c", "d"), tie("value"), { depthIdentifier: "tree" }),
    value: fc.oneof({ depthIdentifier: "tree", maxDepth: 4 }, fc.constantFrom("x", "y", "zz"), tie("dir")),
  })).dir;
  await fc.assert(
    fc.asyncProperty(anySample, anySample, async (first, second) => {
      const trees = new SampleTrees();
      const [before, after] = [trees.add(first), trees.add(second)];
      const found = await compare(trees, before, after);
      assert.deepEqual(new Set(found.lines), expectedLines(first, second));
      const turned = await compare(trees, after, before);
      assert.deepEqual(new Set(turned.lines), expectedLines(second, first));
      assert.deepEqual(found.statistics.added, turned.statistics.removed);
    }),
    { numRuns: 60 },
  );
});

function pathsOf(sample: Sample, prefix = "", found = new Map<string, string>()): Map<string, string> {
  for (const [name, value] of Object.entries(sample)) {
    const path = `${prefix}/${name}`;
    found.set(path, typeof value === "object" ? "/" : String(value));
    if (typeof value === "object") pathsOf(value, path, found);
  }
  return found;
}

function expectedLines(first: Sample, second: Sample): Set<string> {
  const [before, after] = [pathsOf(first), pathsOf(second)];
  const lines = new Set<string>();
  const slash = (kind: string | undefined): string => (kind === "/" ? "/" : "");
  for (const [path, kind] of before) {
    const other = after.get(path);
    if (other === undefined) lines.add(`- ${path}${slash(kind)}`);
    else if ((kind === "/") !== (other === "/")) lines.add(`T ${path}${slash(other)}`);
    else if (kind !== other) lines.add(`${kind.length === other.length ? "M?" : "M"} ${path}`);
  }
  for (const [path, kind] of after) if (!before.has(path)) lines.add(`+ ${path}${slash(kind)}`);
  return lines;
}
