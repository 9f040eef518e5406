import assert from "node:assert/strict";
import { test } from "node:test";
import { declareCodes, Failure } from "./errors.ts";
import { retry } from "./retry.ts";
import { fakeClock } from "./testing.ts";

declareCodes({
  TestUnavailable: { kind: "unavailable", guidance: "" },
  TestCorrupt: { kind: "corrupt", guidance: "" },
});

function unavailable(): Failure {
  return new Failure("TestUnavailable", "Cannot reach the store: timeout");
}

test("retry() calls again while the failure is unavailable, within doubling and capped bounds", async () => {
  const clock = fakeClock();
  const waits: [number, number][] = [];
  const result = retry(
    async (attempt) => {
      if (attempt < 6) throw unavailable();
      return attempt;
    },
    {
      clock,
      attempts: 6,
      baseMs: 100,
      capMs: 500,
      random: () => 0.5,
      onRetry: (_failure, attempt, waitMs) => waits.push([attempt, waitMs]),
    },
  );
  await clock.advance(50 + 100 + 200 + 250 + 250);
  assert.equal(await result, 6);
  assert.deepEqual(waits, [
    [1, 50],
    [2, 100],
    [3, 200],
    [4, 250],
    [5, 250],
  ]);
});

test("retry() gives up after the last attempt with the last failure", async () => {
  const clock = fakeClock();
  let calls = 0;
  const result = retry(
    async () => {
      calls++;
      throw new Failure("TestUnavailable", `call ${calls}`);
    },
    { clock, attempts: 3 },
  );
  const check = assert.rejects(result, { message: "call 3" });
  await clock.advance(60_000);
  await check;
  assert.equal(calls, 3);
});

test("retry() throws corrupt failures and foreign errors at once", async () => {
  for (const error of [new Failure("TestCorrupt", "bad"), new TypeError("bug"), Object.assign(new Error("no"), { kind: "unavailable" })]) {
    let calls = 0;
    await assert.rejects(
      retry(async () => {
        calls++;
        throw error;
      }),
      error,
    );
    assert.equal(calls, 1);
  }
});

test("retry() ends with Cancelled during a wait and calls no more", async () => {
  const clock = fakeClock();
  const controller = new AbortController();
  let calls = 0;
  const result = retry(
    async () => {
      calls++;
      throw unavailable();
    },
    { clock, signal: controller.signal, random: () => 1 },
  );
  const check = assert.rejects(result, { code: "Cancelled" });
  await clock.advance(10);
  controller.abort();
  await check;
  await clock.advance(60_000);
  assert.equal(calls, 1);
});
