/**
 * A pool of worker threads that run one `*.worker.ts`. A worker that dies fails the pool, and with it the job, never the process.
 */
import { Worker } from "node:worker_threads";
import { decodeFailure, Failure, type FailureRecord, toFailure } from "@granary/base/errors";
import { createGate, gateKey, shutGate } from "../native/termination-gate.ts";
import { createLedger, ledgerKey, settleLedger } from "../native/thread-ledger.ts";

/** What a worker says when it cannot go on; every pool's messages include it. */
export interface WorkerFailed {
  readonly kind: "failed";
  readonly failure: FailureRecord;
}

export interface WorkerPoolOptions<Out extends { readonly kind: string }> {
  readonly url: URL;
  readonly workers: number;
  /** Given to each worker as its `workerData`, with the worker's number as `worker`. */
  readonly data: object;
  /** More data for one worker, computed as it starts. */
  readonly dataOf?: (worker: number) => object;
  /** The data is not the thread's `workerData` but its first message, so that a thread of {@link warmWorkers} may be used. */
  readonly isStartedByMessage?: boolean;
  /** Called for each message but failures; what it throws fails the pool. */
  readonly onMessage: (worker: number, message: Out) => void;
  /** Called once, with the first failure. */
  readonly onFailure: (failure: Failure) => void;
}

export class WorkerPool<In, Out extends { readonly kind: string }> {
  readonly #workers: Worker[] = [];
  readonly #options: WorkerPoolOptions<Out>;
  #failed = false;
  #closing = false;

  constructor(options: WorkerPoolOptions<Out>) {
    this.#options = options;
    for (let number = 0; number < options.workers; number++) this.#workers.push(this.#start(number));
  }

  get size(): number {
    return this.#workers.length;
  }

  post(worker: number, message: In): void {
    this.#workers[worker]?.postMessage(message);
  }

  postAll(message: In): void {
    for (const worker of this.#workers) worker.postMessage(message);
  }

  /** Stops the threads at once, whatever they do. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#workers.map(endThread));
  }

  #start(number: number): Worker {
    const { url, data, dataOf, isStartedByMessage } = this.#options;
    const given = { ...data, ...dataOf?.(number), worker: number };
    const worker = isStartedByMessage === true ? (takeWarm(url) ?? startThread(url)) : startThread(url, given);
    if (isStartedByMessage === true) worker.postMessage(given);
    worker.on("message", (message: Out | WorkerFailed) => {
      if (this.#failed || this.#closing) return;
      try {
        if (isFailed(message)) this.#fail(decodeFailure(message.failure));
        else this.#options.onMessage(number, message);
      } catch (error) {
        this.#fail(toFailure(error));
      }
    });
    worker.on("messageerror", (error) => this.#fail(toFailure(error)));
    worker.on("error", (error) => this.#fail(toFailure(error)));
    worker.on("exit", (code) => {
      if (!this.#closing) this.#fail(new Failure("Bug", `Worker ${number} stopped unexpectedly with code ${code}`));
    });
    return worker;
  }

  #fail(failure: Failure): void {
    if (this.#failed || this.#closing) return;
    this.#failed = true;
    this.#options.onFailure(failure);
  }
}

/** What a thread shares with who ends it. */
interface ThreadEnd {
  readonly gate: SharedArrayBuffer;
  readonly ledger: SharedArrayBuffer;
}
const ends = new WeakMap<Worker, ThreadEnd>();

function startThread(url: URL, given: object = {}): Worker {
  const [gate, ledger] = [createGate(), createLedger()];
  const thread = new Worker(url, {
    workerData: { ...given, [gateKey]: gate, [ledgerKey]: ledger },
    // Short-lived objects are many and small; a small young generation keeps them in cache and the process in bounds.
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
  });
  ends.set(thread, { gate, ledger });
  return thread;
}

async function endThread(thread: Worker): Promise<void> {
  const end = ends.get(thread);
  if (end !== undefined) await shutGate(end.gate);
  await thread.terminate();
  if (end !== undefined) settleLedger(end.ledger);
}

/** Threads that wait for their first message, by URL. */
const warm = new Map<string, Worker[]>();

/**
 * Starts threads ahead of a pool that is `isStartedByMessage`, while something else takes its time (a password's key derivation). Threads that
 * no pool takes do not keep the process alive.
 */
export function warmWorkers(url: URL, workers: number): void {
  const threads = Array.from({ length: workers }, () => startThread(url));
  for (const thread of threads) {
    thread.unref();
    thread.on("error", () => {}); // then it exits, and is not there to be taken
    thread.on("exit", () =>
      warm.set(
        url.href,
        (warm.get(url.href) ?? []).filter((other) => other !== thread),
      ),
    );
  }
  warm.set(url.href, [...(warm.get(url.href) ?? []), ...threads]);
}

/** Ends the threads that no pool took. To be awaited before the process ends. */
export async function endWarmWorkers(): Promise<void> {
  const threads = [...warm.values()].flat();
  warm.clear();
  await Promise.all(threads.map(endThread));
}

function takeWarm(url: URL): Worker | undefined {
  const thread = warm.get(url.href)?.pop();
  thread?.ref();
  thread?.removeAllListeners();
  return thread;
}

function isFailed(message: { readonly kind: string }): message is WorkerFailed {
  return message.kind === "failed";
}
