import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { performance } from "node:perf_hooks";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { encodeConfig, parseConfig } from "./config.ts";
import { quoteGo, unquoteGo } from "./go-quote.ts";
import { parseBlobId, parseKeyId, parseLockId, parsePackId, parseSnapshotId } from "./ids.ts";
import { encodeIndex, INDEX_ENTRY_BYTES, scanIndex, writeIndexEntry } from "./index-file.ts";
import { encodeKeyFile, encodeMasterKey, parseKeyFile, parseMasterKey } from "./key-file.ts";
import { encodeLock, parseLock } from "./lock.ts";
import { encodeNode, type TreeNode } from "./node.ts";
import { parseHeader, parseHeaderLength, writeHeaderEntry } from "./pack.ts";
import { parseNode } from "./parse-node.ts";
import { encodeSnapshot, parseSnapshot } from "./snapshot.ts";
import { parseTimeNs } from "./time.ts";
import { encodeTree, scanTree } from "./tree.ts";

const ROUNDS = 4000;
const seed = Number(process.env.GRANARY_FUZZ_SEED ?? randomInt(2 ** 31));

// xorshift, so that a failure can be repeated with GRANARY_FUZZ_SEED
let state = seed | 1;
function draw(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

const hex = "0123456789abcdef".repeat(4);
const node: TreeNode = {
  name: 'n\xffa"m\\e',
  type: "file",
  mode: 420,
  mtimeSeconds: 1_700_000_000,
  mtimeNanos: 123_456_789,
  atimeSeconds: -5,
  atimeNanos: 1,
  ctimeSeconds: 0,
  ctimeNanos: 0,
  uid: 1,
  gid: 2,
  user: "user",
  group: "gr\u00fcp",
  inode: 2n ** 64n - 1n,
  deviceId: 5,
  size: 123,
  links: 2,
  linkTarget: "t\xfe",
  extendedAttributes: [{ name: "user.x", value: Uint8Array.of(1, 2, 3) }],
  genericAttributes: '{"windows.creation_time":"AA"}',
  device: 3,
  content: new Uint8Array(96).fill(0xa5),
  subtree: new Uint8Array(32).fill(0x5a),
  error: "oops",
};
const entry = { type: "tree" as const, id: new Uint8Array(32).fill(7), sealedBytes: 100, plainBytes: 300, offsetBytes: 0 };

function encodePackedIndex(): Uint8Array {
  const entries = new Uint8Array(2 * INDEX_ENTRY_BYTES);
  writeIndexEntry(entries, writeIndexEntry(entries, 0, entry), { ...entry, type: "data", offsetBytes: 100, plainBytes: 0 });
  return encodeIndex([
    { packId: new Uint8Array(32).fill(9), entries },
    { packId: new Uint8Array(32), entries },
  ]);
}

function encodePackHeader(): Uint8Array {
  const plain = new Uint8Array(41 + 37);
  writeHeaderEntry(plain, writeHeaderEntry(plain, 0, entry), { ...entry, plainBytes: 0 });
  return plain;
}

const visitor = { pack: () => undefined, blob: () => undefined };
const pack = { id: parsePackId(hex), sizeBytes: 200 + 78 + 36 };
const summary = {
  backupStartNs: 1n,
  backupEndNs: 2n,
  filesNew: 3,
  filesChanged: 4,
  filesUnmodified: 5,
  dirsNew: 6,
  dirsChanged: 7,
  dirsUnmodified: 8,
  dataBlobs: 9,
  treeBlobs: 10,
  dataAdded: 11,
  dataAddedPacked: 12,
  totalFilesProcessed: 13,
  totalBytesProcessed: 14,
  unknown: new Map(),
};

const targets: readonly { readonly name: string; readonly valid: Uint8Array; readonly parse: (bytes: Uint8Array) => unknown }[] = [
  { name: "parseNode()", valid: encodeNode(node), parse: (bytes) => parseNode(bytes) },
  {
    name: "scanTree()",
    valid: encodeTree([node, { ...node, name: "o" }, { ...node, name: "p" }]),
    parse: (bytes) => scanTree(bytes, (_name, start, end) => parseNode(bytes, start, end)),
  },
  {
    name: "scanTree(), reporting",
    valid: encodeTree([node, { ...node, name: "o" }]),
    parse: (bytes) => scanTree(bytes, () => undefined, { onProblem: (problem) => assert.ok(isFailure(problem, "TreeInvalid")) }),
  },
  { name: "scanIndex()", valid: encodePackedIndex(), parse: (bytes) => scanIndex(bytes, visitor) },
  { name: "parseHeader()", valid: encodePackHeader(), parse: (bytes) => [...parseHeader(bytes, pack).entries()] },
  { name: "parseHeaderLength()", valid: Uint8Array.of(0, 110, 0, 0, 0), parse: (bytes) => parseHeaderLength(bytes, pack) },
  {
    name: "parseSnapshot()",
    valid: encodeSnapshot({
      timeNs: 1n,
      timeOffsetMinutes: 60,
      parent: parseSnapshotId(hex),
      tree: parseBlobId(hex),
      paths: ["/a", "\u00fc"],
      hostname: "h",
      username: "u",
      uid: 1,
      gid: 2,
      excludes: ["*.o"],
      tags: ["a"],
      original: null,
      programVersion: "p",
      summary,
      unknown: new Map([["x", "[1.50,{}]"]]),
    }),
    parse: (bytes) => encodeSnapshot(parseSnapshot(bytes, parseSnapshotId(hex))),
  },
  {
    name: "parseLock()",
    valid: encodeLock({ timeNs: 1n, exclusive: false, hostname: "h", username: "u", pid: 3, uid: 4, gid: 5 }),
    parse: (bytes) => parseLock(bytes, parseLockId(hex)),
  },
  {
    name: "parseConfig()",
    valid: encodeConfig({ version: 2, id: hex, chunkerPolynomial: 0x25b468838dcb75n }),
    parse: (bytes) => parseConfig(bytes),
  },
  {
    name: "parseKeyFile()",
    valid: encodeKeyFile({
      createdNs: 1n,
      username: "u",
      hostname: "h",
      cost: { N: 32768, r: 8, p: 1 },
      salt: new Uint8Array(64),
      data: new Uint8Array(180),
    }),
    parse: (bytes) => parseKeyFile(bytes, parseKeyId(hex)),
  },
  {
    name: "parseMasterKey()",
    valid: encodeMasterKey({ encrypt: new Uint8Array(32), macK: new Uint8Array(16), macR: new Uint8Array(16) }),
    parse: (bytes) => parseMasterKey(bytes, parseKeyId(hex)),
  },
  {
    name: "unquoteGo()",
    valid: Buffer.from(quoteGo('a\x07"\\\xff\xe2\x80\xa8\xf0\x9f\x98\x80\xf3\xb0\x80\x80'), "latin1"),
    parse: (bytes) => unquoteGo(Buffer.from(bytes).latin1Slice()),
  },
  {
    name: "parseTimeNs()",
    valid: Buffer.from("2026-01-02T03:04:05.678901234+01:30"),
    parse: (bytes) => parseTimeNs(Buffer.from(bytes).latin1Slice()),
  },
];

// Bytes and texts that parsers stumble over.
const spice = [
  '"',
  "\\",
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  "\0",
  "\n",
  "\xff",
  "null",
  "1e999",
  "-1",
  "99999999999999999999",
  "\\u0000",
  "\\ud800",
  '":"',
  "[[[[",
  '{"name":"x"}',
  "0",
].map((text) => Buffer.from(text, "latin1"));

function mutate(valid: Uint8Array): Uint8Array {
  let bytes = Buffer.from(valid);
  for (let changes = 1 + draw(4); changes > 0; changes--) {
    const at = draw(bytes.length + 1);
    const length = draw(1 + draw(20));
    const extra = spice[draw(spice.length)] ?? Buffer.alloc(0);
    switch (draw(6)) {
      case 0:
        if (at < bytes.length) bytes[at] = draw(256);
        break;
      case 1:
        bytes = bytes.subarray(0, at);
        break;
      case 2: // cut out
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
        break;
      case 3: // put in
        bytes = Buffer.concat([bytes.subarray(0, at), extra, bytes.subarray(at)]);
        break;
      case 4: // put over
        bytes = Buffer.concat([bytes.subarray(0, at), extra, bytes.subarray(at + extra.length)]);
        break;
      default: // a piece of it again
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(draw(bytes.length + 1)).subarray(0, length * 8), bytes.subarray(at)]);
    }
  }
  return bytes;
}

