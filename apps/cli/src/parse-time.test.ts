import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePointNs, parseSpanMs } from "./parse-time.ts";

const noonNs = BigInt(Date.UTC(2026, 0, 31, 12)) * 1_000_000n;

test("parsePointNs() reads dates and times in a zone that is written behind", () => {
  for (const text of [
    "2026-01-31 12:00:00Z",
    "2026-01-31T12:00:00Z",
    "2026-01-31 12:00 UTC",
    "2026-01-31 14:00:00 +0200",
    "31.01.2026 12:00 +00:00",
  ]) {
    assert.equal(parsePointNs(text, "--time"), noonNs, text);
  }
  assert.equal(parsePointNs("2026-01-31T12:00:00.000000001Z", "--time"), noonNs + 1n);
});

test("parsePointNs() takes the machine's zone when none is written", () => {
  const local = BigInt(new Date(2026, 0, 31, 12).getTime()) * 1_000_000n;
  assert.equal(parsePointNs("2026-01-31 12:00:00", "--time"), local);
  assert.equal(parsePointNs("2026-01-31", "--time"), BigInt(new Date(2026, 0, 31).getTime()) * 1_000_000n);
});

test("parsePointNs() refuses what is no time, and days that no month has", () => {
  for (const text of ["", "yesterday", "2026-02-30", "2026-01-31 25:00:00", "2026-1-31", "12:00"]) {
    assert.throws(() => parsePointNs(text, "--time"), { code: "InvalidArgument", message: /--time/ }, text);
  }
});

test("parseSpanMs() reads spans as Go writes them", () => {
  const spans = { "0": 0, "90s": 90_000, "5m": 300_000, "1h30m": 5_400_000, "1.5h": 5_400_000, "250ms": 250 };
  for (const [text, ms] of Object.entries(spans)) assert.equal(parseSpanMs(text, "--retry-lock"), ms, text);
  for (const text of ["", "5", "m", "1d", "-5m", "5 m"])
    assert.throws(() => parseSpanMs(text, "--retry-lock"), { code: "InvalidArgument" }, text);
});
