/**
 * Which snapshots of a group a policy keeps, and why: restic's rules, restated.
 *
 * Snapshots are looked at from the newest to the oldest. Each rule that counts keeps the newest of every hour, day, ISO week, month or
 * year it meets until its count is used up; each rule with a duration does so for the snapshots made within it, counted back from the
 * newest snapshot that is not in the future. The oldest snapshot also fills what a rule has left (as restic does since 0.16), so that the
 * history reaches back as far as it can. Hours, days and so on are those of the clock where the snapshot was made, which its time names.
 *
 * @see restic manual, "Removing backup snapshots"; restic/internal/data/snapshot_policy.go
 */
import { Failure } from "@granary/base/errors";
import { type CalendarDuration, formatDuration, isNoDuration, noDuration, showWallClock, subtractDuration } from "./calendar-duration.ts";

/** As a count: no limit. */
export const UNLIMITED = -1;

/** What to keep. Counts are 0 (the rule does not apply) or more, or {@link UNLIMITED}. */
export interface KeepPolicy {
  readonly last: number;
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
  readonly yearly: number;
  readonly within: CalendarDuration;
  readonly withinHourly: CalendarDuration;
  readonly withinDaily: CalendarDuration;
  readonly withinWeekly: CalendarDuration;
  readonly withinMonthly: CalendarDuration;
  readonly withinYearly: CalendarDuration;
  /** Keeps what has all tags of one of the lists; see {@link hasTags}. */
  readonly tags: readonly (readonly string[])[];
}

/** The policy without rules. */
export const emptyPolicy: KeepPolicy = {
  last: 0,
  hourly: 0,
  daily: 0,
  weekly: 0,
  monthly: 0,
  yearly: 0,
  within: noDuration,
  withinHourly: noDuration,
  withinDaily: noDuration,
  withinWeekly: noDuration,
  withinMonthly: noDuration,
  withinYearly: noDuration,
  tags: [],
};

/** What a policy looks at. */
export interface KeepSubject {
  readonly timeNs: bigint;
  /** What the clock of the snapshot's time is ahead of UTC. */
  readonly timeOffsetMinutes: number;
  readonly tags: readonly string[];
}

/** What a policy decides of one snapshot. */
export interface KeepDecision<S> {
  readonly snapshot: S;
  /** Which rules keep it, in restic's words; none: it is to be removed. */
  readonly reasons: readonly string[];
  /** What each counting rule has left, in the order of {@link countRules}, after this snapshot. */
  readonly counters: readonly number[];
}

type Bucket = (clock: Date, place: number) => number;

const hourOf: Bucket = (clock) => dayOf(clock, 0) * 100 + clock.getUTCHours();
const dayOf: Bucket = (clock) => monthOf(clock, 0) * 100 + clock.getUTCDate();
const monthOf: Bucket = (clock) => clock.getUTCFullYear() * 100 + clock.getUTCMonth() + 1;
const yearOf: Bucket = (clock) => clock.getUTCFullYear();

/** The rules that count, in restic's order. */
export const countRules: readonly ("last" | "hourly" | "daily" | "weekly" | "monthly" | "yearly")[] = [
  "last",
  "hourly",
  "daily",
  "weekly",
  "monthly",
  "yearly",
];
const countBuckets: Readonly<Record<(typeof countRules)[number], Bucket>> = {
  last: (_clock, place) => place,
  hourly: hourOf,
  daily: dayOf,
  weekly: weekOf,
  monthly: monthOf,
  yearly: yearOf,
};
const withinRules = [
  ["withinHourly", "hourly", hourOf],
  ["withinDaily", "daily", dayOf],
  ["withinWeekly", "weekly", weekOf],
  ["withinMonthly", "monthly", monthOf],
  ["withinYearly", "yearly", yearOf],
] as const;

/** Year and number of the ISO week: the one that has the Thursday. */
function weekOf(clock: Date): number {
  const thursday = new Date(clock.getTime() + (3 - ((clock.getUTCDay() + 6) % 7)) * 86_400_000);
  const year = thursday.getUTCFullYear();
  const newYear = new Date(0);
  newYear.setUTCFullYear(year, 0, 1);
  return year * 100 + 1 + Math.floor((thursday.getTime() - newYear.getTime()) / (7 * 86_400_000));
}

/** Reads a count: a whole number of 0 or more, or `unlimited`. @throws InvalidArgument */
export function parseKeepCount(text: string): number {
  if (text === "unlimited" || text === "-1") return UNLIMITED;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Failure("InvalidArgument", `Cannot read "${text}" as a number of snapshots to keep: a whole number or "unlimited" is needed`);
}