for (const { name, valid, parse } of targets) {
  test(`${name} meets damaged input with a value or a failure, soon, and without much memory`, (t) => {
    t.diagnostic(`seed ${seed}`);
    parse(valid);
    const heapBefore = process.memoryUsage().rss;
    let refused = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const bytes = mutate(valid);
      const startedMs = performance.now();
      try {
        parse(bytes);
      } catch (error) {
        const text = Buffer.from(bytes).latin1Slice();
        assert.ok(isFailure(error), `seed ${seed}, round ${round}: threw ${String(error)} on ${JSON.stringify(text)}`);
        assert.notEqual(error.kind, "bug", `seed ${seed}, round ${round}: ${error.message} on ${JSON.stringify(text)}`);
        assert.ok(error.message.length < 1500, `seed ${seed}, round ${round}: the message has ${error.message.length} characters`);
        refused++;
      }
      const tookMs = performance.now() - startedMs;
      assert.ok(tookMs < 2000, `seed ${seed}, round ${round}: took ${tookMs} ms`);
    }
    assert.ok(refused > ROUNDS / 50, `only ${refused} of ${ROUNDS} were refused, so the damage does not reach the parser`);
    const grownBytes = process.memoryUsage().rss - heapBefore;
    assert.ok(grownBytes < 300 * 1024 * 1024, `memory grew by ${grownBytes} bytes`);
  });
}

test("input of millions of brackets, digits or escapes is met at once", () => {
  const million = 2_000_000;
  const hostile = [
    "[".repeat(million),
    `{"nodes":[${'{"a":'.repeat(million)}`,
    `{"nodes":[{"name":"${"\\u0041".repeat(million)}`,
    `{"nodes":[{"name":"a","inode":${"9".repeat(million)}}]}`,
    `{"nodes":[{"name":"a","content":[${" ".repeat(million)}}]}`,
    `{"packs":[{"id":${"[".repeat(million)}`,
    `{"packs":[{"id":"${hex}","blobs":[{"length":${"9".repeat(million)}}]}]}`,
    `{"version":${"9".repeat(million)},"id":"${hex}","time":"${"2".repeat(million)}","N":${"9".repeat(million)},"salt":"${"A".repeat(million)}"}`,
  ];
  for (const text of hostile) {
    const bytes = Buffer.from(text);
    const startedMs = performance.now();
    for (const { name, parse } of targets) {
      try {
        parse(bytes);
      } catch (error) {
        assert.ok(isFailure(error) && error.kind !== "bug" && error.message.length < 1500, `${name} threw ${String(error).slice(0, 200)}`);
      }
    }
    assert.ok(performance.now() - startedMs < 5000, `took ${performance.now() - startedMs} ms on ${text.slice(0, 40)}`);
  }
});
