import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeIndex, INDEX_ENTRY_BYTES, type IndexPack, scanIndex, writeIndexEntry } from "./index-file.ts";
import type { HeaderEntry } from "./pack.ts";

interface SeenPack {
  readonly id: string;
  readonly blobs: SeenBlob[];
}
interface SeenBlob {
  readonly id: string;
  readonly isTree: boolean;
  readonly offsetBytes: number;
  readonly sealedBytes: number;
  readonly plainBytes: number;
}

function scan(index: string | Uint8Array): SeenPack[] {
  const packs: SeenPack[] = [];
  scanIndex(Buffer.from(index), {
    pack: (id) => packs.push({ id: Buffer.from(id).toString("hex"), blobs: [] }),
    blob: (blob) => packs.at(-1)?.blobs.push({ ...blob, id: Buffer.from(blob.id).toString("hex") }),
  });
  return packs;
}

function pack(id: Uint8Array, entries: readonly HeaderEntry[]): IndexPack {
  const packed = new Uint8Array(entries.length * INDEX_ENTRY_BYTES);
  let at = 0;
  for (const entry of entries) at = writeIndexEntry(packed, at, entry);
  assert.equal(at, packed.length);
  return { packId: id, entries: packed };
}

function seen({ id, entries }: { id: Uint8Array; entries: readonly HeaderEntry[] }): SeenPack {
  return {
    id: Buffer.from(id).toString("hex"),
    blobs: entries.map(({ type, ...rest }) => ({ ...rest, id: Buffer.from(rest.id).toString("hex"), isTree: type === "tree" })),
  };
}

const anyId = fc.uint8Array({ minLength: 32, maxLength: 32 });
const anyEntry: fc.Arbitrary<HeaderEntry> = fc
  .tuple(
    fc.integer({ min: 32, max: 2 ** 32 - 1 }),
    fc.nat(2 ** 32 - 1),
    fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 32 - 1 })),
    anyId,
    fc.boolean(),
  )
  .map(([sealedBytes, offset, plainBytes, id, isTree]) => ({
    type: isTree ? "tree" : "data",
    id,
    sealedBytes,
    plainBytes,
    offsetBytes: Math.min(offset, 2 ** 32 - 1 - sealedBytes),
  }));
const anyPacks = fc.array(fc.record({ id: anyId, entries: fc.array(anyEntry, { maxLength: 5 }) }), { maxLength: 4 });

const id = "ab".repeat(32);
const other = "cd".repeat(32);

test("scanIndex() finds what encodeIndex() wrote, and any JSON parser does too", () => {
  fc.assert(
    fc.property(anyPacks, (packs) => {
      const bytes = encodeIndex(packs.map(({ id: packId, entries }) => pack(packId, entries)));
      const expected = packs.map(seen);
      assert.deepEqual(scan(bytes), expected);
      const parsed: unknown = JSON.parse(bytes.toString());
      assert.deepEqual(scan(JSON.stringify(parsed, null, 2)), expected);
      assert.equal(bytes.toString(), `${JSON.stringify(parsed)}\n`);
    }),
  );
});

test("encodeIndex() writes restic's fields in restic's order", () => {
  const entries: HeaderEntry[] = [
    { type: "data", id: Buffer.from(id, "hex"), offsetBytes: 0, sealedBytes: 4294967295, plainBytes: 0 },
    { type: "tree", id: Buffer.from(other, "hex"), offsetBytes: 10, sealedBytes: 99, plainBytes: 4294967295 },
  ];
  assert.equal(
    encodeIndex([pack(Buffer.from(other, "hex"), entries), pack(Buffer.from(id, "hex"), [])]).toString(),
    `{"packs":[{"id":"${other}","blobs":[{"id":"${id}","type":"data","offset":0,"length":4294967295},` +
      `{"id":"${other}","type":"tree","offset":10,"length":99,"uncompressed_length":4294967295}]},{"id":"${id}","blobs":[]}]}\n`,
  );
  assert.equal(encodeIndex([]).toString(), '{"packs":[]}\n');
});

test("encodeIndex() refuses ids and entries of another length", () => {
  assert.throws(() => encodeIndex([{ packId: new Uint8Array(31), entries: new Uint8Array(0) }]), { code: "Bug" });
  assert.throws(() => encodeIndex([{ packId: new Uint8Array(32), entries: new Uint8Array(INDEX_ENTRY_BYTES + 1) }]), { code: "Bug" });
});

