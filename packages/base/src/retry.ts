/** Trying again, for what is unavailable now and may be available in a moment. */

import { throwIfCancelled } from "./cancel.ts";
import { type Clock, systemClock } from "./clock.ts";
import { type Failure, isFailure } from "./errors.ts";

/** How {@link retry} behaves. */
export interface RetryOptions {
  /** How many calls at most, the first included; 1 or more. 6 when absent: with the other defaults about 15 s at most. */
  readonly attempts?: number;
  /** The longest wait after the first call; doubles with each. 500 ms when absent. */
  readonly baseMs?: number;
  /** No wait is longer. 60 s when absent. */
  readonly capMs?: number;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
  /** A number in [0, 1); `Math.random` when absent. */
  readonly random?: () => number;
  /** Told before each wait; must not throw. */
  readonly onRetry?: (failure: Failure, attempt: number, waitMs: number) => void;
}

/**
 * Calls `fn` until it succeeds, as long as it fails with the kind `unavailable`. Anything else, `corrupt` above all, is thrown at once.
 * Waits are drawn evenly from zero to a bound that doubles ("full jitter"), so that many clients do not come back together.
 *
 * @param fn given the number of the attempt, from 1; must be safe to run twice
 * @throws what the last call threw; Cancelled
 */
export async function retry<T>(fn: (attempt: number) => Promise<T>, options: RetryOptions = {}): Promise<T> {
  const { attempts = 6, baseMs = 500, capMs = 60_000, clock = systemClock, signal, random = Math.random, onRetry } = options;
  for (let attempt = 1; ; attempt++) {
    throwIfCancelled(signal);
    try {
      return await fn(attempt);
    } catch (error) {
      if (!isFailure(error) || error.kind !== "unavailable" || attempt >= attempts) throw error;
      const waitMs = random() * Math.min(capMs, baseMs * 2 ** (attempt - 1));
      onRetry?.(error, attempt, waitMs);
      await clock.sleep(waitMs, signal);
    }
  }
}
