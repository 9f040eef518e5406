import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { parseTimeNs } from "../format/time.ts";
import { parseDuration } from "./calendar-duration.ts";
import {
  applyPolicy,
  describePolicy,
  emptyPolicy,
  hasTags,
  isEmptyPolicy,
  type KeepPolicy,
  parseKeepCount,
  UNLIMITED,
} from "./keep-policy.ts";

const options = { nowNs: parseTimeNs("2026-06-01T00:00:00Z"), timeZone: "UTC" };

/** Reasons by time; the times are given newest first. */
function decide(times: readonly string[], policy: Partial<KeepPolicy>, offsetMinutes = 0): Record<string, readonly string[]> {
  const subjects = times.map((time) => ({ timeNs: parseTimeNs(time), timeOffsetMinutes: offsetMinutes, tags: [], time }));
  const decisions = applyPolicy(subjects, { ...emptyPolicy, ...policy }, options);
  return Object.fromEntries(decisions.map(({ snapshot, reasons }) => [snapshot.time, reasons]));
}

test("parseKeepCount() reads numbers and unlimited, and refuses everything else", () => {
  assert.equal(parseKeepCount("7"), 7);
  assert.equal(parseKeepCount("unlimited"), UNLIMITED);
  assert.equal(parseKeepCount("-1"), UNLIMITED);
  for (const text of ["", "-2", "1.5", "all", "1e3", " 1", "9999999999"]) {
    assert.throws(
      () => parseKeepCount(text),
      (error) => isFailure(error, "InvalidArgument"),
      text,
    );
  }
});

test("a counting rule keeps the newest of each bucket, and the oldest when it has some left", () => {
  const times = ["2026-05-03T10:00:00Z", "2026-05-03T09:00:00Z", "2026-05-01T09:00:00Z", "2026-05-01T08:00:00Z"];
  assert.deepEqual(decide(times, { daily: 2 }), {
    "2026-05-03T10:00:00Z": ["daily snapshot"],
    "2026-05-03T09:00:00Z": [],
    "2026-05-01T09:00:00Z": ["daily snapshot"],
    "2026-05-01T08:00:00Z": [],
  });
  assert.deepEqual(decide(times, { daily: 3 })["2026-05-01T08:00:00Z"], ["oldest daily snapshot"]);
  assert.deepEqual(decide(times, { withinDaily: parseDuration("1y") })["2026-05-01T08:00:00Z"], ["oldest daily within 1y"]);
});

test("unlimited keeps one of every bucket", () => {
  const times = Array.from(
    { length: 40 },
    (_, i) => `2026-04-${String(30 - (i >> 1)).padStart(2, "0")}T${i % 2 === 0 ? "12" : "06"}:00:00Z`,
  );
  const kept = Object.values(decide(times, { daily: UNLIMITED })).filter((reasons) => reasons.length > 0);
  assert.equal(kept.length, 21); // 20 days, and the oldest
});

test("days and weeks are those of the clock where the snapshot was made", () => {
  const times = ["2026-05-02T01:00:00Z", "2026-05-01T23:30:00Z"];
  assert.deepEqual(decide(times, { daily: 1 })["2026-05-01T23:30:00Z"], []);
  assert.deepEqual(decide([...times, "2026-01-01T00:00:00Z"], { daily: 5 })["2026-05-01T23:30:00Z"], ["daily snapshot"]);
  assert.deepEqual(decide([...times, "2026-01-01T00:00:00Z"], { daily: 5 }, 120)["2026-05-01T23:30:00Z"], []);
});

test("ISO weeks go over the turn of the year", () => {
  // 2024-12-30 to 2025-01-05 is week 1 of 2025; 2021-01-03 still belongs to week 53 of 2020
  const times = [
    "2025-01-05T12:00:00Z",
    "2024-12-30T12:00:00Z",
    "2024-12-29T12:00:00Z",
    "2021-01-03T12:00:00Z",
    "2020-12-28T12:00:00Z",
    "2019-01-01T00:00:00Z",
  ];
  const kept = Object.entries(decide(times, { weekly: UNLIMITED })).filter(([, reasons]) => reasons.length > 0);
  assert.deepEqual(
    kept.map(([time]) => time.slice(0, 10)),
    ["2025-01-05", "2024-12-29", "2021-01-03", "2019-01-01"],
  );
});

