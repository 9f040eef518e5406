/**
 * Ctrl-C and the signals that end a process. The first asks the work to stop, which then releases its lock; the second ends the process at
 * once, as if there were no handler.
 */

import { Failure } from "@granary/base/errors";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Watches for signals until it is disposed of. */
export interface Interrupts extends Disposable {
  /** Aborted by the first signal, with `Cancelled`. */
  readonly signal: AbortSignal;
  /** Stops the work for a reason of our own, such as a closed output. */
  stop(reason: Failure): void;
}

/** @param onFirst told of the first signal; must not throw */
export function watchInterrupts(onFirst: (name: string) => void): Interrupts {
  const controller = new AbortController();
  const stop = (reason: Failure): void => {
    if (!controller.signal.aborted) controller.abort(reason);
  };
  const dispose = (): void => {
    for (const name of signals) process.removeListener(name, handle);
  };
  function handle(name: NodeJS.Signals): void {
    if (controller.signal.aborted) {
      dispose();
      if (process.stdin.isTTY) process.stdin.setRawMode(false);
      process.kill(process.pid, name);
      return;
    }
    onFirst(name);
    stop(new Failure("Cancelled", `Stopped by ${name === "SIGINT" ? "Ctrl-C" : name}`, { details: { signal: name } }));
  }
  for (const name of signals) process.on(name, handle);
  return { signal: controller.signal, stop, [Symbol.dispose]: dispose };
}
