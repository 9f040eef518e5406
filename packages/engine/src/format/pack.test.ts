import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { parsePackId } from "./ids.ts";
import {
  type HeaderEntry,
  headerEntryBytes,
  MAX_HEADER_BYTES,
  MAX_HEADER_ENTRIES,
  parseHeader,
  parseHeaderLength,
  SEAL_BYTES,
  writeHeaderEntry,
  writeUint32,
} from "./pack.ts";

const id = parsePackId("ab12".repeat(16));

const anyEntry = fc.record({
  type: fc.constantFrom("data" as const, "tree" as const),
  id: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  sealedBytes: fc.integer({ min: 32, max: 2 ** 32 - 1 }),
  plainBytes: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 32 - 1 })),
});

function encodeHeader(entries: readonly Omit<HeaderEntry, "offsetBytes">[]): Uint8Array {
  const plain = new Uint8Array(entries.reduce((sum, entry) => sum + headerEntryBytes(entry.plainBytes), 0));
  let at = 0;
  for (const entry of entries) at = writeHeaderEntry(plain, at, entry);
  assert.equal(at, plain.length);
  return plain;
}

function packSize(entries: readonly Pick<HeaderEntry, "sealedBytes">[], plain: Uint8Array): number {
  return entries.reduce((sum, entry) => sum + entry.sealedBytes, plain.length + SEAL_BYTES + 4);
}

function lengthField(value: number): Uint8Array {
  const tail = new Uint8Array(10);
  writeUint32(tail, 6, value);
  return tail;
}

test("parseHeader() gives back the entries that writeHeaderEntry() wrote, with running offsets", () => {
  fc.assert(
    fc.property(fc.array(anyEntry, { minLength: 1, maxLength: 20 }), (entries) => {
      const plain = encodeHeader(entries);
      const header = parseHeader(plain, { id, sizeBytes: packSize(entries, plain) });
      let offsetBytes = 0;
      const expected = entries.map((entry) => {
        const located = { ...entry, offsetBytes };
        offsetBytes += entry.sealedBytes;
        return located;
      });
      assert.deepEqual([...header.entries()], expected);
      assert.equal(header.treeBlobs, entries.filter((entry) => entry.type === "tree").length);
      assert.equal(header.dataBlobs + header.treeBlobs, entries.length);
    }),
  );
});

test("parseHeader() refuses a header that does not account for each byte of the pack", () => {
  const entries = [
    { type: "data" as const, id: randomBytes(32), sealedBytes: 100, plainBytes: 0 },
    { type: "data" as const, id: randomBytes(32), sealedBytes: 200, plainBytes: 5000 },
  ];
  const plain = encodeHeader(entries);
  const sizeBytes = packSize(entries, plain);
  const refuse = (bytes: Uint8Array, size: number, message: RegExp): void => {
    assert.throws(() => parseHeader(bytes, { id, sizeBytes: size }), { code: "PackInvalid", kind: "corrupt", message });
  };
  refuse(plain, sizeBytes + 1, /Cannot read pack "ab12.*": blobs and header take 414 bytes, but the file has 415/);
  refuse(plain, sizeBytes - 1, /but the file has 413/);
  refuse(new Uint8Array(0), 36, /no entries/);
  refuse(plain.subarray(0, plain.length - 1), sizeBytes - 1, /entry 1 has 40 bytes left, 41 needed/);
  refuse(Uint8Array.from([...plain, 0]), sizeBytes + 1, /entry 2 has 1 bytes left, 37 needed/);
  refuse(Uint8Array.from([4, ...plain.subarray(1)]), sizeBytes, /entry 0 has type 4/);
  refuse(encodeHeader([{ type: "tree", id: randomBytes(32), sealedBytes: 31, plainBytes: 0 }]), 104, /blob 0 is 31 bytes, at least 32/);
  const empty = encodeHeader(entries);
  writeUint32(empty, 37 + 5, 0);
  refuse(empty, sizeBytes, /compressed from 0 bytes/);
  refuse(new Uint8Array(MAX_HEADER_BYTES), MAX_HEADER_BYTES + 36, /at most 16777216 allowed/);
});

test("parseHeader() copes with the largest header there may be", () => {
  const entry = { type: "data" as const, id: randomBytes(32), sealedBytes: 33, plainBytes: 1 };
  const plain = encodeHeader(Array.from({ length: MAX_HEADER_ENTRIES }, () => entry));
  const header = parseHeader(plain, { id, sizeBytes: plain.length + MAX_HEADER_ENTRIES * 33 + 36 });
  assert.equal(header.dataBlobs, MAX_HEADER_ENTRIES);
  assert.equal(plain.length + SEAL_BYTES <= MAX_HEADER_BYTES, true);
});

test("parseHeaderLength() believes no length that cannot be", () => {
  const refuse = (tail: Uint8Array, sizeBytes: number, message: RegExp): void => {
    assert.throws(() => parseHeaderLength(tail, { id, sizeBytes }), { code: "PackInvalid", message });
  };
  assert.equal(parseHeaderLength(lengthField(69), { id, sizeBytes: 73 }), 69);
  assert.equal(parseHeaderLength(lengthField(MAX_HEADER_BYTES), { id, sizeBytes: 2 ** 31 }), MAX_HEADER_BYTES);
  refuse(lengthField(12), 5000, /header is 12 bytes, at least 69 needed/);
  refuse(lengthField(0), 5000, /header is 0 bytes/);
  refuse(lengthField(4997), 5000, /header is 4997 bytes, but the file only 5000/);
  refuse(lengthField(MAX_HEADER_BYTES + 1), 2 ** 31, /at most 16777216 allowed/);
  refuse(lengthField(0xffffffff), 2 ** 31, /header is 4294967295 bytes/);
  refuse(lengthField(69), 72, /file is 72 bytes, at least 73 needed/);
  refuse(lengthField(69), 2 ** 32, /at most 4294967295 allowed/);
  refuse(new Uint8Array(3), 5000, /at least 73/);
});

test("parseHeader() meets any bytes with entries or with PackInvalid", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(2 ** 32), fc.constantFrom(0, 1, 2, 3), (bytes, sizeBytes, kind) => {
      bytes[0] = kind;
      try {
        parseHeader(bytes, { id, sizeBytes });
      } catch (error) {
        assert.equal(error instanceof Error && "code" in error && error.code, "PackInvalid");
      }
    }),
  );
});
