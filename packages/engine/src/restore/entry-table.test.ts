import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { isFailure } from "@granary/base/errors";
import { action, EntryTable, fact, FactPacker, flag, kind, packAttribute, unpackAttribute } from "./entry-table.ts";

const byteString = (maxLength: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: 1, maxLength }).map((bytes) => Buffer.from(bytes).latin1Slice());
const uint32 = fc.nat(2 ** 32 - 1);
const seconds = fc.integer({ min: -(2 ** 40), max: 2 ** 40 });

test("an entry and its facts come back as they were added, also through another thread's view", () => {
  const record = fc.record({
    kind: fc.constantFrom(kind.file, kind.directory, kind.symlink),
    action: fc.constantFrom(action.create, action.update, action.link),
    flags: fc.constantFrom(0, flag.needed, flag.needed | flag.present),
    name: byteString(255),
    permissions: fc.nat(0o7777),
    uid: uint32,
    gid: uint32,
    mtimeSeconds: seconds,
    mtimeNanos: fc.nat(999_999_999),
    atimeSeconds: seconds,
    atimeNanos: fc.nat(999_999_999),
    sizeBytes: fc.nat(2 ** 53 - 1),
    pieces: fc.nat(1000),
  });
  const facts = fc.array(fc.tuple(byteString(30), fc.uint8Array({ maxLength: 3000 })), { maxLength: 3 });
  const table = EntryTable.create(1 << 26);
  const other = EntryTable.attach(table.handle);
  table.add({ ...emptyRecord, kind: kind.directory, action: action.refresh, flags: 0, parent: -1, name: "" }, new Uint8Array(0));
  let parent = 0;
  fc.assert(
    fc.property(record, facts, (fields, attributes) => {
      const packer = new FactPacker();
      for (const [name, value] of attributes) packer.add(fact.attribute, packAttribute(name, value));
      packer.add(fact.device, Buffer.from("device"));
      const number = table.add({ ...fields, parent }, packer.finish());
      for (const view of [table, other]) {
        assert.deepEqual(
          {
            kind: view.kindOf(number),
            action: view.actionOf(number),
            flags: (view.hasFlag(number, flag.needed) ? flag.needed : 0) | (view.hasFlag(number, flag.present) ? flag.present : 0),
            name: view.nameOf(number),
            permissions: view.permissionsOf(number),
            uid: view.uidOf(number),
            gid: view.gidOf(number),
            mtimeSeconds: view.mtimeSecondsOf(number),
            mtimeNanos: view.mtimeNanosOf(number),
            atimeSeconds: view.atimeSecondsOf(number),
            atimeNanos: view.atimeNanosOf(number),
            sizeBytes: view.sizeOf(number),
            pieces: view.piecesLeftOf(number),
          },
          { ...fields },
        );
        assert.equal(view.parentOf(number), parent);
        assert.ok(view.pathOf(number).endsWith(`/${fields.name}`));
        const back = view.factsOf(number, fact.attribute).map(unpackAttribute);
        assert.deepEqual(
          back.map(({ name, value }) => [name, Uint8Array.from(value)]),
          attributes.map(([name, value]) => [name, Uint8Array.from(value)]),
        );
        assert.deepEqual(view.factsOf(number, fact.device).map(String), ["device"]);
        assert.deepEqual(view.factsOf(number, fact.linkTarget), []);
      }
      if (number % 3 === 0) parent = number;
    }),
    { seed: 20_261_124, numRuns: 400 },
  );
});

const emptyRecord = {
  permissions: 0,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  atimeSeconds: 0,
  atimeNanos: 0,
  sizeBytes: 0,
  pieces: 0,
};

test("threads that add entries at once do not get in each other's way", async () => {
  const table = EntryTable.create(1 << 26);
  const perThread = 5000;
  const code = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(workerData.url).then(({ EntryTable, kind, action }) => {
      const table = EntryTable.attach(workerData.handle);
      const fields = { kind: kind.file, action: action.create, flags: 0, parent: 0, permissions: 0, uid: 0, gid: 0, mtimeSeconds: 0,
        mtimeNanos: 0, atimeSeconds: 0, atimeNanos: 0, pieces: 0 };
      for (let at = 0; at < ${perThread}; at++) {
        const entry = table.add({ ...fields, name: workerData.thread + "-" + at, sizeBytes: at }, new Uint8Array(at % 50));
        table.setPiece(table.takePieces(1), { pack: workerData.thread, packOffsetBytes: at, blob: at, entry, fileOffsetBytes: at });
      }
    });`;
  const url = new URL("./entry-table.ts", import.meta.url).href;
  await Promise.all(
    [1, 2, 3].map(async (thread) => {
      const worker = new Worker(code, { eval: true, execArgv: ["--conditions=source"], workerData: { url, handle: table.handle, thread } });
      await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
    }),
  );
  const names = new Set<string>();
  for (let entry = 0; entry < table.entryLimit; entry++) {
    if (table.kindOf(entry) === kind.none) continue;
    assert.equal(table.nameOf(entry).split("-")[1], `${table.sizeOf(entry)}`);
    names.add(table.nameOf(entry));
  }
  assert.equal(names.size, 3 * perThread);
  const pieces = Array.from({ length: table.pieceLimit }, (_, piece) => piece).filter((piece) => table.packOf(piece) !== 0);
  assert.equal(new Set(pieces.map((piece) => `${table.packOf(piece)}-${table.packOffsetOf(piece)}`)).size, 3 * perThread);
  assert.ok(pieces.every((piece) => table.fileOffsetOf(piece) === table.blobOf(piece)));
});

test("a table that would outgrow its memory says so", () => {
  const table = EntryTable.create(1 << 20);
  assert.throws(
    () => {
      for (;;) table.add({ ...emptyRecord, kind: kind.file, action: action.create, flags: 0, parent: 0, name: "x" }, new Uint8Array(0));
    },
    (error) => isFailure(error, "RestoreTooLarge"),
  );
  assert.equal(table.entryLimit, (1 << 20) / 64);
});
