import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { formatTimeNs, parseTimeNs } from "../format/time.ts";
import { formatDuration, isNoDuration, parseDuration, subtractDuration } from "./calendar-duration.ts";

test("parseDuration() reads years, months, days and hours in any order, and formatDuration() writes them in restic's", () => {
  assert.deepEqual(parseDuration("1y5m7d2h"), { years: 1, months: 5, days: 7, hours: 2 });
  assert.equal(formatDuration(parseDuration(" 2h3d ")), "3d2h");
  assert.equal(formatDuration(parseDuration("1d9d")), "9d");
  assert.equal(isNoDuration(parseDuration("")), true);
  assert.equal(isNoDuration(parseDuration("0y0h")), true);
  for (const text of ["1", "d", "1w", "-1d", "1d 2h", "1.5d", "9999999999d", "１d"]) {
    assert.throws(
      () => parseDuration(text),
      (error) => isFailure(error, "InvalidArgument"),
      text,
    );
  }
});

test("subtractDuration() goes back on the calendar as Go does", () => {
  const cases: [time: string, offsetMinutes: number, timeZone: string, duration: string, expected: string][] = [
    ["2026-03-31T10:00:00.5Z", 0, "UTC", "1m", "2026-03-03T10:00:00.5Z"],
    ["2024-02-29T00:00:00Z", 0, "UTC", "1y", "2023-03-01T00:00:00Z"],
    ["2024-03-01T00:00:00.000000001Z", 0, "UTC", "1d1h", "2024-02-28T23:00:00.000000001Z"],
    ["2026-01-15T12:00:00Z", 0, "UTC", "2y13m40d50h", "2022-11-03T10:00:00Z"],
    // 23:30 in UTC is 01:30 of the next day two hours east
    ["2026-03-30T23:30:00Z", 120, "UTC", "1m", "2026-03-02T23:30:00Z"],
    // the machine's zone counts only where the snapshot's offset is its own: then summer time is followed back
    ["2026-04-15T10:00:00Z", 120, "Europe/Vienna", "1m", "2026-03-15T11:00:00Z"],
    ["2026-04-15T10:00:00Z", 60, "Europe/Vienna", "1m", "2026-03-15T10:00:00Z"],
    ["2026-04-15T10:00:00Z", 120, "Europe/Vienna", "1m1h", "2026-03-15T10:00:00Z"],
    // hours are hours, across the change of clocks too
    ["2026-03-29T10:00:00Z", 120, "Europe/Vienna", "12h", "2026-03-28T22:00:00Z"],
    ["1969-12-31T23:59:59.999999999Z", 0, "UTC", "1d", "1969-12-30T23:59:59.999999999Z"],
    ["0050-01-01T00:00:00Z", 0, "UTC", "1y", "0049-01-01T00:00:00Z"],
  ];
  for (const [time, offsetMinutes, timeZone, duration, expected] of cases) {
    const found = subtractDuration(parseTimeNs(time), parseDuration(duration), { offsetMinutes, timeZone });
    assert.equal(formatTimeNs(found), expected, `${time} less ${duration} at ${offsetMinutes} in ${timeZone}`);
  }
});

test("subtractDuration() of any duration is never later, and of a huge one before all times", () => {
  const duration = fc.record({ years: fc.nat(300), months: fc.nat(300), days: fc.nat(3000), hours: fc.nat(30_000) });
  const time = fc.bigInt({ min: 0n, max: 4_000_000_000_000_000_000n });
  fc.assert(
    fc.property(time, duration, fc.integer({ min: -720, max: 840 }), (timeNs, taken, offsetMinutes) => {
      assert.ok(subtractDuration(timeNs, taken, { offsetMinutes, timeZone: "UTC" }) <= timeNs);
    }),
  );
  assert.ok(subtractDuration(0n, parseDuration("999999999y"), { offsetMinutes: 0, timeZone: "UTC" }) < -(10n ** 18n));
});
