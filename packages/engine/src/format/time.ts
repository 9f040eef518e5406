/**
 * Instants as RFC 3339 text with up to nine fractional digits, trailing zeros trimmed, as Go writes them; always in UTC.
 *
 * A file's time is a `bigint` of nanoseconds since 1970, or, where a `bigint` is too slow, whole seconds (rounded down, so negative
 * before 1970) and 0 to 999,999,999 nanoseconds. Years are clamped to 0…9999, month, day and time of day kept, as restic does.
 */
import { Failure } from "@granary/base/errors";

const DAY_SECONDS = 86_400;
const NS_PER_SECOND = 1_000_000_000n;
const TWO_DIGITS: readonly string[] = Array.from({ length: 100 }, (_, n) => String(n).padStart(2, "0"));

/** The longest text of a time, `2006-01-02T15:04:05.999999999Z`. */
export const MAX_TIME_CHARS = 30;

// Files of one folder mostly share a few days, so the last date is kept.
let cachedDay = 0;
const cachedDate = Buffer.from("1970-01-01T", "latin1");
const scratch = Buffer.alloc(MAX_TIME_CHARS);

/** The text of an instant. @param nanos 0 to 999,999,999 */
export function formatTime(seconds: number, nanos: number): string {
  return scratch.latin1Slice(0, writeTime(scratch, 0, seconds, nanos));
}

/**
 * Writes the text of an instant as ASCII; the caller makes sure of {@link MAX_TIME_CHARS} bytes of room.
 *
 * @returns the offset behind it
 */
// oxlint-disable-next-line max-params -- called three times for each file, where an object for the arguments would cost more than the work
export function writeTime(target: Uint8Array, at: number, seconds: number, nanos: number): number {
  const day = Math.floor(seconds / DAY_SECONDS);
  if (day !== cachedDay) {
    cachedDate.write(formatDate(day), "latin1");
    cachedDay = day;
  }
  for (let i = 0; i < 11; i++) target[at + i] = cachedDate[i] ?? 0;
  const ofDay = (seconds - day * DAY_SECONDS) | 0;
  const minutes = (ofDay / 60) | 0;
  writeTwoDigits(target, at + 11, (minutes / 60) | 0);
  target[at + 13] = 0x3a;
  writeTwoDigits(target, at + 14, minutes % 60);
  target[at + 16] = 0x3a;
  writeTwoDigits(target, at + 17, ofDay % 60);
  at += 19;
  if (nanos !== 0) at = writeFraction(target, at, nanos);
  target[at] = 0x5a;
  return at + 1;
}

function writeTwoDigits(target: Uint8Array, at: number, value: number): void {
  const tens = (value / 10) | 0;
  target[at] = 0x30 + tens;
  target[at + 1] = 0x30 + value - tens * 10;
}

function writeFraction(target: Uint8Array, at: number, nanos: number): number {
  target[at] = 0x2e;
  let rest = nanos | 0;
  for (let place = at + 9; place > at; place--) {
    const next = (rest / 10) | 0;
    target[place] = 0x30 + rest - next * 10;
    rest = next;
  }
  let last = at + 9;
  while (target[last] === 0x30) last--;
  return last + 1;
}

/**
 * The text of an instant in nanoseconds since 1970.
 *
 * @param offsetMinutes what the clock that shows it is ahead of UTC, from -1439 to 1439
 */
export function formatTimeNs(timeNs: bigint, offsetMinutes = 0): string {
  const { seconds, nanos } = splitTimeNs(timeNs);
  const text = formatTime(seconds + offsetMinutes * 60, nanos);
  if (offsetMinutes === 0) return text;
  const ahead = Math.abs(offsetMinutes);
  const offset = `${TWO_DIGITS[Math.floor(ahead / 60)] ?? ""}:${TWO_DIGITS[ahead % 60] ?? ""}`;
  return `${text.slice(0, -1)}${offsetMinutes < 0 ? "-" : "+"}${offset}`;
}

/** What the clock that wrote an RFC 3339 text was ahead of UTC, in minutes; 0 when the text says nothing of it. */
export function offsetMinutesOf(text: string): number {
  const [, sign, hours, minutes] = /([+-])(\d\d):(\d\d)$/.exec(text) ?? [];
  return sign === undefined ? 0 : (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) || 0;
}

/** Whole seconds, rounded down, and the nanoseconds above them. */
export function splitTimeNs(timeNs: bigint): { readonly seconds: number; readonly nanos: number } {
  let seconds = timeNs / NS_PER_SECOND;
  let nanos = Number(timeNs - seconds * NS_PER_SECOND);
  if (nanos < 0) {
    seconds -= 1n;
    nanos += 1e9;
  }
  return { seconds: Number(seconds), nanos };
}

/** Nanoseconds since 1970. */
export function joinTimeNs(seconds: number, nanos: number): bigint {
  // up to 2^53 ns, that is April 1970, a double would do; beyond, only the product needs to be exact
  return BigInt(seconds) * NS_PER_SECOND + BigInt(nanos);
}

