import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseBlobId, parseSnapshotId } from "./ids.ts";
import { encodeSnapshot, parseSnapshot, type Snapshot, type SnapshotSummary } from "./snapshot.ts";

const id = parseSnapshotId("5a".repeat(32));
const tree = parseBlobId("7e".repeat(32));
const anyId = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString("hex"));
const anyCount = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const anyTimeNs = fc.bigInt({ min: -62_167_219_200_000_000_000n, max: 253_402_300_799_999_999_999n });
const anyText = fc.string({ unit: "binary" });
const anyUnknown = fc.constantFrom(new Map<string, string>(), new Map([["x_vault", '{"a":18446744073709551615,"b":[1.50]}']]));

const plain = { noNullPrototype: true };

const anySummary: fc.Arbitrary<SnapshotSummary> = fc.record(
  {
    backupStartNs: anyTimeNs,
    backupEndNs: anyTimeNs,
    filesNew: anyCount,
    filesChanged: anyCount,
    filesUnmodified: anyCount,
    dirsNew: anyCount,
    dirsChanged: anyCount,
    dirsUnmodified: anyCount,
    dataBlobs: anyCount,
    treeBlobs: anyCount,
    dataAdded: anyCount,
    dataAddedPacked: anyCount,
    totalFilesProcessed: anyCount,
    totalBytesProcessed: anyCount,
    unknown: anyUnknown,
  },
  plain,
);

// Within a day of the years 0 and 9999 a shift of the clock meets the ends of what RFC 3339 can say.
const isNearEnd = (timeNs: bigint): boolean => timeNs < -62_167_000_000_000_000_000n || timeNs > 253_402_000_000_000_000_000n;

const anySnapshot: fc.Arbitrary<Snapshot> = fc
  .record<Snapshot>(
    {
      timeNs: anyTimeNs,
      timeOffsetMinutes: fc.integer({ min: -1439, max: 1439 }),
      parent: fc.option(anyId.map(parseSnapshotId)),
      tree: anyId.map(parseBlobId),
      paths: fc.array(anyText),
      hostname: anyText,
      username: anyText,
      uid: fc.nat(2 ** 32 - 1),
      gid: fc.nat(2 ** 32 - 1),
      excludes: fc.array(anyText),
      tags: fc.array(anyText),
      original: fc.option(anyId.map(parseSnapshotId)),
      programVersion: anyText,
      summary: fc.option(anySummary),
      unknown: anyUnknown,
    },
    plain,
  )
  .map((snapshot) => (isNearEnd(snapshot.timeNs) ? { ...snapshot, timeOffsetMinutes: 0 } : snapshot));

test("parseSnapshot() gives back any snapshot that encodeSnapshot() wrote", () => {
  fc.assert(fc.property(anySnapshot, (snapshot) => assert.deepEqual(parseSnapshot(encodeSnapshot(snapshot), id), snapshot)));
});

test("encodeSnapshot() leaves out what is empty and keeps restic's order", () => {
  const snapshot: Snapshot = {
    timeNs: 1_767_323_045_678_901_234n,
    timeOffsetMinutes: 0,
    parent: null,
    tree,
    paths: ["/a<b>"],
    hostname: "h",
    username: "",
    uid: 0,
    gid: 100,
    excludes: [],
    tags: ["t"],
    original: null,
    programVersion: "granary 1",
    summary: null,
    unknown: new Map(),
  };
  assert.equal(
    encodeSnapshot(snapshot).toString(),
    `{"time":"2026-01-02T03:04:05.678901234Z","tree":"${tree}","paths":["/a\\u003cb\\u003e"],"hostname":"h","gid":100,"tags":["t"],"program_version":"granary 1"}`,
  );
});

test("parseSnapshot() keeps fields that it does not know, and reads null as absent", () => {
  const text = `{"x":[1, 2],"time":"2026-01-02T03:04:05+02:00","parent":null,"tree":"${tree}","paths":null,"tags":null,"summary":{"files_new":3,"y":9007199254740993}}`;
  const snapshot = parseSnapshot(Buffer.from(text), id);
  assert.deepEqual(snapshot.paths, []);
  assert.equal(snapshot.parent, null);
  assert.equal(snapshot.summary?.filesNew, 3);
  const again = encodeSnapshot({ ...snapshot, tags: ["new"] }).toString();
  assert.equal(
    again,
    `{"time":"2026-01-02T03:04:05+02:00","tree":"${tree}","paths":[],"tags":["new"],"summary":{"backup_start":"0001-01-01T00:00:00Z","backup_end":"0001-01-01T00:00:00Z","files_new":3,"files_changed":0,"files_unmodified":0,"dirs_new":0,"dirs_changed":0,"dirs_unmodified":0,"data_blobs":0,"tree_blobs":0,"data_added":0,"data_added_packed":0,"total_files_processed":0,"total_bytes_processed":0,"y":9007199254740993},"x":[1, 2]}`,
  );
});

test("parseSnapshot() names the snapshot and the field that is wrong", () => {
  const good = { time: "2026-01-02T03:04:05Z", tree, paths: ["/a"] };
  const wrong: readonly (readonly [object | string, RegExp])[] = [
    ["", /snapshot "5a5a.*": found its end of 0 bytes, a JSON object needed/],
    ["[]", /found byte 0x5b at 0/],
    ["{}x", /found byte 0x78 at 2/],
    ['{"a":1,}', /byte 0x7d at 7/],
    [{ ...good, time: undefined }, /"time" is missing, a time needed/],
    [{ ...good, time: "yesterday" }, /"time" is "yesterday", a time needed/],
    [{ ...good, tree: undefined }, /"tree" is missing/],
    [{ ...good, tree: "../../etc" }, /"tree" is "..\/..\/etc", 64/],
    [{ ...good, parent: "12" }, /"parent" is "12"/],
    [{ ...good, paths: "/a" }, /"paths" is "\/a", an array of strings/],
    [{ ...good, tags: [1] }, /"tags" is \[1\]/],
    [{ ...good, uid: -1 }, /"uid" is -1, a whole number from 0 to 4294967295/],
    [{ ...good, gid: 2 ** 32 }, /"gid"/],
    [{ ...good, uid: 1.5 }, /"uid" is 1.5/],
    [{ ...good, summary: [] }, /"summary" is \[\], an object/],
    [{ ...good, summary: { files_new: "3" } }, /, "summary": field "files_new" is "3"/],
    [{ ...good, hostname: 5 }, /"hostname" is 5, a string/],
  ];
  for (const [value, message] of wrong) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    assert.throws(() => parseSnapshot(Buffer.from(text), id), { code: "SnapshotInvalid", kind: "corrupt", message }, text);
  }
});
