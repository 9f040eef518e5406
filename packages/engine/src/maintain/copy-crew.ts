/**
 * The workers of copy: they are given tasks, and the packs they finish are saved here. A pack is handed on only when the store has it on
 * disk, and its buffer is free only after that, so that a slow store slows the workers down and memory stays bounded.
 */
import { availableParallelism } from "node:os";
import { cancelledBy } from "@granary/base/cancel";
import { type Failure, toFailure } from "@granary/base/errors";
import { workerUrl } from "@granary/base/worker-url";
import { hexOf } from "../format/ids.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import { createPackMailbox, servePackMailbox } from "../repository/pack-mailbox.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import type { Repository } from "../repository/repository.ts";
import { WorkerPool } from "../repository/worker-pool.ts";
import type { CopyTask, CopyWorkerData, FromCopyWorker, ToCopyWorker } from "./copy-messages.ts";

const MEBIBYTE = 2 ** 20;
/** Room in a buffer beyond the size at which a pack is closed: for the header, and for most blobs that do not fit any more. */
const PACK_SLACK_BYTES = MEBIBYTE;
const LARGEST_TREE_PACK_BYTES = 4 * MEBIBYTE;
/** Tasks a worker has at hand, so that it need not wait for the main thread between two. */
const TASKS_AHEAD = 2;

export interface CopyCrewOptions {
  /** With its index, which must not change meanwhile. */
  readonly source: Repository;
  readonly target: Repository;
  /** The size at which a data pack is closed. */
  readonly packBytes: number;
  /** zstd level for blobs that are not compressed in the source. */
  readonly level: number;
  /** 1 or more; by default one a processor, at most 8, and at least 4 where each read takes time. */
  readonly workers?: number;
  /** Called for each pack that is on disk, one call after the other is done. */
  readonly onPackDurable: (pack: FinishedPack) => Promise<void>;
  /** Must not throw. */
  readonly onCopied: (blobs: number, sealedBytes: number) => void;
  readonly signal?: AbortSignal;
}

export class CopyCrew implements AsyncDisposable {
  readonly #options: CopyCrewOptions;
  readonly #pool: WorkerPool<ToCopyWorker, FromCopyWorker>;
  readonly #dataBuffers: PackBuffers;
  readonly #treeBuffers: PackBuffers;
  readonly #stopServing: (() => void)[] = [];
  readonly #saves = new Set<Promise<void>>();
  #handedOn: Promise<void> = Promise.resolve();
  #onMessage: (worker: number, message: FromCopyWorker) => void = () => {};
  #reject: (failure: Failure) => void = () => {};
  #failure: Failure | undefined;

  constructor(options: CopyCrewOptions) {
    this.#options = options;
    const { source, target, packBytes, signal } = options;
    const processors = Math.min(8, availableParallelism());
    const workers = options.workers ?? (source.store.pathOf === undefined ? Math.max(4, processors) : processors);
    const treePackBytes = Math.min(LARGEST_TREE_PACK_BYTES, packBytes);
    this.#dataBuffers = PackBuffers.create(workers + 2, packBytes + PACK_SLACK_BYTES);
    this.#treeBuffers = PackBuffers.create(workers + 1, treePackBytes + PACK_SLACK_BYTES);
    const data: Omit<CopyWorkerData, "worker" | "packs"> = {
      sourceKey: source.key,
      sourceIndex: source.index.handle,
      targetKey: target.key,
      dataBuffers: this.#dataBuffers.handle,
      treeBuffers: this.#treeBuffers.handle,
      dataPackBytes: packBytes,
      treePackBytes,
      level: options.level,
      compression: target.config.version < 2 ? "remove" : source.config.version < 2 ? "add" : "keep",
    };
    this.#pool = new WorkerPool<ToCopyWorker, FromCopyWorker>({
      url: workerUrl(import.meta.url, "./copy.worker.ts"),
      workers,
      data,
      dataOf: () => ({ packs: this.#giveAccess() }),
      onMessage: (worker, message) => {
        if (message.kind === "pack") this.#save(message.pack);
        else this.#onMessage(worker, message);
      },
      onFailure: (failure) => this.#fail(failure),
    });
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
  }