/** `YYYY-MM-DD` of a day counted from 1970-01-01, its year clamped. */
function formatDate(day: number): string {
  const date = civilOfDay(day);
  let { year } = date;
  let { month, dayOfMonth } = date;
  if (year < 0) year = 0;
  if (year > 9999) {
    year = 9999;
    // a leap day does not exist in 9999; Go goes on to the next day
    if (month === 2 && dayOfMonth === 29) {
      month = 3;
      dayOfMonth = 1;
    }
  }
  return `${String(year).padStart(4, "0")}-${TWO_DIGITS[month] ?? ""}-${TWO_DIGITS[dayOfMonth] ?? ""}`;
}

// The proleptic Gregorian calendar, counted in eras of 400 years (146,097 days) that begin on 1 March, so that leap days come last.
function civilOfDay(day: number): { readonly year: number; readonly month: number; readonly dayOfMonth: number } {
  const shifted = day + 719_468;
  const era = Math.floor(shifted / 146_097);
  const ofEra = shifted - era * 146_097;
  const yearOfEra = Math.floor((ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) / 365);
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shiftedMonth = Math.floor((5 * ofYear + 2) / 153);
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  return { year, month, dayOfMonth: ofYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1 };
}

function dayOfCivil(year: number, month: number, dayOfMonth: number): number {
  const shiftedYear = month <= 2 ? year - 1 : year;
  const era = Math.floor(shiftedYear / 400);
  const yearOfEra = shiftedYear - era * 400;
  const ofYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + dayOfMonth - 1;
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + ofYear - 719_468;
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0 ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** The result of the last successful {@link readTime}: whole seconds and nanoseconds. Valid until the next call. */
export const lastTime: { seconds: number; nanos: number } = { seconds: 0, nanos: 0 };

/**
 * Reads an RFC 3339 time from ASCII bytes into {@link lastTime}, allocating nothing.
 *
 * Any numeric offset is accepted; digits beyond the ninth are dropped; leap seconds are refused, as by Go.
 *
 * @returns false when the bytes from `start` to `end` are no such time
 */
export function readTime(bytes: Uint8Array, start: number, end: number): boolean {
  // 2006-01-02T15:04:05Z is the shortest
  if (end - start < 20 || bytes[start + 4] !== 0x2d || bytes[start + 7] !== 0x2d || bytes[start + 10] !== 0x54) return false;
  if (bytes[start + 13] !== 0x3a || bytes[start + 16] !== 0x3a) return false;
  const century = readTwoDigits(bytes, start);
  const year = century * 100 + readTwoDigits(bytes, start + 2);
  const month = readTwoDigits(bytes, start + 5);
  const dayOfMonth = readTwoDigits(bytes, start + 8);
  const hours = readTwoDigits(bytes, start + 11);
  const minutes = readTwoDigits(bytes, start + 14);
  const seconds = readTwoDigits(bytes, start + 17);
  // not a number fails each comparison
  if (!(year >= 0 && month >= 1 && month <= 12 && dayOfMonth >= 1 && dayOfMonth <= daysInMonth(year, month))) return false;
  if (!(hours <= 23 && minutes <= 59 && seconds <= 59)) return false;
  let at = start + 19;
  let nanos = 0;
  if (bytes[at] === 0x2e) {
    let scale = 100_000_000;
    const first = ++at;
    for (; at < end; at++) {
      const digit = (bytes[at] ?? 0) - 0x30;
      if (digit < 0 || digit > 9) break;
      nanos += digit * scale;
      scale = (scale / 10) | 0;
    }
    if (at === first) return false;
  }
  const offsetSeconds = readOffset(bytes, at, end);
  if (Number.isNaN(offsetSeconds)) return false;
  lastTime.seconds = dayOfCivil(year, month, dayOfMonth) * DAY_SECONDS + hours * 3600 + minutes * 60 + seconds - offsetSeconds;
  lastTime.nanos = nanos;
  return true;
}

function readOffset(bytes: Uint8Array, at: number, end: number): number {
  if (end - at === 1 && bytes[at] === 0x5a) return 0;
  const sign = bytes[at];
  if (end - at !== 6 || (sign !== 0x2b && sign !== 0x2d) || bytes[at + 3] !== 0x3a) return Number.NaN;
  const hours = readTwoDigits(bytes, at + 1);
  const minutes = readTwoDigits(bytes, at + 4);
  if (!(hours <= 23 && minutes <= 59)) return Number.NaN;
  return (sign === 0x2d ? -1 : 1) * (hours * 3600 + minutes * 60);
}

function readTwoDigits(bytes: Uint8Array, at: number): number {
  const tens = (bytes[at] ?? 0) - 0x30;
  const ones = (bytes[at + 1] ?? 0) - 0x30;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN;
}

/** Nanoseconds since 1970 of an RFC 3339 text, or `undefined` when it is none. */
export function findTimeNs(text: string): bigint | undefined {
  const bytes = Buffer.from(text, "utf8");
  return readTime(bytes, 0, bytes.length) ? joinTimeNs(lastTime.seconds, lastTime.nanos) : undefined;
}

/** Nanoseconds since 1970 of an RFC 3339 text. @throws InvalidArgument */
export function parseTimeNs(text: string): bigint {
  const timeNs = findTimeNs(text);
  if (timeNs !== undefined) return timeNs;
  const found = text.length > 60 ? `${text.slice(0, 60)}…` : text;
  throw new Failure("InvalidArgument", `Cannot read time "${found}": RFC 3339 needed, such as 2026-01-31T08:00:00.5Z`);
}
