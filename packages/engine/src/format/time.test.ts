import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { findTimeNs, formatTime, formatTimeNs, parseTimeNs, splitTimeNs } from "./time.ts";

const YEAR_0_NS = -62_167_219_200_000_000_000n;
const YEAR_10000_NS = 253_402_300_800_000_000_000n;

test("formatTimeNs() trims the fraction and agrees with Date on whole milliseconds", () => {
  assert.equal(formatTimeNs(0n), "1970-01-01T00:00:00Z");
  assert.equal(formatTimeNs(1n), "1970-01-01T00:00:00.000000001Z");
  assert.equal(formatTimeNs(-1n), "1969-12-31T23:59:59.999999999Z");
  assert.equal(formatTimeNs(1_700_000_000_120_000_000n), "2023-11-14T22:13:20.12Z");
  assert.equal(formatTime(951_782_400, 500), "2000-02-29T00:00:00.0000005Z");
  fc.assert(
    fc.property(fc.date({ min: new Date("0000-01-01T00:00:00Z"), max: new Date("9999-12-31T23:59:59Z"), noInvalidDate: true }), (date) => {
      const text = date.toISOString().replace(/\.?0*Z$/, "Z");
      assert.equal(formatTimeNs(BigInt(date.getTime()) * 1_000_000n), text.includes(".") ? text : date.toISOString().replace(".000Z", "Z"));
    }),
  );
});

test("parseTimeNs() gives back what formatTimeNs() wrote, for any instant of the years 0 to 9999", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: YEAR_0_NS, max: YEAR_10000_NS - 1n }), (timeNs) => {
      assert.equal(parseTimeNs(formatTimeNs(timeNs)), timeNs);
    }),
  );
});

test("formatTimeNs() clamps the year as restic does, keeping month, day and time", () => {
  assert.equal(formatTimeNs(YEAR_0_NS), "0000-01-01T00:00:00Z");
  assert.equal(formatTimeNs(YEAR_0_NS - 1n), "0000-12-31T23:59:59.999999999Z");
  assert.equal(formatTimeNs(YEAR_10000_NS), "9999-01-01T00:00:00Z");
  // 29 February 12000 becomes 1 March 9999, as Go's AddDate makes it
  assert.equal(formatTimeNs(BigInt(Date.UTC(12000, 1, 29, 1, 2, 3)) * 1_000_000n), "9999-03-01T01:02:03Z");
  assert.equal(formatTimeNs(2n ** 63n - 1n), "2262-04-11T23:47:16.854775807Z");
});

test("parseTimeNs() understands offsets and drops digits beyond nanoseconds", () => {
  assert.equal(parseTimeNs("2026-01-02T03:04:05.678901234+01:00"), parseTimeNs("2026-01-02T02:04:05.678901234Z"));
  assert.equal(parseTimeNs("2026-01-02T03:04:05-11:30"), parseTimeNs("2026-01-02T14:34:05Z"));
  assert.equal(parseTimeNs("1970-01-01T00:00:00.1234567899Z"), 123_456_789n);
  assert.equal(parseTimeNs("0000-02-29T00:00:00Z"), YEAR_0_NS + 59n * 86_400_000_000_000n);
});

test("findTimeNs() refuses what is no time", () => {
  const wrong = [
    "",
    "2026-01-02",
    "2026-01-02T03:04:05",
    "2026-01-02 03:04:05Z",
    "2026-1-02T03:04:05Z",
    "2026-13-02T03:04:05Z",
    "2026-02-29T03:04:05Z",
    "2026-02-00T03:04:05Z",
    "2026-02-01T24:04:05Z",
    "2026-02-01T23:60:05Z",
    "2026-02-01T23:59:60Z",
    "2026-02-01T23:59:59.Z",
    "2026-02-01T23:59:59.5",
    "2026-02-01T23:59:59+0100",
    "2026-02-01T23:59:59+24:00",
    "2026-02-01T23:59:59+01:60",
    "2026-02-01T23:59:59z",
    "2026-02-01T23:59:59Z ",
    "+026-02-01T23:59:59Z",
  ];
  for (const text of wrong) assert.equal(findTimeNs(text), undefined, text);
  assert.throws(() => parseTimeNs("yesterday"), { code: "InvalidArgument", message: /time "yesterday"/ });
});

test("splitTimeNs() rounds down", () => {
  assert.deepEqual(splitTimeNs(-1n), { seconds: -1, nanos: 999_999_999 });
  assert.deepEqual(splitTimeNs(-1_000_000_000n), { seconds: -1, nanos: 0 });
  assert.deepEqual(splitTimeNs(1_500_000_000n), { seconds: 1, nanos: 500_000_000 });
});