  /**
   * Copies blobs, and waits until all packs they are in are durable and handed on.
   *
   * @throws BlobInvalid, StoreTruncated and others about the source; StoreFull and others about the target; Cancelled
   */
  async copy(tasks: Iterable<CopyTask>): Promise<void> {
    const source = tasks[Symbol.iterator]();
    // of the tasks each worker has at hand, how many blobs are still to be copied
    const left: number[][] = Array.from({ length: this.#pool.size }, () => []);
    await this.#run((finish) => {
      const feed = (worker: number): void => {
        const counts = left[worker] ?? [];
        while (counts.length < TASKS_AHEAD) {
          const next = source.next();
          if (next.done === true) break;
          counts.push(next.value.entries.length);
          this.#pool.post(worker, next.value);
        }
        if (left.every((ofOne) => ofOne.length === 0)) finish();
      };
      this.#onMessage = (worker, message) => {
        if (message.kind !== "copied") return;
        this.#options.onCopied(message.blobs, message.sealedBytes);
        const counts = left[worker] ?? [];
        counts[0] = (counts[0] ?? 0) - message.blobs;
        if (counts[0] > 0) return;
        counts.shift();
        feed(worker);
      };
      for (let worker = 0; worker < this.#pool.size; worker++) feed(worker);
    });
    let flushed = 0;
    await this.#run((finish) => {
      this.#onMessage = (_worker, message) => {
        if (message.kind === "flushed" && ++flushed === this.#pool.size) finish();
      };
      this.#pool.postAll({ kind: "flush" });
    });
    while (this.#saves.size > 0) await Promise.all(this.#saves);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the workers, whatever they do, and waits for the saves under way. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    for (const stop of this.#stopServing) stop();
    await this.#pool.close();
    await Promise.allSettled(this.#saves);
  }

  readonly #onAbort = (): void => {
    if (this.#options.signal !== undefined) this.#fail(cancelledBy(this.#options.signal));
  };

  #fail(failure: Failure): void {
    this.#failure ??= failure;
    this.#reject(failure);
  }

  async #run(begin: (finish: () => void) => void): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#reject = reject;
    try {
      begin(resolve);
      await promise;
    } finally {
      this.#onMessage = () => {};
      this.#reject = () => {};
    }
  }

  #giveAccess(): PackAccess {
    const { source, signal } = this.#options;
    const directory = source.store.pathOf?.({ kind: "config", name: "" }).replace(/\/config$/, "");
    if (directory !== undefined) return { kind: "local", directory };
    const mailbox = createPackMailbox();
    this.#stopServing.push(servePackMailbox(mailbox, source.store, signal));
    return { kind: "remote", mailbox };
  }

  #save(pack: FinishedPack): void {
    const buffers = pack.type === "data" ? this.#dataBuffers : this.#treeBuffers;
    const bytes = pack.own ?? buffers.bytes(pack.buffer).subarray(0, pack.sizeBytes);
    const save = this.#saveAndHandOn(pack, bytes)
      .then(() => {
        if (pack.buffer >= 0) buffers.release(pack.buffer);
      })
      .catch((error: unknown) => this.#fail(toFailure(error)))
      .finally(() => this.#saves.delete(save));
    this.#saves.add(save);
  }

  async #saveAndHandOn(pack: FinishedPack, bytes: Uint8Array): Promise<void> {
    const { target, signal, onPackDurable } = this.#options;
    await target.store.save({ kind: "pack", name: hexOf(pack.id) }, bytes, signal);
    this.#handedOn = this.#handedOn.then(() => onPackDurable(pack));
    await this.#handedOn;
  }
}
