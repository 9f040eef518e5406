import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { findDataRuns } from "./data-runs.ts";

const seed = 20_261_122;
const shortestHole = 16 * 1024;

/** Data with runs of zeros of any length, as [zeros, data] lengths. */
const pieces = fc.array(fc.tuple(fc.nat(50_000), fc.nat(9000)), { maxLength: 8 });

function build(lengths: readonly (readonly [number, number])[]): Uint8Array {
  const total = lengths.reduce((sum, [zeros, data]) => sum + zeros + data, 0);
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const [zeros, data] of lengths) {
    bytes.fill(7, at + zeros, at + zeros + data);
    at += zeros + data;
  }
  return bytes;
}

test("findDataRuns() leaves out nothing but zeros, and its runs ascend", () => {
  fc.assert(
    fc.property(pieces, (lengths) => {
      const data = build(lengths);
      const back = new Uint8Array(data.length);
      const runs = findDataRuns(data);
      let last = 0;
      for (let at = 0; at < runs.length; at += 2) {
        const [from = 0, to = 0] = runs.slice(at, at + 2);
        assert.ok(from >= last && to > from && to <= data.length);
        if (at > 0) assert.ok(from - last >= shortestHole);
        back.set(data.subarray(from, to), from);
        last = to;
      }
      assert.deepEqual(back, data);
    }),
    { seed, numRuns: 300 },
  );
});

test("findDataRuns() finds every hole that is long enough wherever it begins", () => {
  for (const from of [0, 1, 4095, 4096, 100_000]) {
    const data = new Uint8Array(300_000).fill(1);
    const holeBytes = shortestHole + 2 * 4096;
    data.fill(0, from, from + holeBytes);
    const runs = findDataRuns(data);
    const written = runs.reduce((sum, at, index) => sum + (index % 2 === 0 ? -at : at), 0);
    assert.ok(written <= data.length - shortestHole, `hole at ${from}: ${written} bytes written`);
  }
  assert.deepEqual(findDataRuns(new Uint8Array(1 << 20)), []);
  assert.deepEqual(findDataRuns(new Uint8Array(0)), []);
  assert.deepEqual(findDataRuns(new Uint8Array(100)), []);
});
