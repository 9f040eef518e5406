/** Points in time and spans of it as users write them. */

import { Failure } from "@granary/base/errors";

const timePattern = /^(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?$/;
const dottedPattern = /^(\d{2})\.(\d{2})\.(\d{4})(.*)$/;

/**
 * Reads a point in time: `2026-01-31`, `2026-01-31 08:00`, `2026-01-31 08:00:00`, RFC 3339, or with `31.01.2026` for the date; in the
 * zone that is written behind it, else in the machine's.
 *
 * @param flag what the time was given for, for the message
 * @returns nanoseconds since 1970
 * @throws InvalidArgument
 */
export function parsePointNs(text: string, flag: string): bigint {
  const [, year, month, day, hour = "00", minute = "00", second = "00", fraction = "", zone] =
    timePattern.exec(text.trim().replace(dottedPattern, "$3-$2-$1$4")) ?? [];
  try {
    const plain = Temporal.PlainDateTime.from(`${year ?? ""}-${month ?? ""}-${day ?? ""}T${hour}:${minute}:${second}${fraction}`, {
      overflow: "reject",
    });
    return plain.toZonedDateTime(timeZoneOf(zone)).epochNanoseconds;
  } catch (cause) {
    throw new Failure("InvalidArgument", `Cannot use ${flag} "${text}": a time such as "2026-01-31 08:00:00" is needed`, { cause });
  }
}

function timeZoneOf(zone: string | undefined): string {
  if (zone === undefined) return Temporal.Now.timeZoneId();
  return zone === "Z" || zone === "UTC" ? "UTC" : zone.includes(":") ? zone : `${zone.slice(0, 3)}:${zone.slice(3)}`;
}

const unitsMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Reads a span of time as Go writes it: `90s`, `5m`, `1h30m`.
 *
 * @returns milliseconds
 * @throws InvalidArgument
 */
export function parseSpanMs(text: string, flag: string): number {
  const wanted = text.trim();
  if (wanted === "0") return 0;
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(wanted)) {
    throw new Failure("InvalidArgument", `Cannot use ${flag} "${text}": a time such as 90s, 5m or 1h30m is needed`);
  }
  let sumMs = 0;
  for (const [, count, unit] of wanted.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) sumMs += Number(count) * (unitsMs[unit ?? ""] ?? 0);
  return sumMs;
}
