/** Cancellation is one `AbortSignal`; this is how it becomes an error. */

import { Failure, isFailure } from "./errors.ts";

/** The error to throw for an aborted signal: its reason when that is a `Failure`, else a `Cancelled` whose cause is the reason. */
export function cancelledBy(signal: AbortSignal): Failure {
  const reason: unknown = signal.reason;
  return isFailure(reason) ? reason : new Failure("Cancelled", "The work was stopped on request", { cause: reason });
}

/** Throws {@link cancelledBy} when the signal is aborted; call it between units of work. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelledBy(signal);
}
