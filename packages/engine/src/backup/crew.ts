/**
 * The workers of one backup and what they are given: hands out slices, completes directories, and saves packs.
 *
 * Order that must hold: a pack is in `onPackDurable` only after the store has it on disk. Buffers are given back only then, so a slow store
 * slows the workers down and memory stays bounded.
 */
import { availableParallelism } from "node:os";
import { cancelledBy } from "@granary/base/cancel";
import { type Failure, toFailure } from "@granary/base/errors";
import { workerUrl } from "@granary/base/worker-url";
import type { MasterKey } from "../crypto/seal.ts";
import { hexOf } from "../format/ids.ts";
import { closeHandle } from "../native/libc.ts";
import { tuneAllocator } from "../native/memory.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import { createPackMailbox, servePackMailbox } from "../repository/pack-mailbox.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import { warmWorkers, type WorkerFailed, WorkerPool } from "../repository/worker-pool.ts";
import type { Store } from "../store/store.ts";
import { type BackupCounts, Counters } from "./counters.ts";
import { Frames } from "./frames.ts";
import type { BackupTrouble, BackupWorkerData, Destination, Frame, FromWorker, SliceTask, StreamTask, Task, ToWorker } from "./messages.ts";

const mebibyte = 1024 * 1024;
/** Room in a buffer beyond the size at which a pack is closed. */
const packSlackBytes = mebibyte;
/** The frame of the snapshot's root, and where its id goes. */
export const rootFrame = 0;
const rootDestination: Destination = { frame: -1, hole: 0 };
/** What the pool passes on; it takes failures itself. */
type CrewMessage = Exclude<FromWorker, WorkerFailed>;

export interface CrewOptions {
  readonly store: Store;
  readonly key: MasterKey;
  readonly index: BlobIndex;
  readonly cut: BackupWorkerData["cut"];
  /** 1 or more; by default one a processor, at most 8. */
  readonly workers?: number;
  readonly rules: Pick<BackupWorkerData, "excludes" | "targets" | "withAtime" | "ignoreCtime" | "ignoreInode">;
  /** zstd level, 0 for none. */
  readonly level: number;
  /** The size at which a data pack is closed. */
  readonly packBytes: number;
  /** Saves nothing. */
  readonly dryRun: boolean;
  /** Called for each pack that is on disk; may be slow, which holds the pack's buffer. */
  readonly onPackDurable: (pack: FinishedPack) => Promise<void>;
  readonly onTrouble: (trouble: BackupTrouble) => void;
  readonly signal?: AbortSignal;
}

function defaultWorkers(): number {
  return Math.min(8, availableParallelism());
}

/**
 * Starts a backup's threads ahead of it, to be called while the repository is being opened: they are ready by the time the password has become
 * a key. Without a backup they end with the process.
 */
export function prepareBackup(workers: number = defaultWorkers()): void {
  warmWorkers(workerUrl(import.meta.url, "./backup.worker.ts"), workers);
}

export class Crew {
  readonly #options: CrewOptions;
  readonly #pool: WorkerPool<ToWorker, CrewMessage>;
  readonly #counters: Counters;
  readonly #hunger = new Int32Array(new SharedArrayBuffer(8));
  readonly #dataBuffers: PackBuffers;
  readonly #treeBuffers: PackBuffers;
  readonly #stopServing: (() => void)[] = [];
  readonly #queue: Task[] = [];
  readonly #idle: number[] = [];
  readonly #frames = new Frames({ onTree: (into, tree, directory) => this.#enqueue({ kind: "tree", into, tree, directory }) });
  readonly #saves = new Set<Promise<void>>();
  readonly #result = Promise.withResolvers<Uint8Array>();
  readonly #flushed = Promise.withResolvers<void>();
  #finished = 0;
  #failure: Failure | undefined;

