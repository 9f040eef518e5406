import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type BlobId, blobIdOf, hexOf, parseSnapshotId, type SnapshotId } from "../format/ids.ts";
import { compilePatterns } from "../selection/pattern.ts";
import { findEntries, type FindEvent, type FindSubject, matchIdPrefixes, type NameQuery } from "./find.ts";
import { type Sample, SampleTrees } from "./sample-trees.ts";

function names(...patterns: readonly string[]): NameQuery {
  return { kind: "names", patterns: compilePatterns(patterns, { insensitive: false }) };
}

function snapshotOf(trees: SampleTrees, sample: Sample, place: number): { id: SnapshotId; tree: BlobId } {
  return { id: parseSnapshotId(String(place).padStart(64, "0")), tree: blobIdOf(trees.add(sample)) };
}

async function find(
  trees: SampleTrees,
  snapshots: readonly FindSubject[],
  query: Parameters<typeof findEntries>[2]["query"],
): Promise<string[]> {
  const describe = (event: FindEvent<FindSubject>): string => {
    const place = Number(event.snapshot.id);
    if (event.kind === "match") return `${place} ${event.entry.path}`;
    return event.kind === "object" ? `${place} ${event.objectType} ${event.path}` : `${place} unreadable ${event.path}`;
  };
  return (await Array.fromAsync(findEntries(trees.load, snapshots, { query }))).flat().map(describe);
}

test("findEntries() finds in many snapshots what a search of each by itself finds", async () => {
  const anySample: fc.Arbitrary<Sample> = fc.letrec<{ dir: Sample; value: Sample | string }>((tie) => ({
    dir: fc.dictionary(fc.constantFrom("a", "b", "c"), tie("value"), { depthIdentifier: "tree" }),
    value: fc.oneof({ depthIdentifier: "tree", maxDepth: 4 }, fc.constantFrom("x", "y"), tie("dir")),
  })).dir;
  const anyPattern = fc.constantFrom("a", "b/c", "/a/b", "/a/**/c", "c/*", "/*/c", "**");
  await fc.assert(
    fc.asyncProperty(
      fc.array(anySample, { maxLength: 5 }),
      fc.array(anyPattern, { minLength: 1, maxLength: 2 }),
      async (samples, patterns) => {
        const trees = new SampleTrees();
        const snapshots = samples.map((sample, place) => snapshotOf(trees, sample, place));
        const query = names(...patterns);
        const alone: string[] = [];
        for (const snapshot of snapshots) alone.push(...(await find(trees, [snapshot], query)));
        assert.deepEqual(await find(trees, snapshots, query), alone);
        const wanted = { kind: "objects", isBlob: matchIdPrefixes(["5", "a", "2d"]), isTree: matchIdPrefixes(["0", "7", "c"]) } as const;
        const objects: string[] = [];
        for (const snapshot of snapshots) objects.push(...(await find(trees, [snapshot], wanted)));
        assert.deepEqual(await find(trees, snapshots, wanted), objects);
      },
    ),
    { numRuns: 60 },
  );
});

test("findEntries() remembers a folder without matches by its path too: elsewhere a pattern may match in it", async () => {
  const trees = new SampleTrees();
  const inside = { b: { c: "x" } };
  const snapshots = [{ other: inside }, { a: inside }].map((sample, place) => snapshotOf(trees, sample, place));
  assert.deepEqual(await find(trees, snapshots, names("/a/b/c")), ["1 /a/b/c"]);
});

test("findEntries() does not load a snapshot again that is known to hold nothing", async () => {
  const trees = new SampleTrees();
  const snapshots = [0, 1, 2].map((place) => snapshotOf(trees, { a: { b: "x" }, c: { d: "y" } }, place));
  assert.deepEqual(await find(trees, snapshots, names("nothing")), []);
  assert.equal(trees.loads, 3);
});

test("findEntries() reports a folder that cannot be read in each snapshot, and never takes it for empty", async () => {
  const trees = new SampleTrees();
  const snapshots = [0, 1].map((place) => snapshotOf(trees, { a: { lost: { b: "x" } }, z: { b: "y" } }, place));
  const lost = trees.add({ b: "x" });
  const bytes = trees.blobs.get(hexOf(lost));
  trees.blobs.delete(hexOf(lost));
  assert.deepEqual(await find(trees, snapshots, names("b")), ["0 unreadable /a/lost", "0 /z/b", "1 unreadable /a/lost", "1 /z/b"]);
  assert.deepEqual(await find(trees, snapshots, names("nothing")), ["0 unreadable /a/lost", "1 unreadable /a/lost"]);
  trees.blobs.set(hexOf(lost), bytes ?? assert.fail());
  assert.deepEqual(await find(trees, snapshots.slice(0, 1), names("b")), ["0 /a/lost/b", "0 /z/b"]);
});
