import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBytes, formatCount, formatMany, formatPercent, formatRate, formatSpan } from "./format-amount.ts";

test("formatBytes() writes sizes as restic does", () => {
  assert.deepEqual([0, 1023, 1024, 1.5 * 2 ** 20, 2n ** 40n].map(formatBytes), ["0 B", "1023 B", "1.000 KiB", "1.500 MiB", "1.000 TiB"]);
});

test("formatRate() knows no infinite speed", () => {
  assert.equal(formatRate(2 ** 20, 500), "2.0 MiB/s");
  assert.equal(formatRate(2 ** 20, 0), "0 B/s");
});

test("formatSpan() shows hours only when there are some", () => {
  assert.deepEqual([0, 5400, 65_000, 3_723_000].map(formatSpan), ["0:00", "0:05", "1:05", "1:02:03"]);
});

test("formatCount() and formatMany() set commas, and the plural", () => {
  assert.deepEqual([1, 999, 1000, 1234567].map(formatCount), ["1", "999", "1,000", "1,234,567"]);
  assert.deepEqual([formatMany(1, "file"), formatMany(0, "file"), formatMany(2000, "file")], ["1 file", "0 files", "2,000 files"]);
});

test("formatPercent() says 100 only when all is done", () => {
  assert.deepEqual([formatPercent(0, 0), formatPercent(9999, 10_000), formatPercent(10_000, 10_000)], ["0.0 %", "99.9 %", "100.0 %"]);
});
