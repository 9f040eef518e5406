/** The workers of one restore: hands out the tasks of one phase after the other, and closes what workers have open at the end. */
import { availableParallelism } from "node:os";
import { type Failure, toFailure } from "@granary/base/errors";
import { workerUrl } from "@granary/base/worker-url";
import type { MasterKey } from "../crypto/seal.ts";
import { tuneAllocator } from "../native/memory.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import { createPackMailbox, servePackMailbox } from "../repository/pack-mailbox.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import { warmWorkers, WorkerPool } from "../repository/worker-pool.ts";
import type { Store } from "../store/store.ts";
import { Counters } from "./counters.ts";
import { EntryTable } from "./entry-table.ts";
import type { FromWorker, RestoreRules, RestoreTask, RestoreTrouble, RestoreWorkerData, ToWorker } from "./messages.ts";
import { SharedState } from "./shared-state.ts";

/** What is restored from; every repository whose index is loaded is one. */
export interface RestoreSource {
  readonly store: Store;
  readonly key: MasterKey;
  readonly index: BlobIndex;
}

export interface CrewOptions {
  readonly source: RestoreSource;
  readonly rules: RestoreRules;
  /** 1 or more; default: one a processor, at most 8, and for a remote store as many as it takes calls at once. */
  readonly workers?: number;
  /** What the plan may take of memory. */
  readonly planBytes: number;
  readonly onTrouble: (trouble: RestoreTrouble) => void;
  readonly signal?: AbortSignal;
}

/** How long a worker may take to close its files; one that has crashed never does. */
const closePatienceMs = 5000;

function defaultWorkers(): number {
  return Math.min(8, availableParallelism());
}

/**
 * Starts a restore's threads ahead of it, to be called while the repository is being opened: they are ready by the time the password has
 * become a key. Without a restore they end with the process.
 */
export function prepareRestore(workers: number = defaultWorkers()): void {
  warmWorkers(workerUrl(import.meta.url, "./restore.worker.ts"), workers);
}

export class Crew {
  readonly table: EntryTable;
  readonly state: SharedState = new SharedState();
  readonly counters: Counters;
  readonly #options: CrewOptions;
  readonly #pool: WorkerPool<ToWorker, FromWorker>;
  readonly #stopServing: (() => void)[] = [];
  readonly #queue: RestoreTask[] = [];
  readonly #idle: number[] = [];
  #running = 0;
  #phase: PromiseWithResolvers<void> | undefined;
  #failure: Failure | undefined;
  #isClosing = false;
  readonly #started = new Set<number>();

  constructor(options: CrewOptions) {
    this.#options = options;
    const { source, rules, signal } = options;
    tuneAllocator();
    this.table = EntryTable.create(options.planBytes / 2);
    const isRemote = source.store.pathOf === undefined;
    const workers = options.workers ?? Math.max(defaultWorkers(), isRemote ? Math.min(8, source.store.concurrency) : 0);
    this.counters = Counters.create(workers + 1);
    const data: Omit<RestoreWorkerData, "worker" | "packs"> = {
      key: source.key,
      index: source.index.handle,
      table: this.table.handle,
      state: this.state.shared,
      counters: this.counters.shared,
      rules,
    };
    this.#pool = new WorkerPool<ToWorker, FromWorker>({
      url: workerUrl(import.meta.url, "./restore.worker.ts"),
      workers,
      isStartedByMessage: true,
      data,
      dataOf: () => ({ packs: this.#giveAccess() }),
      onMessage: (worker, message) => this.#onMessage(worker, message),
      onFailure: (failure) => this.#fail(failure),
    });
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
  }

  /**
   * Has the workers do these tasks, and what they give away meanwhile, in any order.
   *
   * @throws what a worker threw first, or the signal's reason
   */
  async run(tasks: readonly RestoreTask[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (tasks.length === 0) return;
    const phase = Promise.withResolvers<void>();
    this.#phase = phase;
    this.#running = tasks.length;
    for (const task of tasks) this.#queue.push(task);
    for (let worker = this.#idle.pop(); worker !== undefined; worker = this.#idle.pop()) {
      if (!this.#post(worker)) break;
    }
    this.#publishHunger();
    await phase.promise;
  }

  /** Stops the workers when they have closed what they have open. Idempotent. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.state.stop();
    this.#queue.length = 0;
    if (!this.#isClosing) this.#pool.postAll({ kind: "close" });
    this.#isClosing = true;
    await this.state.whenClosed(this.#pool.size, closePatienceMs);
    for (const stop of this.#stopServing) stop();
    await this.#pool.close();
  }

  readonly #onAbort = (): void => this.#fail(toFailure(this.#options.signal?.reason));

  #fail(failure: Failure): void {
    this.#failure ??= failure;
    this.state.stop();
    this.#phase?.reject(this.#failure);
  }

  #giveAccess(): PackAccess {
    const { source, signal } = this.#options;
    const directory = source.store.pathOf?.({ kind: "config", name: "" }).replace(/\/config$/, "");
    if (directory !== undefined) return { kind: "local", directory };
    const mailbox = createPackMailbox();
    this.#stopServing.push(servePackMailbox(mailbox, source.store, signal));
    return { kind: "remote", mailbox };
  }

  /** Gives a worker the next task. @returns false when there is none; the worker is idle then */
  #post(worker: number): boolean {
    const task = this.#queue.shift();
    if (task === undefined) this.#idle.push(worker);
    else this.#pool.post(worker, task);
    return task !== undefined;
  }

  #publishHunger(): void {
    this.state.hunger = Math.max(0, this.#idle.length - this.#queue.length);
  }

  #onMessage(worker: number, message: FromWorker): void {
    switch (message.kind) {
      case "idle":
        return this.#onIdle(worker);
      case "given":
        return this.#onGiven(message.task);
      case "trouble":
        return this.#options.onTrouble(message.trouble);
      case "failed":
        return; // the pool takes those
    }
  }

  #onGiven(task: RestoreTask): void {
    this.#running++;
    this.#queue.push(task);
    const worker = this.#idle.pop();
    if (worker !== undefined) this.#post(worker);
    this.#publishHunger();
  }

  /** A worker says so when it starts, and after each task. */
  #onIdle(worker: number): void {
    if (this.#started.has(worker)) this.#running--;
    this.#started.add(worker);
    this.#post(worker);
    this.#publishHunger();
    if (this.#running === 0 && this.#phase !== undefined) {
      const phase = this.#phase;
      this.#phase = undefined;
      phase.resolve();
    }
  }
}
