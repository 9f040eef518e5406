import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProgress, estimateLeftMs } from "./progress.ts";

const mebibyte = 2 ** 20;

test("an estimate is given only when the total is known, and something has been done", () => {
  assert.equal(estimateLeftMs({ doneBytes: 25, totalBytes: 100 }, 10_000), 30_000);
  assert.equal(estimateLeftMs({ done: 1, total: 2 }, 10_000), 10_000);
  assert.equal(estimateLeftMs({ doneBytes: 25 }, 10_000), undefined);
  assert.equal(estimateLeftMs({ doneBytes: 0, totalBytes: 100 }, 10_000), undefined);
  assert.equal(estimateLeftMs({ doneBytes: 25, totalBytes: 100 }, 200), undefined);
});

test("an estimate that turns out too small is not shown any more", () => {
  assert.equal(estimateLeftMs({ doneBytes: 120, totalBytes: 100, isEstimate: true }, 10_000), undefined);
  assert.doesNotMatch(describeProgress({ doneBytes: 120, totalBytes: 100, isEstimate: true }, 10_000), /about|%/);
});

test("the line shows time, share, counts, rate and what is left, and says about where it is not sure", () => {
  const known = describeProgress({ done: 1200, total: 5000, doneBytes: 10 * mebibyte, totalBytes: 40 * mebibyte }, 10_000, "restoring");
  assert.equal(known, "[0:10]  restoring  25.0 %  1,200 of 5,000 files  10.000 MiB of 40.000 MiB  1.0 MiB/s  about 0:30 left");
  const guessed = describeProgress({ done: 7, doneBytes: 10 * mebibyte, totalBytes: 40 * mebibyte, isEstimate: true }, 10_000);
  assert.equal(guessed, "[0:10]  about 25.0 %  7 files  10.000 MiB  1.0 MiB/s  about 0:30 left");
  assert.equal(describeProgress({ done: 7, doneBytes: 0 }, 0), "[0:00]  7 files  0 B  0 B/s");
});
