/**
 * Polynomials over GF(2) as bigints: bit n is the coefficient of x^n. What the Rabin cutter and the repository's config need.
 *
 * Not for hot loops: the Rabin cutter builds its tables here and then works on 32-bit halves.
 */
import { Failure } from "@granary/base/errors";

/** The degree of every chunker polynomial. (restic design.rst, "Deduplication": a random irreducible polynomial of degree 53) */
export const chunkerDegree = 53;

const randomBytesNeeded = 8;
/** One odd polynomial of degree 53 in 26.5 is irreducible, so a thousand failures in a row have a chance of 10^-16. */
const maxAttempts = 10_000;

/** The degree of `pol`; -1 for zero. */
export function degree(pol: bigint): number {
  if (pol === 0n) return -1;
  const hex = pol.toString(16);
  return 4 * hex.length - 1 - (Math.clz32(Number.parseInt(hex.charAt(0), 16)) - 28);
}

/**
 * The remainder of `value` divided by `divisor`.
 *
 * @throws InvalidArgument when `divisor` is zero
 */
export function mod(value: bigint, divisor: bigint): bigint {
  if (divisor === 0n) throw new Failure("InvalidArgument", "Cannot divide a polynomial by zero");
  const divisorDegree = degree(divisor);
  let rest = value;
  for (let shift = degree(rest) - divisorDegree; shift >= 0; shift = degree(rest) - divisorDegree) {
    rest ^= divisor << BigInt(shift);
  }
  return rest;
}

/**
 * `a` times `b`, modulo `divisor`.
 *
 * @throws InvalidArgument when `divisor` is zero
 */
export function mulMod(a: bigint, b: bigint, divisor: bigint): bigint {
  let product = 0n;
  let shifted = a;
  for (let rest = b; rest !== 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) product ^= shifted;
    shifted <<= 1n;
  }
  return mod(product, divisor);
}

/** The greatest common divisor; that of 0 and `a` is `a`. */
export function gcd(a: bigint, b: bigint): bigint {
  let [larger, smaller] = [a, b];
  while (smaller !== 0n) [larger, smaller] = [smaller, mod(larger, smaller)];
  return larger;
}

/**
 * Whether `pol` is not the product of two polynomials of lower degree; false for constants.
 *
 * Ben-Or's test: x^(2^i) - x is the product of all irreducible polynomials whose degree divides i, so a factor of degree i or less
 * shows as a common divisor, and a reducible polynomial has one of at most half its degree.
 */
export function isIrreducible(pol: bigint): boolean {
  const polDegree = degree(pol);
  if (polDegree < 1) return false;
  const x = mod(2n, pol);
  let power = x;
  for (let i = 1; i <= polDegree >>> 1; i++) {
    power = mulMod(power, power, pol);
    if (gcd(pol, power ^ x) !== 1n) return false;
  }
  return true;
}

/**
 * A random irreducible polynomial of degree 53, for the config of a new repository (written there as `toString(16)`).
 *
 * @param randomBytes gives that many unpredictable bytes
 * @throws Bug when `randomBytes` is not random
 */
export function createPolynomial(randomBytes: (sizeBytes: number) => Uint8Array): bigint {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const random = Uint8Array.from(randomBytes(randomBytesNeeded));
    const bits = new DataView(random.buffer).getBigUint64(0);
    const candidate = BigInt.asUintN(chunkerDegree, bits) | (1n << BigInt(chunkerDegree)) | 1n;
    if (isIrreducible(candidate)) return candidate;
  }
  throw new Failure(
    "Bug",
    `No irreducible polynomial of degree ${chunkerDegree} in ${maxAttempts} attempts: the random numbers are not random`,
  );
}

/**
 * Reads the chunker polynomial of a config.
 *
 * @param hex as in the config: hexadecimal digits without a prefix
 * @throws ConfigInvalid when it is no number, not of degree 53, or reducible
 */
export function parsePolynomial(hex: string): bigint {
  if (!/^[0-9a-f]{1,16}$/i.test(hex)) throw refuse(hex, "it is not a number of up to 16 hexadecimal digits");
  const pol = BigInt(`0x${hex}`);
  if (degree(pol) !== chunkerDegree) throw refuse(hex, `its degree is ${degree(pol)}, ${chunkerDegree} is needed`);
  if (!isIrreducible(pol)) throw refuse(hex, "it is reducible, an irreducible one is needed");
  return pol;
}

function refuse(hex: string, reason: string): Failure {
  const shown = hex.slice(0, 32);
  return new Failure("ConfigInvalid", `Cannot use the chunker polynomial ${JSON.stringify(shown)} of the config: ${reason}`, {
    details: { polynomial: shown },
  });
}
