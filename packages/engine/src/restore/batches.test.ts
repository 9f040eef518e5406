import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BlobIndex } from "../repository/blob-index.ts";
import { planBatches } from "./batches.ts";
import { action, EntryTable, kind, type NewEntry } from "./entry-table.ts";

const entry: NewEntry = {
  kind: kind.file,
  action: action.create,
  flags: 0,
  parent: 0,
  name: "file",
  permissions: 0o644,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  atimeSeconds: 0,
  atimeNanos: 0,
  sizeBytes: 0,
  pieces: 1,
};

/** A table of one file and one link, and the pieces given as [pack, offset, whether of the link]. */
function build(pieces: readonly (readonly [number, number, boolean])[]): { table: EntryTable; index: BlobIndex } {
  const table = EntryTable.create(1 << 24);
  const index = new BlobIndex();
  const id = Buffer.alloc(32);
  for (let pack = 0; pack < 5; pack++) index.addPack(id);
  index.add(id, 0, { pack: 0, offsetBytes: 0, sealedBytes: 132, plainBytes: 0, isTree: false });
  table.add({ ...entry, kind: kind.directory, parent: -1 }, new Uint8Array(0));
  const file = table.add(entry, new Uint8Array(0));
  const link = table.add({ ...entry, action: action.link }, new Uint8Array(0));
  for (const [pack, packOffsetBytes, isOfLink] of pieces) {
    table.setPiece(table.takePieces(1), { pack, packOffsetBytes, blob: 0, entry: isOfLink ? link : file, fileOffsetBytes: 7 });
  }
  return { table, index };
}

test("planBatches() has each piece in one batch, by pack and offset, and leaves out those of links", () => {
  const piece = fc.tuple(fc.nat(4), fc.nat(2 ** 32 - 1), fc.boolean());
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 4000, size: "max" }), (pieces) => {
      const { table, index } = build(pieces);
      const { tasks, bytes } = planBatches(table, index);
      const found = tasks.flatMap(({ order, from, to }) => {
        assert.ok(to > from && to - from <= 1024);
        const batch = [...new Uint32Array(order).slice(from, to)].map(
          (number) => [table.packOf(number), table.packOffsetOf(number)] as const,
        );
        assert.equal(new Set(batch.map(([pack]) => pack)).size, 1);
        const offsets = batch.map(([, offset]) => offset);
        assert.ok(
          (offsets.at(-1) ?? 0) - (offsets[0] ?? 0) <= 4 << 20 ||
            offsets.length <= 2 ||
            offsets.slice(0, -1).every((offset) => offset - (offsets[0] ?? 0) < 4 << 20),
        );
        return batch;
      });
      const wanted = pieces.filter(([, , isOfLink]) => !isOfLink).map(([pack, offset]) => [pack, offset] as const);
      assert.deepEqual(
        found,
        wanted.sort(([a, b], [c, d]) => a - c || b - d),
      );
      assert.equal(bytes, wanted.length * 100);
    }),
    { seed: 20_261_123, numRuns: 60 },
  );
});

test("planBatches() does nothing when there is nothing to write", () => {
  const { table, index } = build([]);
  assert.deepEqual(planBatches(table, index), { tasks: [], bytes: 0 });
});