test("durations count back from the newest snapshot that is not in the future", () => {
  const times = ["2030-01-01T00:00:00Z", "2026-05-10T00:00:00Z", "2026-05-03T00:00:00.000000001Z", "2026-05-03T00:00:00Z"];
  assert.deepEqual(decide(times, { within: parseDuration("7d") }), {
    "2030-01-01T00:00:00Z": ["within 7d"],
    "2026-05-10T00:00:00Z": ["within 7d"],
    "2026-05-03T00:00:00.000000001Z": ["within 7d"],
    "2026-05-03T00:00:00Z": [],
  });
  assert.deepEqual(decide(["2031-01-01T00:00:00Z", "2030-01-01T00:00:00Z"], { within: parseDuration("1h") }), {
    "2031-01-01T00:00:00Z": ["within 1h"],
    "2030-01-01T00:00:00Z": ["within 1h"],
  });
});

test("a policy never keeps less when a rule is added or raised", () => {
  const count = fc.integer({ min: -1, max: 5 });
  const policies = fc.record({ last: count, hourly: count, daily: count, weekly: count, monthly: count, yearly: count });
  const subjects = fc.array(
    fc.record({ timeNs: fc.bigInt({ min: 0n, max: options.nowNs }), timeOffsetMinutes: fc.integer({ min: -720, max: 840 }) }),
    {
      minLength: 1,
      maxLength: 30,
    },
  );
  fc.assert(
    fc.property(subjects, policies, policies, (drawn, first, second) => {
      const list = drawn
        .map((subject) => ({ ...subject, tags: [] }))
        .sort((a, b) => (a.timeNs > b.timeNs ? -1 : a.timeNs < b.timeNs ? 1 : 0));
      const most = (a: number, b: number): number => (a < 0 || b < 0 ? UNLIMITED : Math.max(a, b));
      const raised = Object.fromEntries(Object.entries(first).map(([rule, n]) => [rule, most(n, second[rule as keyof typeof second])])); // its own keys
      const before = applyPolicy(list, { ...emptyPolicy, ...first }, options);
      const after = applyPolicy(list, { ...emptyPolicy, ...raised }, options);
      before.forEach(({ reasons }, i) => assert.ok(reasons.length === 0 || (after[i]?.reasons.length ?? 0) > 0));
      assert.equal(after[0]?.reasons.length === 0, isEmptyPolicy({ ...emptyPolicy, ...raised }));
    }),
  );
});

test("hasTags() wants all tags, and the empty one means none", () => {
  assert.equal(hasTags(["a", "b", "c"], ["c", "a"]), true);
  assert.equal(hasTags(["a"], ["a", "b"]), false);
  assert.equal(hasTags([], [""]), true);
  assert.equal(hasTags(["a"], [""]), false);
  assert.equal(hasTags(["a"], []), true);
});

test("describePolicy() says it as restic does", () => {
  assert.equal(describePolicy(emptyPolicy), "remove");
  assert.equal(isEmptyPolicy(emptyPolicy), true);
  const policy: KeepPolicy = {
    ...emptyPolicy,
    last: 3,
    weekly: UNLIMITED,
    within: parseDuration("2d"),
    withinMonthly: parseDuration("1y6m"),
    tags: [["a", "b"], ["c"]],
  };
  assert.equal(
    describePolicy(policy),
    "keep 3 latest, all weekly snapshots, monthly snapshots within 1y6m and all snapshots with tags [[a, b] [c]] and all snapshots within 2d of the newest",
  );
  assert.equal(isEmptyPolicy({ ...emptyPolicy, tags: [[]] }), false);
});
