import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";
import { fakeClock } from "./testing.ts";

test("systemClock.sleep() lasts as long as asked", async () => {
  const fromMs = systemClock.monotonicMs();
  await systemClock.sleep(20);
  assert.ok(systemClock.monotonicMs() - fromMs >= 19);
});

test("systemClock.sleep() ends at once with Cancelled when its signal is aborted, before or during", async () => {
  await assert.rejects(systemClock.sleep(60_000, AbortSignal.abort()), { code: "Cancelled" });
  const controller = new AbortController();
  const sleeping = systemClock.sleep(60_000, controller.signal);
  controller.abort();
  await assert.rejects(sleeping, { code: "Cancelled" });
});

test("systemClock.sleep() does not end early when the time is beyond what a timer can hold", async () => {
  const controller = new AbortController();
  let isOver = false;
  const sleeping = systemClock.sleep(2 ** 32, controller.signal).finally(() => {
    isOver = true;
  });
  await systemClock.sleep(30);
  assert.equal(isOver, false);
  controller.abort();
  await assert.rejects(sleeping, { code: "Cancelled" });
});

test("systemClock.every() repeats until stopped and leaves out calls while one still runs", async () => {
  let calls = 0;
  let finish = (): void => {};
  const stop = systemClock.every(5, () => {
    calls++;
    return new Promise<void>((resolve) => {
      finish = resolve;
    });
  });
  await systemClock.sleep(40);
  assert.equal(calls, 1);
  finish();
  await systemClock.sleep(40);
  assert.equal(calls, 2);
  stop();
  finish();
  await systemClock.sleep(30);
  assert.equal(calls, 2);
});

test("fakeClock() runs what falls due in order and at its own time", async () => {
  const clock = fakeClock(1_000);
  const seen: string[] = [];
  const stop = clock.every(10, () => void seen.push(`tick ${clock.nowMs()}`));
  const sleeping = (async () => {
    await clock.sleep(15);
    seen.push(`woke ${clock.nowMs()}`);
    await clock.sleep(10);
    seen.push(`woke ${clock.nowMs()}`);
  })();
  await clock.advance(30);
  assert.deepEqual(seen, ["tick 1010", "woke 1015", "tick 1020", "woke 1025", "tick 1030"]);
  await sleeping;
  stop();
  await clock.advance(100);
  assert.equal(seen.length, 5);
  assert.equal(clock.pendingCount, 0);
});

test("fakeClock().jump() moves the wall clock only", async () => {
  const clock = fakeClock(1_000_000);
  const sleeping = clock.sleep(50);
  clock.jump(-500_000);
  assert.equal(clock.nowMs(), 500_000);
  assert.equal(clock.monotonicMs(), 0);
  await clock.advance(50);
  await sleeping;
  assert.equal(clock.nowMs(), 500_050);
});

test("fakeClock().sleep() forgets its timer when cancelled", async () => {
  const clock = fakeClock();
  const controller = new AbortController();
  const sleeping = clock.sleep(50, controller.signal);
  controller.abort();
  await assert.rejects(sleeping, { code: "Cancelled" });
  assert.equal(clock.pendingCount, 0);
});