  constructor(options: CrewOptions) {
    this.#options = options;
    tuneAllocator();
    const workers = options.workers ?? defaultWorkers();
    const treePackBytes = Math.min(4 * mebibyte, options.packBytes);
    this.#counters = Counters.create(workers);
    this.#dataBuffers = PackBuffers.create(workers + 1, options.packBytes + packSlackBytes);
    this.#treeBuffers = PackBuffers.create(workers + 1, treePackBytes + packSlackBytes);
    const data: Omit<BackupWorkerData, "worker" | "packs"> = {
      ...options.rules,
      key: options.key,
      cut: options.cut,
      index: options.index.handle,
      dataBuffers: this.#dataBuffers.handle,
      treeBuffers: this.#treeBuffers.handle,
      counters: this.#counters.shared,
      hunger: this.#hunger.buffer,
      level: options.level,
      dataPackBytes: options.packBytes,
      treePackBytes,
    };
    this.#pool = new WorkerPool<ToWorker, CrewMessage>({
      url: workerUrl(import.meta.url, "./backup.worker.ts"),
      isStartedByMessage: true,
      workers,
      data,
      dataOf: () => ({ packs: this.#giveAccess() }),
      onMessage: (worker, message) => this.#onMessage(worker, message),
      onFailure: (failure) => this.#fail(failure),
    });
    // Both are awaited in turn; until then a failure must not count as unhandled.
    this.#result.promise.catch(() => {});
    this.#flushed.promise.catch(() => {});
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal?.aborted === true) this.#onAbort();
  }

  /** Hands out work. */
  submit(task: SliceTask | StreamTask): void {
    this.#enqueue(task);
  }

  /** Adds a directory above the targets; the one with the id `rootFrame` is the snapshot's root. */
  addFrame(frame: Omit<Frame, "kind" | "into"> & { into?: Destination }): void {
    this.#frames.add({ kind: "frame", ...frame, into: frame.into ?? rootDestination });
  }

  /** Tells the workers that a tree in the repository was found damaged. */
  raiseAlarm(): void {
    Atomics.store(this.#hunger, 1, 1);
  }

  counts(): BackupCounts {
    return this.#counters.sum();
  }

  /**
   * Waits for all work, and for all packs to be durable.
   *
   * @returns the id of the root tree, 32 bytes
   * @throws what a worker or the store threw first, or the signal's reason
   */
  async finish(): Promise<Uint8Array> {
    const root = await this.#result.promise;
    this.#frames.assertEmpty();
    this.#pool.postAll({ kind: "finish" });
    await this.#flushed.promise;
    while (this.#saves.size > 0) await Promise.all(this.#saves);
    // A save that failed by now finds nobody waiting for the promises above.
    if (this.#failure !== undefined) throw this.#failure;
    return root;
  }

  /** Ends the workers, whatever they do, and waits for the saves under way. Idempotent. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    for (const stop of this.#stopServing) stop();
    await this.#pool.close();
    for (const task of this.#queue.splice(0)) if ("handle" in task && task.kind !== "stream") closeHandle(task.handle);
    await Promise.allSettled(this.#saves);
  }

  readonly #onAbort = (): void => {
    if (this.#options.signal !== undefined) this.#fail(cancelledBy(this.#options.signal));
  };

  #fail(failure: Failure): void {
    this.#failure ??= failure;
    this.#result.reject(failure);
    this.#flushed.reject(failure);
  }

  #giveAccess(): PackAccess {
    const { store, signal } = this.#options;
    const directory = store.pathOf?.({ kind: "config", name: "" }).replace(/\/config$/, "");
    if (directory !== undefined) return { kind: "local", directory };
    const mailbox = createPackMailbox();
    this.#stopServing.push(servePackMailbox(mailbox, store, signal));
    return { kind: "remote", mailbox };
  }

  #enqueue(task: Task): void {
    const worker = this.#idle.pop();
    if (worker === undefined) this.#queue.push(task);
    else this.#pool.post(worker, task);
    this.#publishHunger();
  }

  /** Tells the workers how many of them are idle. A task on its way here is not seen: then one more is split off, which is harmless. */
  #publishHunger(): void {
    Atomics.store(this.#hunger, 0, this.#idle.length - this.#queue.length);
  }

  #onMessage(worker: number, message: CrewMessage): void {
    switch (message.kind) {
      case "idle":
        return this.#onIdle(worker);
      case "task":
        return this.#enqueue(message.task);
      case "frame":
        return this.#frames.add(message);
      case "done":
        if (message.into.frame === rootDestination.frame) this.#result.resolve(message.nodes);
        else this.#frames.deliver(message.into, message.nodes);
        return;
      case "pack":
        return this.#onPack(message.pack);
      case "trouble":
        return this.#options.onTrouble(message.trouble);
      case "finished":
        if (++this.#finished === this.#pool.size) this.#flushed.resolve();
        return;
    }
  }

  #onIdle(worker: number): void {
    const task = this.#queue.pop(); // the newest first: depth first, so that few directories are open at a time
    if (task === undefined) this.#idle.push(worker);
    else this.#pool.post(worker, task);
    this.#publishHunger();
  }

  #onPack(pack: FinishedPack): void {
    const buffers = pack.type === "data" ? this.#dataBuffers : this.#treeBuffers;
    const save = this.#save(pack, pack.own ?? buffers.bytes(pack.buffer).subarray(0, pack.sizeBytes))
      .then(() => {
        if (pack.buffer >= 0) buffers.release(pack.buffer);
      })
      .catch((error: unknown) => this.#fail(toFailure(error)))
      .finally(() => this.#saves.delete(save));
    this.#saves.add(save);
  }

  async #save(pack: FinishedPack, bytes: Uint8Array): Promise<void> {
    const { store, dryRun, onPackDurable, signal } = this.#options;
    if (dryRun) return;
    await store.save({ kind: "pack", name: hexOf(pack.id, 0) }, bytes, signal);
    await onPackDurable(pack);
  }
}
