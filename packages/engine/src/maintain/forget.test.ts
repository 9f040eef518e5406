import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { sha256Hex } from "../crypto/hash.ts";
import { parseSnapshotId } from "../format/ids.ts";
import { parseTimeNs } from "../format/time.ts";
import { saveFile } from "../repository/files.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { createMemoryStore } from "../store/memory.ts";
import { parseDuration } from "./calendar-duration.ts";
import {
  type ForgetEvent,
  type ForgetPlan,
  type ForgetSubject,
  groupByHostAndPaths,
  parseGroupBy,
  planForget,
  planForgetOf,
  type PlanForgetOptions,
  runForget,
} from "./forget.ts";
import { emptyPolicy, type KeepPolicy, parseKeepCount } from "./keep-policy.ts";
import { ResticRunner } from "./restic-runner.ts";

const options: PlanForgetOptions = {
  groupBy: groupByHostAndPaths,
  nowNs: parseTimeNs("2026-11-01T00:00:00Z"),
  timeZone: "UTC",
  allowRemoveAll: false,
  isFiltered: false,
};

function subject(time: string, more: Partial<ForgetSubject> = {}): ForgetSubject {
  const base = { timeNs: parseTimeNs(time), timeOffsetMinutes: 0, tags: [], hostname: "h", paths: ["/p"], ...more };
  return { id: parseSnapshotId(sha256Hex(Buffer.from(`${time}${base.hostname}${base.paths.join()}${base.tags.join()}`))), ...base };
}

test("parseGroupBy() reads restic's names", () => {
  assert.deepEqual(parseGroupBy("host,paths"), groupByHostAndPaths);
  assert.deepEqual(parseGroupBy(" tag , hosts,"), { host: true, paths: false, tags: true });
  assert.deepEqual(parseGroupBy(""), { host: false, paths: false, tags: false });
  assert.throws(() => parseGroupBy("host,user"), /Cannot group by "user"/);
});

test("planForget() decides on each group by itself, and does not mind the order of paths and tags", () => {
  const snapshots = [
    subject("2026-01-01T00:00:00Z", { paths: ["/a", "/b"], tags: ["x", "y"] }),
    subject("2026-01-02T00:00:00Z", { paths: ["/b", "/a"], tags: ["y", "x"] }),
    subject("2026-01-03T00:00:00Z", { paths: ["/a"] }),
    subject("2026-01-04T00:00:00Z", { hostname: "other", paths: ["/a"] }),
  ];
  const days = (plan: ForgetPlan<ForgetSubject>): number[] => plan.remove.map(({ timeNs }) => Number(timeNs / 86_400_000_000_000n) % 7);
  const policy: KeepPolicy = { ...emptyPolicy, last: 1 };
  const plan = planForget(snapshots, policy, { ...options, groupBy: parseGroupBy("host,paths,tags") });
  assert.deepEqual(
    plan.groups.map(({ host, paths, tags, keep, remove }) => [host, paths, tags, keep.length, remove.length]),
    [
      ["h", ["/a", "/b"], ["x", "y"], 1, 1],
      ["h", ["/a"], [], 1, 0],
      ["other", ["/a"], [], 1, 0],
    ],
  );
  assert.equal(plan.remove[0], snapshots[0]);
  assert.equal(days(planForget(snapshots, policy, { ...options, groupBy: parseGroupBy("") })).length, 3);
  assert.equal(plan.policy, "keep 1 latest snapshots");
});

test("planForget() refuses what would remove everything, unless that is allowed", () => {
  const snapshots = [subject("2026-01-01T00:00:00Z"), subject("2026-01-02T00:00:00Z")];
  const refused = (policy: KeepPolicy, more: Partial<PlanForgetOptions> = {}): void =>
    assert.throws(
      () => planForget(snapshots, policy, { ...options, ...more }),
      (error) => isFailure(error, "InvalidArgument"),
    );
  refused(emptyPolicy);
  refused(emptyPolicy, { isFiltered: true });
  refused(emptyPolicy, { allowRemoveAll: true });
  refused({ ...emptyPolicy, tags: [["never"]] });
  assert.equal(planForget(snapshots, emptyPolicy, { ...options, allowRemoveAll: true, isFiltered: true }).remove.length, 2);
  assert.equal(planForget(snapshots, { ...emptyPolicy, tags: [["never"]] }, { ...options, allowRemoveAll: true }).remove.length, 2);
  assert.deepEqual(planForget([], { ...emptyPolicy, last: 1 }, options).groups, []);
});

