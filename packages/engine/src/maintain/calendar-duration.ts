/** Durations in years, months, days and hours, as restic's `--keep-within` takes them: `2y5m7d3h`. */
import { Failure } from "@granary/base/errors";

/** Whole numbers of 0 or more. Years and months have no fixed length: they are counted back on the calendar. */
export interface CalendarDuration {
  readonly years: number;
  readonly months: number;
  readonly days: number;
  readonly hours: number;
}

export const noDuration: CalendarDuration = { years: 0, months: 0, days: 0, hours: 0 };

const units = { y: "years", m: "months", d: "days", h: "hours" } as const;

/**
 * Reads a duration; white space around it is ignored, and the empty text is {@link noDuration}. Of a unit given twice the last counts.
 *
 * @throws InvalidArgument
 */
export function parseDuration(text: string): CalendarDuration {
  const found = { ...noDuration };
  const wanted = text.trim();
  if (!/^(?:\d{1,9}[ymdh])*$/.test(wanted)) {
    throw new Failure("InvalidArgument", `Cannot read duration "${text}": whole numbers with y, m, d or h are needed, such as 1y5m7d2h`);
  }
  for (const [, count, unit] of wanted.matchAll(/(\d+)([ymdh])/g)) {
    if (unit === "y" || unit === "m" || unit === "d" || unit === "h") found[units[unit]] = Number(count);
  }
  return found;
}

/** The text of a duration, units of 0 left out. */
export function formatDuration(duration: CalendarDuration): string {
  return Object.entries(units)
    .map(([letter, unit]) => (duration[unit] === 0 ? "" : `${duration[unit]}${letter}`))
    .join("");
}

export function isNoDuration(duration: CalendarDuration): boolean {
  return formatDuration(duration) === "";
}

const nsPerMs = 1_000_000n;
const nsPerMinute = 60_000_000_000n;
const nsPerHour = 3_600_000_000_000n;

/**
 * The instant a duration before another, as Go computes it: years, months and days are taken off the date as the clock on the wall shows
 * it, a day that the month does not have goes on into the next (31 March less a month is 3 March), then the hours are taken off.
 *
 * @param offsetMinutes what the wall clock is ahead of UTC at that instant
 * @param timeZone the machine's; where its offset is the given one, its summer time is followed back, as Go does
 */
export function subtractDuration(timeNs: bigint, duration: CalendarDuration, zone: { offsetMinutes: number; timeZone: string }): bigint {
  const { years, months, days, hours } = duration;
  const wallNs = timeNs + BigInt(zone.offsetMinutes) * nsPerMinute;
  const date = showWallClock(timeNs, zone.offsetMinutes);
  const ofDayNs = wallNs - BigInt(startOfDayMs(date)) * nsPerMs;
  date.setUTCFullYear(date.getUTCFullYear() - years, date.getUTCMonth() - months, date.getUTCDate() - days);
  // beyond what a Date can hold lies before every snapshot
  if (Number.isNaN(date.getTime())) return -(2n ** 63n);
  const earlierNs = BigInt(startOfDayMs(date)) * nsPerMs + ofDayNs;
  return earlierNs - offsetNsAt(earlierNs, timeNs, zone) - BigInt(hours) * nsPerHour;
}

/** What a clock ahead of UTC shows, as the UTC fields of a `Date`; rounded down to milliseconds. */
export function showWallClock(timeNs: bigint, offsetMinutes: number): Date {
  const aboveMs = ((timeNs % nsPerMs) + nsPerMs) % nsPerMs;
  return new Date(Number((timeNs - aboveMs) / nsPerMs) + offsetMinutes * 60_000);
}

function startOfDayMs(date: Date): number {
  return Math.floor(date.getTime() / 86_400_000) * 86_400_000;
}

/** What the wall clock that shows `wallNs` is ahead of UTC, when it is ahead by the zone's offset at `timeNs`. */
function offsetNsAt(wallNs: bigint, timeNs: bigint, { offsetMinutes, timeZone }: { offsetMinutes: number; timeZone: string }): bigint {
  const fixedNs = BigInt(offsetMinutes) * nsPerMinute;
  if (timeZone === "UTC" || offsetNsOf(timeNs, timeZone) !== fixedNs) return fixedNs;
  const wall = Temporal.Instant.fromEpochNanoseconds(wallNs).toZonedDateTimeISO("UTC").toPlainDateTime();
  return BigInt(wall.toZonedDateTime(timeZone).offsetNanoseconds);
}

function offsetNsOf(timeNs: bigint, timeZone: string): bigint {
  return BigInt(Temporal.Instant.fromEpochNanoseconds(timeNs).toZonedDateTimeISO(timeZone).offsetNanoseconds);
}
