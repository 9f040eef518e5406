import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { isFailure } from "@granary/base/errors";
import fc from "fast-check";
import { createPolynomial, degree, gcd, isIrreducible, mod, mulMod, parsePolynomial } from "./polynomial.ts";

const polynomial: fc.Arbitrary<bigint> = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const nonZero: fc.Arbitrary<bigint> = fc.bigInt({ min: 1n, max: (1n << 54n) - 1n });

/** Multiplication as in school. */
function multiply(a: bigint, b: bigint): bigint {
  let product = 0n;
  for (let i = 0n; b >> i !== 0n; i++) if (((b >> i) & 1n) === 1n) product ^= a << i;
  return product;
}

test("degree() is the position of the highest bit", () => {
  assert.equal(degree(0n), -1);
  for (let i = 0; i < 200; i++) {
    assert.equal(degree(1n << BigInt(i)), i);
    assert.equal(degree((1n << BigInt(i + 1)) - 1n), i);
  }
});

test("mod() is the remainder: a multiple of the divisor apart, and of a lower degree", () => {
  fc.assert(
    fc.property(polynomial, nonZero, nonZero, (quotient, divisor, other) => {
      const rest = mod(other, divisor);
      assert.ok(degree(rest) < degree(divisor));
      assert.equal(mod(multiply(quotient, divisor) ^ rest, divisor), rest);
      assert.equal(mulMod(quotient, other, divisor), mod(multiply(quotient, other), divisor));
    }),
    { seed: 1 },
  );
  assert.throws(
    () => mod(1n, 0n),
    (error) => isFailure(error, "InvalidArgument"),
  );
});

test("gcd() divides both, and contains every common factor", () => {
  fc.assert(
    fc.property(nonZero, nonZero, nonZero, (a, b, factor) => {
      const common = gcd(multiply(a, factor), multiply(b, factor));
      assert.equal(mod(multiply(a, factor), common), 0n);
      assert.equal(mod(multiply(b, factor), common), 0n);
      assert.equal(mod(common, factor), 0n);
    }),
    { seed: 2 },
  );
  assert.equal(gcd(0n, 0b1101n), 0b1101n);
  assert.equal(gcd(0b1101n, 0n), 0b1101n);
});

test("isIrreducible() agrees with trial division up to degree 11, and with the known counts", () => {
  const counts = new Map<number, number>();
  for (let pol = 0n; pol < 1n << 12n; pol++) {
    let hasFactor = degree(pol) < 1;
    for (let factor = 2n; 2 * degree(factor) <= degree(pol) && !hasFactor; factor++) hasFactor = mod(pol, factor) === 0n;
    assert.equal(isIrreducible(pol), !hasFactor, pol.toString(2));
    if (!hasFactor) counts.set(degree(pol), (counts.get(degree(pol)) ?? 0) + 1);
  }
  // OEIS A001037: irreducible polynomials of degree n over GF(2), from n = 1.
  assert.deepEqual([...counts.values()], [2, 1, 2, 3, 6, 9, 18, 30, 56, 99, 186]);
});

test("isIrreducible() refuses every product, whatever the degrees of its factors", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 52 }), polynomial, polynomial, (factorDegree, low, high) => {
      const a = BigInt.asUintN(factorDegree, low) | (1n << BigInt(factorDegree));
      const b = BigInt.asUintN(53 - factorDegree, high) | (1n << BigInt(53 - factorDegree));
      assert.equal(isIrreducible(multiply(a, b)), false);
    }),
    { seed: 3, numRuns: 300 },
  );
});

test("createPolynomial() gives different irreducible polynomials of degree 53 that parsePolynomial() accepts", () => {
  const made = new Set<bigint>();
  for (let i = 0; i < 20; i++) {
    const pol = createPolynomial(randomBytes);
    assert.equal(degree(pol), 53);
    assert.equal(parsePolynomial(pol.toString(16)), pol);
    made.add(pol);
  }
  assert.equal(made.size, 20);
});

test("createPolynomial() gives up when its random numbers are not random", () => {
  assert.throws(
    () => createPolynomial((sizeBytes) => new Uint8Array(sizeBytes)),
    (error) => isFailure(error, "Bug"),
  );
});

test("parsePolynomial() takes what restic wrote, in either case and with leading zeros", () => {
  assert.equal(parsePolynomial("36e5e1594d87b7"), 0x36e5e1594d87b7n);
  assert.equal(parsePolynomial("003539708FCCA4E7"), 0x3539708fcca4e7n);
});

test("parsePolynomial() refuses what is no number, of another degree, or reducible", () => {
  const reducible = (0x36e5e1594d87b7n ^ 1n).toString(16);
  const cases: readonly [string, RegExp][] = [
    ["", /hexadecimal/],
    ["0x36e5e1594d87b7", /hexadecimal/],
    ["36e5e1594d87bg", /hexadecimal/],
    [" 36e5e1594d87b7", /hexadecimal/],
    ["-36e5e1594d87b7", /hexadecimal/],
    ["3".repeat(10_000), /hexadecimal/],
    ["0", /degree is -1/],
    ["b", /degree is 3/],
    ["76e5e1594d87b7", /degree is 54/],
    [reducible, /reducible/],
    ["20000000000000", /reducible/],
  ];
  for (const [hex, reason] of cases) {
    assert.throws(
      () => parsePolynomial(hex),
      (error) => isFailure(error, "ConfigInvalid") && reason.test(error.message) && error.message.length < 200,
    );
  }
});
