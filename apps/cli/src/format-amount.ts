/** Amounts as people read them; sizes and times as restic prints them. */

const units = [
  ["TiB", 2 ** 40],
  ["GiB", 2 ** 30],
  ["MiB", 2 ** 20],
  ["KiB", 2 ** 10],
] as const;

/** A size such as `1.204 GiB`, or `17 B`. */
export function formatBytes(sizeBytes: number | bigint): string {
  const size = Number(sizeBytes);
  const [unit, factor] = units.find(([, least]) => size >= least) ?? ["B", 1];
  return factor === 1 ? `${size} B` : `${(size / factor).toFixed(3)} ${unit}`;
}

/** A rate such as `230.1 MiB/s`. */
export function formatRate(sizeBytes: number, durationMs: number): string {
  const perSecond = durationMs > 0 ? (sizeBytes * 1000) / durationMs : 0;
  const [unit, factor] = units.find(([, least]) => perSecond >= least) ?? ["B", 1];
  return `${(perSecond / factor).toFixed(factor === 1 ? 0 : 1)} ${unit}/s`;
}

/** A duration such as `0:05`, `12:40` or `1:02:03`. */
export function formatSpan(durationMs: number): string {
  const seconds = Math.max(0, Math.round(durationMs / 1000));
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const two = (count: number): string => String(count).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** A number with commas between its thousands. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/g, ",");
}

/** `1 file`, `2 files`. */
export function formatMany(count: number, noun: string, plural: string = `${noun}s`): string {
  return `${formatCount(count)} ${count === 1 ? noun : plural}`;
}

/** A part of a whole such as `12.3 %`; never 100 before it is whole. */
export function formatPercent(part: number, whole: number): string {
  if (whole <= 0) return "0.0 %";
  const tenths = part >= whole ? 1000 : Math.min(999, Math.floor((part / whole) * 1000));
  return `${(tenths / 10).toFixed(1)} %`;
}

/** A point in time in the machine's zone, as `2026-01-31 08:00:00`. */
export function formatLocalTime(timeNs: bigint): string {
  const ms = Number(timeNs / 1_000_000n);
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "????-??-?? ??:??:??";
  const two = (count: number): string => String(count).padStart(2, "0");
  const day = `${String(date.getFullYear()).padStart(4, "0")}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
