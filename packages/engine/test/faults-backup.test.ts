/**
 * Backups on a store that fails: whatever fails and whenever, no snapshot refers to what is not there, and the next try succeeds with what
 * the failed one left behind.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { createFaultyStore, createMemoryStore, type FaultMode, type FaultRule } from "../src/testing.ts";
import type { FileKind, Store } from "../src/store/store.ts";
import { loadSnapshots } from "../src/repository/snapshots.ts";
import { fillBytes } from "./sample-tree.ts";
import { diffRecords, recordFolder, recordSnapshot } from "./tree-record.ts";
import { Workbench } from "./workbench.ts";

/** Some 3 MiB in files and folders: a dozen packs of data and some of trees, when packs are small. */
function fillSource(bench: Workbench): void {
  for (let folder = 0; folder < 12; folder++) {
    const path = `${bench.source}/folder ${folder}`;
    mkdirSync(path);
    for (let file = 0; file < 25; file++) writeFileSync(`${path}/file ${file}`, fillBytes(10_000, `${folder} ${file}`));
  }
}

const smallPacks = { packBytes: 200_000, workers: 2 };

/** Every snapshot can be read to its last byte, and is what the source is. */
async function expectWhole(bench: Workbench, store: Store): Promise<number> {
  const repository = await bench.open(store);
  const snapshots = await loadSnapshots(repository);
  const source = recordFolder(bench.source);
  for (const { tree } of snapshots) assert.deepEqual(diffRecords(source, await recordSnapshot(repository, tree, bench.source)), []);
  return snapshots.length;
}

async function countSaves(bench: Workbench, kind: FileKind): Promise<number> {
  const store = createFaultyStore(createMemoryStore());
  await bench.create(store);
  await bench.backUp({ store, ...smallPacks });
  return store.calls.filter((call) => call.operation === "save" && call.kind === kind).length;
}

const codeOf: Readonly<Partial<Record<FaultMode, string>>> = { before: "StoreFull", midway: "StoreUnavailable", after: "StoreUnavailable" };

for (const kind of ["pack", "index", "snapshot"] as const) {
  test(`a backup whose n-th save of a ${kind} fails leaves no snapshot that lacks anything, and succeeds when tried again`, async () => {
    using bench = new Workbench("faults");
    fillSource(bench);
    const saves = await countSaves(bench, kind);
    assert.ok(saves >= (kind === "pack" ? 12 : 1), `${saves} saves`);
    for (const mode of ["before", "midway", "after"] as const) {
      for (let nth = 1; nth <= saves; nth++) {
        const inner = createMemoryStore();
        await bench.create(inner);
        const code = codeOf[mode] ?? "";
        const plan: FaultRule[] = [{ operation: "save", kind, nth, mode, code }];
        const failed = bench.backUp({ store: createFaultyStore(inner, plan), ...smallPacks });
        await assert.rejects(failed, (error) => isFailure(error, code), `${mode} save ${nth} of ${saves}`);
        // The answer was lost after the snapshot was there: then it is there, and whole.
        assert.equal(await expectWhole(bench, inner), kind === "snapshot" && mode === "after" ? 1 : 0);
        const again = await bench.backUp({ store: inner, ...smallPacks });
        assert.ok(again.snapshotId);
        await expectWhole(bench, inner);
      }
    }
  });
}
