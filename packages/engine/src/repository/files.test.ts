import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeFile } from "../format/file.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { listByPrefix, listFiles, loadFile, saveFile, type SealedKind } from "./files.ts";
import { createScratch, failsWith, flip, plant, spoil, truncate } from "./scratch.ts";

const kinds: readonly (readonly [kind: SealedKind, code: string])[] = [
  ["snapshot", "SnapshotInvalid"],
  ["index", "IndexInvalid"],
  ["lock", "LockInvalid"],
];

test("what saveFile() saves, loadFile() loads, under the hash of what is stored", async () => {
  const repository = await createScratch();
  for (const [kind] of kinds) {
    const json = Buffer.from(`{"kind":"${kind}"}`);
    const id = await saveFile(repository, { kind, json });
    assert.deepEqual(Buffer.from(await loadFile(repository, { kind, id })), json);
    assert.deepEqual(await Array.fromAsync(listFiles(repository.store, kind)), [
      { id, sizeBytes: (await repository.store.load({ kind, name: id })).length },
    ]);
  }
});

test("the same JSON saved twice makes two files, since no two seals are the same", async () => {
  const repository = await createScratch();
  const file = { kind: "snapshot", json: Buffer.from("{}") } as const;
  assert.notEqual(await saveFile(repository, file), await saveFile(repository, file));
});

test("repositories of version 1 get files that are not compressed", async () => {
  const repository = await createScratch();
  const old = { ...repository, config: { ...repository.config, version: 1 } };
  const json = Buffer.from(`{"a":"${"b".repeat(500)}"}`);
  const id = await saveFile(old, { kind: "snapshot", json });
  const stored = await repository.store.load({ kind: "snapshot", name: id });
  assert.equal(stored.length, json.length + 32);
  assert.deepEqual(Buffer.from(await loadFile(old, { kind: "snapshot", id })), json);
});

test("a file that was damaged or swapped under its name is named", async () => {
  for (const [kind] of kinds) {
    for (const change of [flip, truncate, () => new Uint8Array(0)]) {
      const repository = await createScratch();
      const id = await saveFile(repository, { kind, json: Buffer.from("{}") });
      await spoil(repository.store, { kind, name: id }, change);
      await assert.rejects(loadFile(repository, { kind, id }), failsWith("NameMismatch", new RegExp(`Cannot read ${kind} "${id}"`)));
    }
    const repository = await createScratch();
    const id = await saveFile(repository, { kind, json: Buffer.from('{"a":1}') });
    const other = await saveFile(repository, { kind, json: Buffer.from('{"b":2}') });
    const swapped = await repository.store.load({ kind, name: other });
    await spoil(repository.store, { kind, name: id }, () => swapped);
    await assert.rejects(loadFile(repository, { kind, id }), failsWith("NameMismatch", new RegExp(other)));
  }
});

test("a file that is whole but of another repository, or no file at all, is refused by the code of its kind", async () => {
  const repository = await createScratch();
  const foreign = await createScratch();
  for (const [kind, code] of kinds) {
    const contents = [
      encodeFile(foreign.sealer, Buffer.from("{}"), true),
      Buffer.from("hello"),
      repository.sealer.seal(Buffer.from("hello")),
    ];
    for (const bytes of contents) {
      const { name } = await plant(repository.store, kind, bytes);
      const [id] = await listByPrefix(repository.store, { kind, prefix: name });
      assert.ok(id !== undefined);
      await assert.rejects(loadFile(repository, { kind, id }), failsWith(code, new RegExp(`Cannot read ${kind} "${id}"`)));
    }
  }
});

test("a bit that flips on the way is found", async () => {
  const repository = await createScratch();
  const id = await saveFile(repository, { kind: "index", json: Buffer.from("{}") });
  const store = createFaultyStore(repository.store, [{ operation: "load", mode: "flip" }]);
  await assert.rejects(loadFile({ ...repository, store }, { kind: "index", id }), failsWith("NameMismatch"));
});

test("a bomb is refused before it fills the memory", async () => {
  const repository = await createScratch();
  const bomb = encodeFile(repository.sealer, Buffer.alloc(40 * 2 ** 20, 0x20), true);
  assert.ok(bomb.length < 10_000);
  const { name } = await plant(repository.store, "snapshot", bomb);
  const [id] = await listByPrefix(repository.store, { kind: "snapshot", prefix: name });
  assert.ok(id !== undefined);
  await assert.rejects(
    loadFile(repository, { kind: "snapshot", id }),
    failsWith("SnapshotInvalid", /decompresses to 41943040 bytes, at most/),
  );
});

test("listByPrefix() finds all ids that begin so, and none for nothing", async () => {
  const repository = await createScratch();
  const ids: string[] = [];
  for (let i = 0; i < 40; i++) ids.push(await saveFile(repository, { kind: "snapshot", json: Buffer.from("{}") }));
  const prefix = (ids[0] ?? "").slice(0, 1);
  assert.deepEqual(await listByPrefix(repository.store, { kind: "snapshot", prefix }), ids.filter((id) => id.startsWith(prefix)).sort());
  assert.deepEqual(await listByPrefix(repository.store, { kind: "snapshot", prefix: "" }), []);
  assert.deepEqual(await listByPrefix(repository.store, { kind: "index", prefix }), []);
});
