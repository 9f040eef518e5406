import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sha256 } from "../crypto/hash.ts";
import { hexOf } from "../format/ids.ts";
import { openPackReader } from "./pack-reader.ts";

class Folder {
  readonly path: string = mkdtempSync(join(tmpdir(), "granary packs ü-"));

  save(bytes: Buffer): Buffer {
    const id = sha256(bytes);
    const folder = `${this.path}/data/${hexOf(id).slice(0, 2)}`;
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/${hexOf(id)}`, bytes);
    return id;
  }

  fileOf(id: Uint8Array): string {
    return `${this.path}/data/${hexOf(id).slice(0, 2)}/${hexOf(id)}`;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

test("spans of many packs are read in any order, with few files open at a time", () => {
  using folder = new Folder();
  const contents = Array.from({ length: 60 }, () => randomBytes(5000));
  const ids = contents.map((bytes) => folder.save(bytes));
  const before = readdirSync("/proc/self/fd").length;
  const reader = openPackReader({ kind: "local", directory: folder.path });
  for (let round = 0; round < 500; round++) {
    const at = (round * 37) % 60;
    const offset = (round * 71) % 4000;
    const target = Buffer.alloc(1 + (round % 1000));
    reader.read(ids[at] ?? Buffer.alloc(32), offset, target);
    assert.deepEqual(target, contents[at]?.subarray(offset, offset + target.length));
    assert.ok(readdirSync("/proc/self/fd").length <= before + 17);
  }
  reader.close();
  assert.equal(readdirSync("/proc/self/fd").length, before);
});

test("a pack that is not there, or ends before the span does, is named in the failure", () => {
  using folder = new Folder();
  const id = folder.save(randomBytes(1000));
  const reader = openPackReader({ kind: "local", directory: folder.path });
  const gone = sha256(Buffer.from("gone"));
  assert.throws(() => reader.read(gone, 0, Buffer.alloc(1)), { code: "StoreFileNotFound", message: new RegExp(hexOf(gone)) });
  reader.read(id, 900, Buffer.alloc(100));
  assert.throws(() => reader.read(id, 900, Buffer.alloc(101)), {
    code: "StoreTruncated",
    message: /it ends at 1000, 101 bytes at 900 are needed/,
  });
  assert.throws(() => reader.read(id, 5000, Buffer.alloc(1)), { code: "StoreTruncated" });
  truncateSync(folder.fileOf(id), 10);
  assert.throws(() => reader.read(id, 900, Buffer.alloc(100)), { code: "StoreTruncated" });
  reader.close();
});

test("a pack that comes after it was missed is found, and one that is moved away stays readable while it is open", () => {
  using folder = new Folder();
  const bytes = randomBytes(100);
  const id = sha256(bytes);
  const reader = openPackReader({ kind: "local", directory: folder.path });
  const target = Buffer.alloc(100);
  assert.throws(() => reader.read(id, 0, target), { code: "StoreFileNotFound" });
  folder.save(bytes);
  reader.read(id, 0, target);
  assert.deepEqual(target, bytes);
  renameSync(folder.fileOf(id), `${folder.path}/elsewhere`);
  reader.read(id, 0, target);
  assert.deepEqual(target, bytes);
  reader.close();
});
