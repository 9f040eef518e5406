/** Doubles for the ports of this package. */

import { cancelledBy } from "./cancel.ts";
import type { Clock } from "./clock.ts";

/** A clock that moves only when told to. */
export interface FakeClock extends Clock {
  /** Moves wall and monotonic time on by `ms`, running what falls due on the way, in order, each with the time it was due at. */
  advance(ms: number): Promise<void>;

  /** Sets the wall clock on or back by `ms`, as an operator or NTP would; timers and monotonic time do not notice. */
  jump(ms: number): void;

  /** How many sleeps and repetitions are waiting. */
  readonly pendingCount: number;
}

interface Timer {
  dueMs: number;
  run(): void;
}

/** Makes a {@link FakeClock}. @param startMs wall time at the start, in epoch milliseconds */
export function fakeClock(startMs: number = Date.UTC(2026, 0, 1)): FakeClock {
  let monotonicMs = 0;
  let wallOffsetMs = startMs;
  const timers = new Set<Timer>();

  function findNext(untilMs: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of timers) if (timer.dueMs <= untilMs && (next === undefined || timer.dueMs < next.dueMs)) next = timer;
    return next;
  }

  return {
    nowMs: () => monotonicMs + wallOffsetMs,
    monotonicMs: () => monotonicMs,
    get pendingCount() {
      return timers.size;
    },
    jump(ms) {
      wallOffsetMs += ms;
    },
    async advance(ms) {
      const untilMs = monotonicMs + ms;
      await settle();
      for (let timer = findNext(untilMs); timer !== undefined; timer = findNext(untilMs)) {
        monotonicMs = Math.max(monotonicMs, timer.dueMs);
        timer.run();
        await settle();
      }
      monotonicMs = untilMs;
    },
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted === true) {
          reject(cancelledBy(signal));
          return;
        }
        const timer: Timer = {
          dueMs: monotonicMs + ms,
          run() {
            timers.delete(timer);
            signal?.removeEventListener("abort", stop);
            resolve();
          },
        };
        function stop(): void {
          timers.delete(timer);
          if (signal !== undefined) reject(cancelledBy(signal));
        }
        signal?.addEventListener("abort", stop, { once: true });
        timers.add(timer);
      });
    },
    every(ms, fn) {
      let isRunning = false;
      const timer: Timer = {
        dueMs: monotonicMs + ms,
        run() {
          timer.dueMs += ms;
          if (isRunning) return;
          const running = fn();
          if (running === undefined) return;
          isRunning = true;
          void running.finally(() => {
            isRunning = false;
          });
        },
      };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
  };
}

/** Lets every promise that is ready run, with the promises those make ready. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
