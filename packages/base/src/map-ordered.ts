/** The one concurrency primitive: a bounded number of calls at once, results in the order of the items. */

import { cancelledBy } from "./cancel.ts";

/** How {@link mapOrdered} runs. */
export interface MapOrderedOptions {
  /** How many items may be in hand at once, 1 or more: running, or finished and not yet taken by the consumer. */
  readonly limit: number;
  readonly signal?: AbortSignal;
}

type Outcome<B> = { readonly value: B } | undefined;

/**
 * Calls `fn` for each item, up to `limit` at once, and yields the results in the order of the items.
 *
 * The first error (of `fn`, of the source, or the abort of `signal`) stops everything: no further item is taken, the signal given to
 * `fn` is aborted, running calls are waited for, the source is closed, and that error is thrown. The same happens, without an error,
 * when the consumer stops early. A source that is waiting for its next item at that moment is told to close but not waited for.
 *
 * @param items taken one at a time and only when there is room
 * @param fn given the item and a signal that is aborted when its result is no longer wanted
 * @throws RangeError when `limit` is not a whole number of 1 or more; Cancelled
 */
export async function* mapOrdered<A, B>(
  items: AsyncIterable<A> | Iterable<A>,
  options: MapOrderedOptions,
  fn: (item: A, signal: AbortSignal) => B | Promise<B>,
): AsyncGenerator<B, void, undefined> {
  const { limit, signal } = options;
  if (!Number.isInteger(limit) || limit < 1)
    throw new RangeError(`Cannot run ${limit} calls at once: a whole number of 1 or more is needed`);

  const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  const controller = new AbortController();
  const slots: { outcome: Outcome<B> }[] = [];
  const running = new Set<Promise<unknown>>();
  let failure: { readonly error: unknown } | undefined;
  let isExhausted = false;
  let isPulling = false;
  let wake = (): void => {};

  function fail(error: unknown): void {
    failure ??= { error };
    controller.abort(error);
    wake();
  }

  function start(item: A): void {
    const slot: { outcome: Outcome<B> } = { outcome: undefined };
    slots.push(slot);
    const run = settle(slot, item).finally(() => running.delete(run));
    running.add(run);
  }

  async function settle(slot: { outcome: Outcome<B> }, item: A): Promise<void> {
    try {
      slot.outcome = { value: await fn(item, controller.signal) };
      wake();
    } catch (error) {
      fail(error);
    }
  }

  async function fill(): Promise<void> {
    if (isPulling) return;
    isPulling = true;
    try {
      while (!isExhausted && !controller.signal.aborted && slots.length < limit) {
        const next = await iterator.next();
        if (next.done === true) isExhausted = true;
        else if (!controller.signal.aborted) start(next.value);
      }
    } catch (error) {
      isExhausted = true;
      fail(error);
    } finally {
      isPulling = false;
      wake();
    }
  }

  const onAbort = (): void => {
    if (signal !== undefined) fail(cancelledBy(signal));
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted === true) onAbort();

  try {
    for (;;) {
      if (failure !== undefined) throw failure.error;
      void fill();
      const outcome = slots[0]?.outcome;
      if (outcome !== undefined) {
        slots.shift();
        void fill();
        yield outcome.value;
      } else if (isExhausted && slots.length === 0) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    signal?.removeEventListener("abort", onAbort);
    controller.abort();
    await Promise.allSettled(running);
    if (!isExhausted) await close(iterator, isPulling);
  }
}

async function close(iterator: AsyncIterator<unknown> | Iterator<unknown>, isPulling: boolean): Promise<void> {
  const closing = Promise.resolve(iterator.return?.());
  if (isPulling) closing.catch(() => undefined);
  else await closing;
}
