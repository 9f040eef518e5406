import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCount, parseSizeBytes } from "./parse-size.ts";

test("parseSizeBytes() reads the suffixes that restic knows, in either case", () => {
  const sizes = { "17": 17, "17b": 17, "1k": 1024, "2K": 2048, "3m": 3 * 2 ** 20, "4G": 4 * 2 ** 30, "1T": 2 ** 40, "0": 0 };
  for (const [text, sizeBytes] of Object.entries(sizes)) assert.equal(parseSizeBytes(text, "--size"), sizeBytes, text);
});

test("parseSizeBytes() refuses what is no whole number, or too large to count", () => {
  for (const text of ["", "k", "1.5k", "-1", "1kb", "1 k", "9999999999t", "0x10"]) {
    assert.throws(() => parseSizeBytes(text, "--size"), { code: "InvalidArgument", message: /--size/ }, text);
  }
});

test("parseCount() refuses what is below the least", () => {
  assert.equal(parseCount("3", "--latest", 1), 3);
  for (const text of ["0", "x", "", "1.0", "-1"]) assert.throws(() => parseCount(text, "--latest", 1), { code: "InvalidArgument" }, text);
});
