import { Failure } from "@granary/base/errors";

const factors: Readonly<Record<string, number>> = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/**
 * Reads a size as restic does: a whole number of bytes, or with k, m, g or t behind it (either case) of KiB, MiB, GiB or TiB.
 *
 * @param flag what the size was given for, for the message
 * @throws InvalidArgument
 */
export function parseSizeBytes(text: string, flag: string): number {
  const [, digits, unit] = /^(\d+)([bkmgt]?)$/i.exec(text.trim()) ?? [];
  const sizeBytes = Number(digits) * (factors[unit?.toLowerCase() ?? ""] ?? Number.NaN);
  if (Number.isSafeInteger(sizeBytes)) return sizeBytes;
  throw new Failure(
    "InvalidArgument",
    `Cannot use ${flag} "${text}": a whole number is needed, with k, m, g or t behind it for KiB, MiB, GiB or TiB`,
  );
}

/** Reads a whole number from `least` on. @throws InvalidArgument */
export function parseCount(text: string, flag: string, least = 0): number {
  const count = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (count >= least) return count;
  throw new Failure("InvalidArgument", `Cannot use ${flag} "${text}": a whole number of ${least} or more is needed`);
}