test("scanIndex() ignores what it does not know, reads the first form, and copes with ids that come last", () => {
  const blob = `{"length":40,"x":{"id":"?"},"offset":7, "type":"tree","id":"${id}","uncompressed_length":null}`;
  const expected = [{ id: other, blobs: [{ id, isTree: true, offsetBytes: 7, sealedBytes: 40, plainBytes: 0 }] }];
  assert.deepEqual(
    scan(`{"supersedes":["${id}"],"packs":[{"id":"${other}","blobs":[${blob}],"time":null}],"packs_to_delete":[1]}`),
    expected,
  );
  assert.deepEqual(scan(`[{"id":"${other}","blobs":[${blob}]}]`), expected);
  assert.deepEqual(scan(`{"packs":[{"blobs":[${blob}],"id":"${other}"}]}`), expected);
  assert.deepEqual(scan(`{"packs":[{"id":"${other}","blobs":null},{"id":"${id}"}]}`), [
    { id: other, blobs: [] },
    { id, blobs: [] },
  ]);
  assert.deepEqual(scan('{"packs":null}'), []);
  assert.deepEqual(scan("[]"), []);
});

test("scanIndex() refuses what is no index, and says where", () => {
  const good = { id, type: "data", offset: 0, length: 32 };
  const wrong: (object | string)[] = [
    "",
    "{}",
    "null",
    "5",
    '{"packs":[]}x',
    '{"packs":[],}',
    '{"packs":[],"packs":[]}',
    '{"packs":{}}',
    '{"packs":[',
    '{"packs":[{}]}',
    '{"packs":[null]}',
    '{"packs":[{"blobs":[]}]}',
    `{"packs":[{"id":"${id}","id":"${id}"}]}`,
    `{"packs":[{"id":"${id}","blobs":[],"blobs":[]}]}`,
    `{"packs":[{"id":"${id}","blobs":{}}]}`,
    `{"packs":[{"id":"${id}","blobs":[]},]}`,
    `{"packs":[{"id":"${id.slice(1)}","blobs":[]}]}`,
    `{"packs":[{"id":"${id.toUpperCase()}","blobs":[]}]}`,
    `{"packs":[{"id":"${id}","blobs":[null]}]}`,
    `{"packs":[{"id":"${id}","blobs":[{"id":"${id}","type":"data","offset":0,"length":32},]}]}`,
    `{"packs":[{"id":"${id}","blobs":[{"id":"${id}","type":"data","offset":0,"length":032}]}]}`,
    `{"packs":[{"id":"${id}","blobs":[{"id":"${id}","type":"data","offset":0,"length":32`,
    { ...good, id: id.slice(2) },
    { ...good, id: `${id.slice(1)}\n` },
    { ...good, id: undefined },
    { ...good, id: null },
    { ...good, type: "blob" },
    { ...good, type: "datax" },
    { ...good, type: undefined },
    { ...good, offset: -1 },
    { ...good, offset: 1.5 },
    { ...good, offset: "0" },
    { ...good, offset: undefined },
    { ...good, offset: 2 ** 32 - 32 },
    { ...good, offset: 9_999_999_999 },
    { ...good, offset: 10_000_000_000 },
    { ...good, length: 31 },
    { ...good, length: undefined },
    { ...good, length: 2 ** 32 },
    { ...good, length: 1e21 },
    { ...good, uncompressed_length: 2 ** 32 },
    { ...good, uncompressed_length: -1 },
    { ...good, uncompressed_length: "1" },
  ];
  for (const value of wrong) {
    const text = typeof value === "string" ? value : JSON.stringify({ packs: [{ id, blobs: [value] }] });
    assert.throws(
      () => scan(text),
      { code: "IndexInvalid", kind: "corrupt", message: /Cannot read index: found .* at byte \d+ of \d+, .* needed/ },
      text,
    );
  }
});

test("scanIndex() accepts the blob that ends last", () => {
  const text = JSON.stringify({ packs: [{ id, blobs: [{ id, type: "data", offset: 2 ** 32 - 33, length: 32 }] }] });
  assert.equal(scan(text)[0]?.blobs[0]?.offsetBytes, 2 ** 32 - 33);
});
