/**
 * The only place that reads the time or sets a timer; everything else is given a {@link Clock}, so that tests own the time.
 * `@granary/base/testing` has a fake one.
 */

import { cancelledBy } from "./cancel.ts";

/** Time and timers. */
export interface Clock {
  /** Wall time in epoch milliseconds. May jump either way when the machine's clock is set. */
  nowMs(): number;

  /** Milliseconds since an arbitrary moment; never goes back. For durations, rates and deadlines. */
  monotonicMs(): number;

  /**
   * Resolves after `ms` milliseconds.
   *
   * @throws Cancelled (or the signal's own failure) as soon as `signal` is aborted
   */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;

  /**
   * Calls `fn` every `ms` milliseconds until the returned function is called. A call that falls due while the one before still runs
   * is left out. Does not keep the process alive. `fn` must neither throw nor reject.
   */
  every(ms: number, fn: () => void | Promise<void>): () => void;
}

/** Node's timers wrap to 1 ms above this many milliseconds (2^31 - 1), so longer sleeps are taken in turns. */
const longestTimerMs = 2_147_483_647;

/** The machine's clock. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    for (let leftMs = ms; ; leftMs -= longestTimerMs) {
      await sleepOnce(Math.min(leftMs, longestTimerMs), signal);
      if (leftMs <= longestTimerMs) return;
    }
  },
  every(ms, fn) {
    let isRunning = false;
    const timer = setInterval(() => {
      if (isRunning) return;
      const running = fn();
      if (running === undefined) return;
      isRunning = true;
      void running.finally(() => {
        isRunning = false;
      });
    }, ms);
    timer.unref();
    return () => clearInterval(timer);
  },
};

function sleepOnce(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(cancelledBy(signal));
      return;
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    function stop(): void {
      clearTimeout(timer);
      if (signal !== undefined) reject(cancelledBy(signal));
    }
    signal?.addEventListener("abort", stop, { once: true });
  });
}
