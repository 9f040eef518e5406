import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { createScratch, failsWith, flip, listNames, spoil } from "../repository/scratch.ts";
import type { Repository } from "../repository/repository.ts";
import { createFaultyStore, type FaultRule } from "../store/faulty.ts";
import type { Store } from "../store/store.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { checkRepository } from "./check.ts";
import {
  encodePlainTree,
  hashOf,
  type IndexedPack,
  type PlainBlob,
  plainSnapshot,
  readEverything,
  readPlainFiles,
  savePlainFile,
  savePlainPack,
} from "./plain-repository.ts";
import { planPrune, type PlanPruneOptions, type PruneReport, runPrune } from "./prune.ts";

const keepNothing = { maxUnused: { kind: "size", sizeBytes: 0 }, workers: 1, packBytes: 64 * 1024 } satisfies PlanPruneOptions;

async function prune(repository: Repository, options: PlanPruneOptions = keepNothing): Promise<PruneReport> {
  return await runPrune(repository, await planPrune(repository, options), { workers: 1 });
}

/** Bytes that no other number gives. */
function content(number: number, sizeBytes = 300): Buffer {
  return Buffer.alloc(sizeBytes, `content ${number} `);
}

function data(...numbers: readonly number[]): PlainBlob[] {
  return numbers.map((number) => ({ type: "data", plain: content(number) }));
}

interface Sample {
  readonly repository: Repository;
  readonly snapshots: readonly string[];
  readonly packs: readonly IndexedPack[];
}

/** Two snapshots: the first needs blobs 1 to 4, the second 3 to 6; they lie in packs as given, each pack in an index file of its own. */
async function createSample(
  layout: readonly (readonly number[])[] = [
    [1, 2],
    [3, 4],
    [5, 6],
  ],
  store?: Store,
): Promise<Sample> {
  const repository = await createScratch(store);
  const trees = [
    encodePlainTree({ a: [content(1), content(2)], b: [content(3), content(4)] }),
    encodePlainTree({ b: [content(3), content(4)], c: [content(5), content(6)] }),
  ];
  const packs: IndexedPack[] = [];
  for (const numbers of layout) packs.push(await savePlainPack(repository, data(...numbers)));
  for (const plain of trees) packs.push(await savePlainPack(repository, [{ type: "tree", plain }]));
  for (const pack of packs) await savePlainFile(repository, "index", { packs: [pack] });
  const snapshots = [];
  for (const [i, tree] of trees.entries()) snapshots.push(await savePlainFile(repository, "snapshot", plainSnapshot(tree, i)));
  return { repository, snapshots, packs };
}

async function forget(repository: Repository, snapshot: string | undefined): Promise<void> {
  await repository.store.remove({ kind: "snapshot", name: snapshot ?? "" });
}

async function spoilPack(repository: Repository, pack: IndexedPack | undefined, at: number): Promise<void> {
  const change = (bytes: Uint8Array): Uint8Array => Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte));
  await spoil(repository.store, { kind: "pack", name: pack?.id ?? "" }, change);
}

async function assertWhole(repository: Repository): Promise<void> {
  const { errors } = await checkRepository(repository, { readData: { kind: "all" }, workers: 1 });
  assert.deepEqual(
    errors.map(({ message }) => message),
    [],
  );
}

