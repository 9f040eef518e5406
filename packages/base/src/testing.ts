/** Doubles for the ports of this package, and what tests need to know of the machine they run on. */

import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
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

/** The real programs that tests compare with, and the Debian package that has each. */
export const neededTools: readonly { readonly name: string; readonly debianPackage: string }[] = [
  { name: "restic", debianPackage: "restic" },
  { name: "borg", debianPackage: "borgbackup" },
  { name: "rclone", debianPackage: "rclone" },
  { name: "getfattr", debianPackage: "attr" },
  { name: "setfattr", debianPackage: "attr" },
  { name: "getfacl", debianPackage: "acl" },
  { name: "setfacl", debianPackage: "acl" },
];

/** The path of a program on the PATH, or `undefined`. */
export function findTool(name: string): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  return folders.map((folder) => join(folder, name)).find((path) => isExecutable(path));
}

/** For the `skip` option of a test: the reason why it cannot run here, or `false` when all programs it needs are present. */
export function skipWithout(...names: readonly string[]): string | false {
  const missing = names.filter((name) => findTool(name) === undefined);
  return missing.length === 0 ? false : `needs ${missing.join(", ")}`;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
