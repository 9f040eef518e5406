/**
 * Keeps a thread from being ended while it loads or binds native code: ended there, koffi aborts the whole process.
 *
 * One word of memory that the thread and whoever ends it share. The thread passes through the gate around such work; the other end shuts it,
 * waiting for the thread to come out, and only then ends the thread. A thread that finds the gate shut sleeps until it is ended.
 */
import { isMainThread, workerData } from "node:worker_threads";

const open = 0;
const inside = 1;
const shut = 2;

/** The name under which a gate is given in a thread's `workerData`. */
export const gateKey = "terminationGate";

export function createGate(): SharedArrayBuffer {
  return new SharedArrayBuffer(4);
}

/** Shuts a gate once its thread is not inside; then the thread may be ended. */
export async function shutGate(gate: SharedArrayBuffer): Promise<void> {
  const state = new Int32Array(gate);
  while (Atomics.compareExchange(state, 0, open, shut) === inside) {
    const wait = Atomics.waitAsync(state, 0, inside);
    if (wait.async) await wait.value;
  }
}

let own: Int32Array | undefined | null = null;
let depth = 0;

/** Does work during which this thread must not be ended. */
export function passGate<T>(work: () => T): T {
  own ??= findOwn();
  if (own === undefined || depth > 0) return work();
  if (Atomics.compareExchange(own, 0, open, inside) === shut) Atomics.wait(own, 0, shut); // until the end
  depth++;
  try {
    return work();
  } finally {
    depth--;
    Atomics.store(own, 0, open);
    Atomics.notify(own, 0);
  }
}

function findOwn(): Int32Array | undefined {
  if (isMainThread) return undefined;
  const given: unknown = workerData;
  if (typeof given !== "object" || given === null || !(gateKey in given)) return undefined;
  const gate: unknown = given[gateKey];
  return gate instanceof SharedArrayBuffer ? new Int32Array(gate) : undefined;
}