test("runForget() removes what the plan says, twice if need be, and reports what it cannot remove", async () => {
  const store = createFaultyStore(createMemoryStore(), [{ operation: "remove", mode: "before", nth: 1 }]);
  const snapshots = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"].map((time) => subject(time));
  for (const { id } of snapshots) await store.save({ kind: "snapshot", name: id }, Buffer.from(id));
  const plan = planForgetOf(snapshots.slice(0, 2));
  const events: ForgetEvent[] = [];
  const first = await runForget(store, plan, { onEvent: (event) => events.push(event) });
  assert.deepEqual([first.removed.length, first.failed.length], [1, 1]);
  assert.deepEqual(events.map(({ kind }) => kind).sort(), ["failed", "removed"]);
  assert.equal((await runForget(store, plan)).removed.length, 2);
  const left = await Array.fromAsync(store.list("snapshot"));
  assert.deepEqual(
    left.map(({ name }) => name),
    [snapshots[2]?.id],
  );
});

interface ResticGroup {
  readonly host: string;
  readonly paths: readonly string[] | null;
  readonly tags: readonly string[] | null;
  readonly keep: readonly { readonly id: string }[] | null;
  readonly remove: readonly { readonly id: string }[] | null;
  readonly reasons: readonly { readonly matches: readonly string[]; readonly counters?: object }[] | null;
}

/** What is compared with restic: of each group the ids kept, with their reasons, and those removed. */
type Verdict = Record<string, { keep: [id: string, matches: readonly string[], counters: object][]; remove: string[] }>;

test("planForget() chooses what restic chooses, for many policies, times, time zones, tags and hosts", {
  skip: skipWithout("restic"),
}, async () => {
  const random = makeRandom(20_261_120);
  const drawn = Array.from({ length: 110 }, (_, i) => drawSnapshot(random, i));
  // two in the future
  drawn.push({ time: "2093-01-01T00:00:00Z", hostname: "alpha", paths: ["/home"], tags: [] });
  drawn.push({ time: "2091-06-01T12:00:00+02:00", hostname: "beta", paths: ["/srv", "/home"], tags: ["db"] });
  for (const timeZone of ["UTC", "Europe/Vienna"]) {
    using runner = new ResticRunner({ timeZone });
    const repository = await runner.create();
    const subjects: ForgetSubject[] = [];
    for (const { time, ...fields } of drawn) {
      const json = Buffer.from(JSON.stringify({ time, tree: "00".repeat(32), ...fields }));
      subjects.push({
        id: await saveFile(repository, { kind: "snapshot", json }),
        timeNs: parseTimeNs(time),
        timeOffsetMinutes: offsetOf(time),
        ...fields,
      });
    }
    const isOld = /^restic 0\.1[0-5]\./.test(runner.run("version"));
    const policies = [...fixedPolicies, ...Array.from({ length: timeZone === "UTC" ? 25 : 10 }, () => drawPolicy(random))];
    for (const flags of policies) {
      const found = runner.run("forget", "--dry-run", "--no-lock", "--json", ...flags);
      const expected = readVerdict(JSON.parse(found === "" ? "[]" : found) as ResticGroup[]); // restic's own JSON
      assert.ok(Object.keys(expected).length > 0);
      const groupAt = flags.indexOf("--group-by");
      const plan = planForget(subjects, parsePolicyFlags(flags), {
        ...options,
        timeZone,
        allowRemoveAll: true,
        ...(groupAt < 0 ? {} : { groupBy: parseGroupBy(flags[groupAt + 1] ?? "") }),
      });
      assert.deepEqual(verdictOf(plan, isOld), expected, `${timeZone}: ${flags.join(" ")}`);
    }
  }
});

const fixedPolicies: readonly (readonly string[])[] = [
  ["--keep-last", "1"],
  ["--keep-last", "1000"],
  ["--keep-hourly", "24", "--group-by", ""],
  ["--keep-daily", "7", "--keep-weekly", "5", "--keep-monthly", "12", "--keep-yearly", "10"],
  ["--keep-weekly", "200", "--group-by", "host"],
  ["--keep-within", "1y"],
  ["--keep-within", "3h", "--group-by", ""],
  ["--keep-within-daily", "6m", "--keep-within-yearly", "9y", "--group-by", ""],
  ["--keep-within-hourly", "13m30d", "--group-by", "tags"],
  ["--keep-tag", "db", "--keep-tag", "daily,manual"],
  ["--keep-tag", ""],
  ["--keep-within", "10y2m", "--keep-last", "2", "--group-by", "paths,tags"],
];

const ruleFlags = ["last", "hourly", "daily", "weekly", "monthly", "yearly"] as const;
const withinFlags = ["within", "within-hourly", "within-daily", "within-weekly", "within-monthly", "within-yearly"] as const;

type Random = (below: number) => number;

