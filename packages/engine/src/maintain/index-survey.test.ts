import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Failure } from "@granary/base/errors";
import { hexOf, parseIndexId } from "../format/ids.ts";
import { BLOB_WORDS, IndexSurvey } from "./index-survey.ts";

function id(name: string): Uint8Array {
  return createHash("sha256").update(name).digest();
}

function indexId(name: string): ReturnType<typeof parseIndexId> {
  return parseIndexId(hexOf(id(name)));
}

type Listed = readonly [name: string, offsetBytes: number, sealedBytes: number, isTree?: boolean];

/** Reads one index file: packs by name, and what is listed in them. */
function list(survey: IndexSurvey, file: string, packs: Readonly<Record<string, readonly Listed[]>>): void {
  survey.file(indexId(file));
  for (const [pack, blobs] of Object.entries(packs)) {
    survey.pack(id(pack));
    for (const [name, offsetBytes, sealedBytes, isTree = false] of blobs) {
      survey.blob({ id: id(name), isTree, offsetBytes, sealedBytes, plainBytes: 0 });
    }
  }
  survey.endFile();
}

function packOf(survey: IndexSurvey, name: string): number {
  return survey.findPack(hexOf(id(name))) ?? -1;
}

test("IndexSurvey knows what each pack must be", () => {
  const survey = new IndexSurvey();
  list(survey, "i", {
    p: [
      ["a", 0, 100],
      ["b", 100, 50, true],
    ],
  });
  const pack = survey.packs[packOf(survey, "p")];
  assert.equal(pack?.expectedBytes, 150 + 2 * 37 + 32 + 4);
  assert.deepEqual(
    [pack?.blobs, pack?.blobBytes, pack?.hasData, pack?.hasTrees, pack?.hasUncompressed, pack?.fault],
    [2, 150, true, true, true, ""],
  );
  assert.deepEqual([survey.data.size, survey.trees.size, survey.blobs], [1, 1, 2]);
});

test("IndexSurvey accepts blobs listed in any order, and names gaps and overlaps", () => {
  const survey = new IndexSurvey();
  list(survey, "i", {
    shuffled: [
      ["b", 100, 50],
      ["a", 0, 100],
    ],
    gap: [
      ["c", 0, 100],
      ["d", 101, 50],
    ],
    overlap: [
      ["e", 0, 100],
      ["f", 99, 50],
    ],
    late: [["g", 1, 100]],
  });
  const faultOf = (name: string): string | undefined => survey.packs[packOf(survey, name)]?.fault;
  assert.equal(faultOf("shuffled"), "");
  assert.match(faultOf("gap") ?? "", /listed at byte 101, but the one before it ends at 100/);
  assert.match(faultOf("overlap") ?? "", /listed at byte 99, but the one before it ends at 100/);
  assert.match(faultOf("late") ?? "", /listed at byte 1, but the one before it ends at 0/);
});

test("IndexSurvey takes a pack that is listed twice alike for one, and notes when it is not alike", () => {
  const survey = new IndexSurvey();
  list(survey, "first", {
    p: [
      ["a", 0, 100],
      ["b", 100, 50],
    ],
    q: [["a", 0, 100]],
    r: [["c", 0, 40]],
  });
  list(survey, "second", {
    p: [
      ["a", 0, 100],
      ["b", 100, 50],
    ],
    q: [
      ["a", 0, 100],
      ["d", 100, 60],
    ],
    r: [],
  });
  assert.equal(survey.packs[packOf(survey, "p")]?.fault, "");
  assert.match(survey.packs[packOf(survey, "q")]?.fault ?? "", /list different blobs/);
  assert.match(survey.packs[packOf(survey, "r")]?.fault ?? "", /list different blobs/);
  assert.equal(survey.packs[packOf(survey, "p")]?.blobs, 2);
  assert.equal(survey.copies.length, 1); // a, in p and in q
  assert.deepEqual(
    survey.indexes.map(({ blobs, packs }) => [blobs, packs.length]),
    [
      [4, 3],
      [4, 3],
    ],
  );
});

test("IndexSurvey keeps every copy of a blob, and lets one be chosen", () => {
  const survey = new IndexSurvey();
  list(survey, "i", {
    p: [["a", 0, 100]],
    q: [
      ["x", 0, 40],
      ["a", 40, 100],
    ],
    r: [["a", 0, 100]],
  });
  const blob = survey.data.find(id("a")) * 2;
  assert.equal(survey.placeOf(blob).pack, packOf(survey, "p"));
  assert.equal(survey.findCopies(blob).length, 2);
  survey.chooseFirst((first, second) => second.pack > first.pack);
  assert.equal(survey.placeOf(blob).pack, packOf(survey, "r"));
  const packs: number[] = [];
  survey.forEachPlace((one, place) => void (one === blob && packs.push(place.pack)));
  assert.deepEqual(
    packs.sort((a, b) => a - b),
    [packOf(survey, "p"), packOf(survey, "q"), packOf(survey, "r")],
  );
  assert.ok(survey.swapFirst(blob, 0));
  assert.equal(survey.swapFirst(blob, 2), false);
});

test("IndexSurvey tells data and trees of one id apart", () => {
  const survey = new IndexSurvey();
  list(survey, "i", { p: [["same", 0, 100]], q: [["same", 0, 120, true]] });
  assert.equal(survey.copies.length, 0);
  const tree = survey.trees.find(id("same")) * 2 + 1;
  assert.deepEqual([survey.placeOf(tree).sealedBytes, survey.placeOf(survey.data.find(id("same")) * 2).sealedBytes], [120, 100]);
  assert.deepEqual(survey.idOf(tree), Uint8Array.from(id("same")));
});

test("IndexSurvey gives the blobs of packs in the order of their offsets", () => {
  const survey = new IndexSurvey();
  list(survey, "i", {
    p: [
      ["b", 100, 50],
      ["a", 0, 100],
    ],
    q: [
      ["a", 0, 100],
      ["c", 100, 60],
    ],
  });
  const [p, q] = [packOf(survey, "p"), packOf(survey, "q")];
  const offsets = (words: Uint32Array | undefined): number[] => Array.from(words ?? []).filter((_, i) => i % BLOB_WORDS === 1);
  const all = survey.collectBlobs([p, q]);
  assert.deepEqual(
    [offsets(all.get(p)), offsets(all.get(q))],
    [
      [0, 100],
      [0, 100],
    ],
  );
  const a = survey.data.find(id("a")) * 2;
  const first = survey.collectBlobs([p, q], (blob) => blob === a);
  assert.deepEqual([offsets(first.get(p)), offsets(first.get(q))], [[0], []]);
});

test("IndexSurvey keeps what it read of a damaged file, and notes one that cannot be read", () => {
  const survey = new IndexSurvey();
  survey.file(indexId("half"));
  survey.pack(id("p"));
  survey.blob({ id: id("a"), isTree: false, offsetBytes: 0, sealedBytes: 100, plainBytes: 0 });
  survey.damaged(indexId("half"), new Failure("IndexInvalid", "it ends in the middle"));
  survey.damaged(indexId("gone"), new Failure("NameMismatch", "it is something else"));
  list(survey, "whole", { q: [["b", 0, 100]] });
  assert.deepEqual(
    survey.indexes.map(({ packs, failure }) => [packs.length, failure?.code]),
    [
      [1, "IndexInvalid"],
      [0, "NameMismatch"],
      [1, undefined],
    ],
  );
  assert.equal(survey.data.size, 2);
});