describe("prune", () => {
  test("changes nothing where everything is needed", async () => {
    const { repository } = await createSample();
    const before = [await listNames(repository.store, "pack"), await listNames(repository.store, "index")];
    const report = await prune(repository);
    assert.deepEqual([await listNames(repository.store, "pack"), await listNames(repository.store, "index")], before);
    assert.equal(report.packsRemoved + report.indexesWritten + report.indexesRemoved, 0);
  });

  test("removes packs of which nothing is needed, and their entries", async () => {
    const { repository, snapshots, packs } = await createSample();
    await forget(repository, snapshots[0]);
    const left = await readEverything(repository);
    const report = await prune(repository);
    assert.equal(report.packsRemoved, 2); // the data of the first snapshot only, and its tree
    assert.equal(report.packsRepacked, 0);
    assert.ok(!(await listNames(repository.store, "pack")).includes(packs[0]?.id ?? ""));
    assert.deepEqual(await readEverything(repository), left);
    await assertWhole(repository);
  });

  test("repacks what is partly needed, within the bound", async () => {
    const { repository, snapshots } = await createSample([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    await forget(repository, snapshots[0]);
    const left = await readEverything(repository);
    const lazy = await planPrune(repository, { workers: 1, maxUnused: { kind: "unlimited" } });
    assert.equal(lazy.summary.packs.repack, 0);
    assert.equal(lazy.summary.packs.remove, 1); // the tree
    const plan = await planPrune(repository, keepNothing);
    assert.deepEqual(plan.summary.packs, { keep: 2, remove: 1, replace: 0, repack: 1, unreferenced: 0 });
    const report = await runPrune(repository, plan, { workers: 1 });
    assert.equal(report.packsWritten, 1);
    assert.deepEqual(await readEverything(repository), left);
    const { counts, notes } = await checkRepository(repository, { workers: 1, checkUnused: true, readData: { kind: "all" } });
    assert.equal(counts.dataBlobs, 4);
    assert.deepEqual(notes, []);
  });

  test("says what it would do, and does nothing, when only planned", async () => {
    const { repository, snapshots } = await createSample([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const stray = await savePlainPack(repository, data(77));
    const before = await listNames(repository.store, "pack");
    const plan = await planPrune(repository, { ...keepNothing, ignoreSnapshots: new Set(snapshots.slice(0, 1)) as never });
    assert.deepEqual(
      plan.unreferenced.map(({ packId }) => packId),
      [stray.id],
    );
    assert.equal(plan.summary.snapshots, 1);
    assert.equal(plan.summary.usedBlobs, 5);
    assert.equal(plan.summary.unusedBlobs, 3);
    assert.ok(plan.summary.repackFreesBytes > 0 && plan.summary.removeBytes > 0);
    assert.deepEqual(JSON.parse(JSON.stringify(plan)), plan);
    assert.deepEqual(await listNames(repository.store, "pack"), before);
  });

  test("can run a plan once", async () => {
    const { repository } = await createSample();
    const plan = await planPrune(repository, keepNothing);
    await runPrune(repository, plan, { workers: 1 });
    await assert.rejects(runPrune(repository, plan), failsWith("InvalidArgument", /it was run before/));
  });

  test("removes packs that no index file lists", async () => {
    const { repository } = await createSample();
    const stray = await savePlainPack(repository, data(77));
    await prune(repository);
    assert.ok(!(await listNames(repository.store, "pack")).includes(stray.id));
    await assertWhole(repository);
  });

  test("keeps one copy of what is stored twice: in the pack that has most of what is nowhere else", async () => {
    const { repository, packs } = await createSample([
      [1, 2],
      [1, 2, 3, 4],
      [4, 5, 6],
    ]);
    const left = await readEverything(repository);
    const plan = await planPrune(repository, keepNothing);
    assert.equal(plan.summary.redundantBlobs, 3);
    const actionOf = (i: number): string | undefined => plan.packs.find(({ packId }) => packId === packs[i]?.id)?.action;
    assert.deepEqual([actionOf(0), actionOf(1), actionOf(2)], ["replace", "repack", "keep"]);
    await runPrune(repository, plan, { workers: 1 });
    assert.deepEqual(await readEverything(repository), left);
    const { counts } = await checkRepository(repository, { workers: 1, readData: { kind: "all" } });
    assert.equal(counts.duplicates, 0);
    await assertWhole(repository);
  });

  test("decides the same whatever order index files come in", async () => {
    const { repository } = await createSample([
      [1, 2, 3],
      [3, 4, 1],
      [2, 4, 5, 6],
      [5, 6],
    ]);
    const actions = async (): Promise<unknown> =>
      (await planPrune(repository, keepNothing)).packs.map(({ packId, action }) => `${packId} ${action}`).sort();
    const first = await actions();
    const indexes = [...(await readPlainFiles(repository, "index"))].reverse();
    for (const [name] of indexes) await repository.store.remove({ kind: "index", name });
    for (const [, json] of indexes) await savePlainFile(repository, "index", json);
    assert.deepEqual(await actions(), first);
  });

  test("compresses what is not, when asked to", async () => {
    const repository = await createScratch();
    const tree = encodePlainTree({ a: [content(1), content(2)] });
    const loose = await savePlainPack(
      repository,
      data(1, 2).map((blob) => ({ ...blob, compress: false })),
    );
    const trees = await savePlainPack(repository, [{ type: "tree", plain: tree }]);
    await savePlainFile(repository, "index", { packs: [loose, trees] });
    await savePlainFile(repository, "snapshot", plainSnapshot(tree, 1));
    const left = await readEverything(repository);
    assert.equal((await planPrune(repository, keepNothing)).summary.packs.repack, 0);
    const report = await prune(repository, { ...keepNothing, repackUncompressed: true });
    assert.equal(report.packsRepacked, 1);
    assert.ok(report.bytesWritten < 500);
    assert.deepEqual(await readEverything(repository), left);
    assert.equal((await planPrune(repository, { ...keepNothing, repackUncompressed: true })).summary.packs.repack, 0);
  });

  test("parts packs that hold data and trees, as version 1 wrote them", async () => {
    const repository = await createScratch();
    const tree = encodePlainTree({ a: [content(1)] });
    const mixed = await savePlainPack(repository, [...data(1), { type: "tree", plain: tree }]);
    await savePlainFile(repository, "index", { packs: [mixed] });
    await savePlainFile(repository, "snapshot", plainSnapshot(tree, 1));
    const left = await readEverything(repository);
    const report = await prune(repository, { workers: 1, maxUnused: { kind: "unlimited" } });
    assert.deepEqual([report.packsRepacked, report.packsWritten], [1, 2]);
    assert.deepEqual(await readEverything(repository), left);
    const { notes } = await checkRepository(repository, { workers: 1 });
    assert.deepEqual(notes, []);
  });

  test("keeps a blob that is a file's content and a directory at once, as both", async () => {
    const repository = await createScratch();
    const inner = encodePlainTree({ leaf: [content(1)] });
    const outer = encodePlainTree({ copy: [inner], dir: inner });
    const dataPack = await savePlainPack(repository, [...data(1), { type: "data", plain: inner }, ...data(9)]);
    const treePack = await savePlainPack(repository, [
      { type: "tree", plain: inner },
      { type: "tree", plain: outer },
    ]);
    await savePlainFile(repository, "index", { packs: [dataPack, treePack] });
    await savePlainFile(repository, "snapshot", plainSnapshot(outer, 1));
    const left = await readEverything(repository);
    await prune(repository);
    assert.deepEqual(await readEverything(repository), left);
    await assertWhole(repository);
  });
});

describe("prune refuses, and removes nothing, when something that is needed", () => {
  const cases: readonly { readonly name: string; readonly message: RegExp; readonly damage: (sample: Sample) => Promise<void> }[] = [
    {
      name: "is in an index file that is damaged",
      message: /index/,
      damage: async ({ repository }) =>
        spoil(repository.store, { kind: "index", name: (await listNames(repository.store, "index"))[0] ?? "" }, flip),
    },
    {
      name: "is in a snapshot that is damaged",
      message: /snapshot/,
      damage: async ({ repository, snapshots }) => spoil(repository.store, { kind: "snapshot", name: snapshots[0] ?? "" }, flip),
    },
    {
      name: "is in a pack that is missing",
      message: /is missing/,
      damage: async ({ repository, packs }) => repository.store.remove({ kind: "pack", name: packs[1]?.id ?? "" }),
    },
    {
      name: "is in a pack that is cut short",
      message: /has \d+ bytes/,
      damage: async ({ repository, packs }) =>
        spoil(repository.store, { kind: "pack", name: packs[1]?.id ?? "" }, (bytes) => bytes.subarray(0, -1)),
    },
    {
      name: "is a tree that is damaged",
      message: /Tree "[0-9a-f]{64}".* in snapshot/,
      damage: async ({ repository, packs }) => spoilPack(repository, packs.at(-1), 30),
    },
    {
      name: "is below an entry that has no possible name",
      message: /no file name/,
      damage: async ({ repository }) => {
        const evil = encodePlainTree({ "../evil": [content(1)], fine: [content(2)] });
        await savePlainFile(repository, "index", { packs: [await savePlainPack(repository, [{ type: "tree", plain: evil }])] });
        await savePlainFile(repository, "snapshot", plainSnapshot(evil, 9));
      },
    },
    {
      name: "is in no index file",
      message: /no index file lists/,
      damage: async ({ repository, packs }) => {
        for (const [name, json] of await readPlainFiles(repository, "index")) {
          if (JSON.stringify(json).includes(packs[1]?.id ?? "?")) await repository.store.remove({ kind: "index", name });
        }
      },
    },
  ];
  for (const { name, message, damage } of cases) {
    test(name, async () => {
      const sample = await createSample();
      const { repository } = sample;
      await savePlainPack(repository, data(77)); // would go first
      await damage(sample);
      const before = await listNames(repository.store, "pack");
      await assert.rejects(planPrune(repository, keepNothing), failsWith("PruneUnsafe", message));
      assert.deepEqual(await listNames(repository.store, "pack"), before);
    });
  }

  test("is damaged where it would be copied from", async () => {
    const { repository, snapshots, packs } = await createSample([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    await forget(repository, snapshots[0]);
    const pack = packs[0];
    const at = (pack?.blobs[2]?.offset ?? 0) + 40;
    await spoilPack(repository, pack, at);
    const plan = await planPrune(repository, keepNothing);
    await assert.rejects(runPrune(repository, plan, { workers: 1 }), failsWith("PruneUnsafe", new RegExp(pack?.blobs[2]?.id ?? "?")));
    assert.ok((await listNames(repository.store, "pack")).includes(pack?.id ?? ""));
    const { errors } = await checkRepository(repository, { workers: 1 });
    assert.deepEqual(errors, []);
  });

  test("but takes another copy, where there is one", async () => {
    const { repository, snapshots, packs } = await createSample([
      [1, 2, 3, 4],
      [3, 5, 6],
    ]);
    await forget(repository, snapshots[0]);
    const left = await readEverything(repository);
    // Blob 3 is to be kept in the second pack, which has more of what is nowhere else, unless something there is not needed.
    const pack = packs[1];
    const offset = pack?.blobs.find(({ id }) => id === hashOf(content(3)))?.offset ?? 0;
    await spoilPack(repository, pack, offset + 40);
    const plan = await planPrune(repository, { ...keepNothing, repackSmall: true });
    assert.equal(plan.packs.find(({ packId }) => packId === pack?.id)?.action, "repack");
    await runPrune(repository, plan, { workers: 1 });
    assert.deepEqual(await readEverything(repository), left);
    await assertWhole(repository);
  });
});

/** The same repository through another store. */
function through(repository: Repository, store: Store): Repository {
  return { ...repository, store, index: new BlobIndex() };
}

describe("prune loses nothing, and the next prune completes it, when the store", () => {
  /** Prunes a sample that has something of everything, through a store with these faults. @returns the calls that change something */
  async function pruneWith(plan: readonly FaultRule[]): Promise<readonly string[]> {
    const { repository, snapshots } = await createSample([
      [1, 2, 3],
      [1, 4, 5, 6],
      [7, 8],
    ]);
    await savePlainPack(repository, data(77));
    await forget(repository, snapshots[0]);
    const left = await readEverything(repository);
    const faulty = createFaultyStore(repository.store, plan);
    const pruning = prune(through(repository, faulty));
    if (plan.length === 0) await pruning;
    else await assert.rejects(pruning, failsWith("StoreUnavailable"));
    assert.deepEqual(await readEverything(repository), left);
    await prune(repository);
    assert.deepEqual(await readEverything(repository), left);
    const { errors, notes } = await checkRepository(repository, { workers: 1, readData: { kind: "all" }, checkUnused: true });
    assert.deepEqual([errors, notes], [[], []]);
    return faulty.calls.map(({ operation }) => operation).filter((operation) => operation === "save" || operation === "remove");
  }

  test("does not fail at all", async () => {
    const calls = await pruneWith([]);
    assert.deepEqual([calls.filter((call) => call === "save").length, calls.filter((call) => call === "remove").length], [3, 11]);
  });

  for (const [operation, calls] of [
    ["save", 3],
    ["remove", 11],
  ] as const) {
    for (let from = 1; from <= calls; from++) {
      const mode = from % 2 === 1 ? "after" : "before";
      test(`fails from ${operation} ${from} on, ${mode} it was done`, async () => {
        await pruneWith([{ operation, from, mode }]);
      });
    }
  }
});

test("prune never loses a needed blob, whatever snapshots there were, however they were stored, and whatever is forgotten", async () => {
  const blob = fc.nat(19);
  const file = fc.array(blob, { maxLength: 4 });
  const folder = fc.dictionary(fc.constantFrom("a", "b", "c", "d"), file, { maxKeys: 4 });
  const snapshot = fc.record({ top: folder, sub: folder, isForgotten: fc.boolean() });
  const scenario = fc.record({
    snapshots: fc.array(snapshot, { minLength: 1, maxLength: 5 }),
    /** In which packs each blob is: at least one, chosen by these numbers. */
    homes: fc.array(fc.tuple(fc.nat(5), fc.option(fc.nat(5))), { minLength: 20, maxLength: 20 }),
    isListedTwice: fc.boolean(),
    maxUnusedBytes: fc.constantFrom(0, 300, 1000, 100_000),
    maxRepackBytes: fc.constantFrom(0, 1000, Number.POSITIVE_INFINITY),
    repackSmall: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(scenario, async ({ snapshots, homes, isListedTwice, maxUnusedBytes, maxRepackBytes, repackSmall }) => {
      const repository = await createScratch();
      const packs: PlainBlob[][] = Array.from({ length: 6 }, () => []);
      homes.forEach(([first, second], number) => {
        packs[first]?.push(...data(number));
        if (second !== null && second !== first) packs[second]?.push(...data(number));
      });
      const listed = [];
      for (const blobs of packs) if (blobs.length > 0) listed.push(await savePlainPack(repository, blobs));
      const treePacks = [];
      const names = [];
      for (const [i, { top, sub }] of snapshots.entries()) {
        const files = (of: Record<string, number[]>): Record<string, Buffer[]> =>
          Object.fromEntries(Object.entries(of).map(([name, numbers]) => [name, numbers.map((number) => content(number))]));
        const inner = encodePlainTree(files(sub));
        const outer = encodePlainTree({ ...files(top), sub: inner });
        treePacks.push(
          await savePlainPack(repository, [
            { type: "tree", plain: inner },
            { type: "tree", plain: outer },
          ]),
        );
        names.push(await savePlainFile(repository, "snapshot", plainSnapshot(outer, i)));
      }
      await savePlainFile(repository, "index", { packs: listed });
      await savePlainFile(repository, "index", { packs: isListedTwice ? [...listed.slice(0, 2), ...treePacks] : treePacks });
      for (const [i, { isForgotten }] of snapshots.entries()) if (isForgotten) await forget(repository, names[i]);
      const left = await readEverything(repository);
      const options = { ...keepNothing, maxUnused: { kind: "size", sizeBytes: maxUnusedBytes }, maxRepackBytes, repackSmall } as const;
      const plan = await planPrune(repository, options);
      const report = await runPrune(repository, plan, { workers: 1 });
      assert.deepEqual(await readEverything(repository), left);
      const { errors, counts, notes } = await checkRepository(repository, { workers: 1, readData: { kind: "all" }, checkUnused: true });
      assert.deepEqual(errors, []);
      assert.equal(counts.unreferencedPacks, 0);
      assert.equal(report.packsRepacked, plan.summary.packs.repack);
      if (maxUnusedBytes === 0 && maxRepackBytes === Number.POSITIVE_INFINITY) {
        assert.ok(!notes.some(({ kind }) => kind === "blobUnused"));
        assert.equal(counts.duplicates, 0);
      }
    }),
    { numRuns: 25, seed: 20261120 },
  );
});