/** Whether a policy has no rule at all. */
export function isEmptyPolicy(policy: KeepPolicy): boolean {
  return (
    policy.tags.length === 0 &&
    isNoDuration(policy.within) &&
    countRules.every((rule) => policy[rule] === 0) &&
    withinRules.every(([rule]) => isNoDuration(policy[rule]))
  );
}

/** A policy in words, as restic prints it. */
export function describePolicy(policy: KeepPolicy): string {
  const counts = countRules
    .filter((rule) => policy[rule] !== 0)
    .map((rule) => `${policy[rule] === UNLIMITED ? "all" : policy[rule]} ${rule === "last" ? "latest" : rule}`);
  const withins = withinRules
    .filter(([rule]) => !isNoDuration(policy[rule]))
    .map(([rule, name]) => `${name} snapshots within ${formatDuration(policy[rule])}`);
  const listed = [...(counts.length === 0 ? [] : [`${counts.join(", ")} snapshots`]), ...withins].join(", ");
  const tags = policy.tags.length === 0 ? "" : `all snapshots with tags [${policy.tags.map(formatTags).join(" ")}]`;
  const within = isNoDuration(policy.within) ? "" : `all snapshots within ${formatDuration(policy.within)} of the newest`;
  const parts = [listed, tags, within].filter((part) => part !== "");
  return parts.length === 0 ? "remove" : `keep ${parts.join(" and ")}`;
}

/** A list of tags in restic's form. */
export function formatTags(tags: readonly string[]): string {
  return `[${tags.join(", ")}]`;
}

/** Whether a snapshot's tags contain all those wanted. The empty tag stands for having none at all. */
export function hasTags(tags: readonly string[], wanted: readonly string[]): boolean {
  for (const tag of wanted) {
    if (tag === "" && tags.length === 0) return true;
    if (!tags.includes(tag)) return false;
  }
  return true;
}

/**
 * Decides on each snapshot of one group.
 *
 * @param snapshots of one group, newest first
 * @param options.nowNs snapshots from this instant on are in the future
 * @param options.timeZone the machine's, such as `Europe/Vienna`; see `subtractDuration`
 * @returns one decision a snapshot, in the same order
 */
export function applyPolicy<S extends KeepSubject>(
  snapshots: readonly S[],
  policy: KeepPolicy,
  options: { readonly nowNs: bigint; readonly timeZone: string },
): KeepDecision<S>[] {
  const latest = snapshots.find((snapshot) => snapshot.timeNs < options.nowNs);
  // when all are in the future, durations have nothing to count back from, and keep everything
  const sinceOf = (duration: CalendarDuration): bigint =>
    latest === undefined
      ? -(2n ** 63n)
      : subtractDuration(latest.timeNs, duration, { offsetMinutes: latest.timeOffsetMinutes, timeZone: options.timeZone });
  const counting = countRules.map((rule) => new Rule(`${rule} snapshot`, countBuckets[rule], policy[rule]));
  const within = withinRules
    .filter(([rule]) => !isNoDuration(policy[rule]))
    .map(([rule, name, bucket]) => ({
      rule: new Rule(`${name} within ${formatDuration(policy[rule])}`, bucket, UNLIMITED),
      sinceNs: sinceOf(policy[rule]),
    }));
  const allSinceNs = isNoDuration(policy.within) ? undefined : sinceOf(policy.within);

  return snapshots.map((snapshot, place) => {
    const isOldest = place === snapshots.length - 1;
    const clock = showWallClock(snapshot.timeNs, snapshot.timeOffsetMinutes);
    const reasons = policy.tags.filter((tags) => hasTags(snapshot.tags, tags)).map((tags) => `has tags ${formatTags(tags)}`);
    if (allSinceNs !== undefined && snapshot.timeNs > allSinceNs) reasons.push(`within ${formatDuration(policy.within)}`);
    for (const rule of counting) reasons.push(...rule.judge(clock, place, isOldest));
    for (const { rule, sinceNs } of within) if (snapshot.timeNs > sinceNs) reasons.push(...rule.judge(clock, place, isOldest));
    return { snapshot, reasons, counters: counting.map((rule) => rule.left) };
  });
}

/** A rule that keeps the first it meets in each bucket. */
class Rule {
  left: number;
  readonly #reason: string;
  readonly #bucket: Bucket;
  #last = -1;

  constructor(reason: string, bucket: Bucket, count: number) {
    this.#reason = reason;
    this.#bucket = bucket;
    this.left = count;
  }

  /** @returns the reason to keep the snapshot, if any */
  judge(clock: Date, place: number, isOldest: boolean): string[] {
    if (this.left === 0) return [];
    const value = this.#bucket(clock, place);
    const isSame = value === this.#last;
    if (isSame && !isOldest) return [];
    this.#last = value;
    if (this.left > 0) this.left--;
    return [isSame ? `oldest ${this.#reason}` : this.#reason];
  }
}