/** A small generator of its own, so that a failing case stays the same. (xorshift32) */
function makeRandom(seed: number): Random {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function drawSnapshot(random: Random, place: number): { time: string; hostname: string; paths: string[]; tags: string[] } {
  const offsets = ["Z", "+01:00", "+02:00", "-05:00", "+05:30", "+14:00"];
  const two = (n: number): string => String(n).padStart(2, "0");
  // crowded around the turns of days, weeks and years, where time zones decide
  const date =
    random(3) === 0
      ? `20${two(22 + random(4))}-${random(2) === 0 ? "12-31" : "01-01"}`
      : `20${two(22 + random(4))}-${two(1 + random(12))}-${two(1 + random(28))}`;
  const hour = random(2) === 0 ? (random(2) === 0 ? 23 : 0) : random(24);
  const fraction = random(2) === 0 ? "" : `.${String(1 + random(999_999_998)).padStart(9, "0")}`;
  return {
    // a place of its own for each, since restic does not order equal times
    time: `${date}T${two(hour)}:${two(place % 60)}:${two(random(60))}${fraction}${offsets[random(offsets.length)] ?? "Z"}`,
    hostname: ["alpha", "beta"][random(2)] ?? "",
    paths: [["/home"], ["/srv", "/home"], ["/home", "/srv"]][random(3)] ?? [],
    tags: [[], ["db"], ["daily", "manual"], ["manual", "db", "daily"]][random(4)] ?? [],
  };
}

function drawPolicy(random: Random): string[] {
  const flags: string[] = [];
  for (const rule of ruleFlags) if (random(3) === 0) flags.push(`--keep-${rule}`, String(1 + random(8)));
  for (const rule of withinFlags)
    if (random(5) === 0) flags.push(`--keep-${rule}`, `${random(3)}y${random(14)}m${random(40)}d${1 + random(30)}h`);
  if (random(4) === 0) flags.push("--keep-tag", ["db", "manual,daily", "none"][random(3)] ?? "");
  if (flags.length === 0) flags.push("--keep-last", "3");
  return [...flags, "--group-by", ["", "host", "paths", "host,paths", "tags", "host,tags"][random(6)] ?? ""];
}

function parsePolicyFlags(flags: readonly string[]): KeepPolicy {
  const policy: Record<string, unknown> = { ...emptyPolicy, tags: [] };
  for (let i = 0; i < flags.length; i += 2) {
    const name = (flags[i] ?? "").replace("--keep-", "");
    const value = flags[i + 1] ?? "";
    const field = name.replace(/-(.)/, (_, letter: string) => letter.toUpperCase());
    if (name === "tag")
      policy.tags = [...(policy.tags as string[][]), value.split(",")]; // built here
    else if (name.startsWith("within")) policy[field] = parseDuration(value);
    else if (name !== "--group-by") policy[field] = parseKeepCount(value);
  }
  return policy as unknown as KeepPolicy; // every field is there, from emptyPolicy
}

function offsetOf(time: string): number {
  const [, sign, hours, minutes] = /([+-])(\d\d):(\d\d)$/.exec(time) ?? [];
  return sign === undefined ? 0 : (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
}

function readVerdict(groups: readonly ResticGroup[]): Verdict {
  return Object.fromEntries(
    groups.map(({ host, paths, tags, keep, remove, reasons }) => [
      JSON.stringify([host, paths, tags ?? []]),
      {
        keep: (keep ?? []).map(({ id }, i) => [id, reasons?.[i]?.matches ?? [], reasons?.[i]?.counters ?? {}]),
        remove: (remove ?? []).map(({ id }) => id),
      },
    ]),
  );
}

/** @param isOld whether restic does not yet keep the oldest snapshot where a rule has some left (before 0.16) */
function verdictOf(plan: ForgetPlan<ForgetSubject>, isOld: boolean): Verdict {
  return Object.fromEntries(
    plan.groups.map(({ host, paths, tags, reasons, remove }) => {
      const verdict: Verdict[string] = { keep: [], remove: remove.map(({ id }) => id) };
      for (const { snapshot, matches, counters } of reasons) {
        const known = isOld ? matches.filter((match) => !match.startsWith("oldest ")) : matches;
        // the counters of rules that went on to the oldest are one higher there
        const oldest = matches.filter((match) => isOld && /^oldest \w+ snapshot$/.test(match)).map((match) => match.split(" ")[1] ?? "");
        const left = { ...counters } as Record<string, number>; // the same, to be changed
        for (const rule of oldest) left[rule] = (left[rule] ?? 0) + 1;
        if (known.length > 0) verdict.keep.push([snapshot.id, known, left]);
        else verdict.remove.push(snapshot.id);
      }
      return [JSON.stringify([host, paths, tags ?? []]), verdict];
    }),
  );
}
