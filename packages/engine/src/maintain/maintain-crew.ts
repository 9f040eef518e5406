/**
 * The workers of check, prune and repair, and what they are given: walks over all trees, proofs of whole packs, copies of blobs.
 *
 * One job at a time. A pack that workers finish is given to `onPackDurable` only after the store has it on disk, and its buffer is free only
 * after that, so that a slow store slows the workers down and memory stays bounded.
 */
import { availableParallelism } from "node:os";
import { cancelledBy } from "@granary/base/cancel";
import { decodeFailure, Failure, toFailure } from "@granary/base/errors";
import { workerUrl } from "@granary/base/worker-url";
import "../errors.ts";
import type { MasterKey } from "../crypto/seal.ts";
import { hexOf } from "../format/ids.ts";
import { tuneAllocator } from "../native/memory.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import type { FinishedPack } from "../repository/pack-builder.ts";
import { createPackMailbox, servePackMailbox } from "../repository/pack-mailbox.ts";
import type { PackAccess } from "../repository/pack-reader.ts";
import { warmWorkers, WorkerPool } from "../repository/worker-pool.ts";
import type { Store } from "../store/store.ts";
import type { BlobNumber, IndexSurvey } from "./index-survey.ts";
import type {
  BadBlob,
  CopyTask,
  FromMaintainWorker,
  MaintainWorkerData,
  PackFindings,
  ToMaintainWorker,
  TreeProblem,
  WritingData,
} from "./maintain-messages.ts";
import { SharedWalk } from "./shared-walk.ts";

const mebibyte = 1024 * 1024;
/** Room in a buffer beyond the size at which a pack is closed: for the header, and for most blobs that do not fit any more. */
const packSlackBytes = mebibyte;
const largestTreePackBytes = 4 * mebibyte;
/** Tasks a worker has at hand, so that it need not wait for the main thread between two. */
const tasksAhead = 2;

const worker: URL = workerUrl(import.meta.url, "./maintain.worker.ts");

/** How many threads a job has: one a processor, at most 8, and at least 4 where each request takes time. */
function countWorkers(isRemote: boolean): number {
  const processors = Math.min(8, availableParallelism());
  return isRemote ? Math.max(4, processors) : processors;
}

/**
 * Starts the threads of a check or a prune ahead of it, to be called while the repository is being opened: they are ready by the time the
 * password has become a key. When they are not used, they end with the process.
 */
export function prepareMaintenance(workers: number = countWorkers(false)): void {
  warmWorkers(worker, workers);
}

export interface MaintainCrewOptions {
  readonly store: Store;
  readonly key: MasterKey;
  /** Must not change while the crew is at work, but for places of blobs. */
  readonly survey: IndexSurvey;
  /** 1 or more; by default one a processor, at most 8, and at least 4 where each request takes time. */
  readonly workers?: number;
  /** For copying. */
  readonly writing?: MaintainWriting;
  readonly signal?: AbortSignal;
}

export interface MaintainWriting {
  /** The size at which a data pack is closed. */
  readonly packBytes: number;
  /** zstd level for what is compressed anew; 0 for none. */
  readonly level: number;
  /** Compresses blobs that are stored as they are. */
  readonly recompress: boolean;
  /** Called for each pack that is on disk. */
  readonly onPackDurable: (pack: FinishedPack) => void;
}

/** A tree where a walk begins. */
export interface WalkRoot {
  /** The tree's entry. */
  readonly tree: number;
  /** A number that means something to the caller. */
  readonly snapshot: number;
}

/** What a walk found wrong with a tree. */
export interface TreeFinding {
  /** The tree's entry. */
  readonly tree: number;
  readonly problem: TreeProblem;
  /** The pack it was read from. */
  readonly pack: number;
  /** The tree can be read, though not from this pack. */
  readonly hasOtherCopy: boolean;
}

export interface WalkEvents {
  readonly onFinding: (finding: TreeFinding) => void;
  /** Called with the walk before it begins, for a look at its counters now and then. */
  readonly onStart?: (walk: SharedWalk) => void;
}

export class MaintainCrew implements AsyncDisposable {
  readonly #options: MaintainCrewOptions;
  readonly #pool: WorkerPool<ToMaintainWorker, FromMaintainWorker>;
  readonly #stopServing: (() => void)[] = [];
  readonly #dataBuffers: PackBuffers | undefined;
  readonly #treeBuffers: PackBuffers | undefined;
  readonly #saves = new Set<Promise<void>>();
  #onMessage: (worker: number, message: FromMaintainWorker) => void = () => {};
  #reject: (failure: Failure) => void = () => {};
  #failure: Failure | undefined;

  constructor(options: MaintainCrewOptions) {
    this.#options = options;
    const { survey, key, signal, writing, store } = options;
    tuneAllocator();
    const workers = options.workers ?? countWorkers(store.pathOf === undefined);
    let writingData: { writing?: WritingData } = {};
    if (writing !== undefined) {
      const dataPackBytes = writing.packBytes;
      const treePackBytes = Math.min(largestTreePackBytes, dataPackBytes);
      this.#dataBuffers = PackBuffers.create(workers + 1, dataPackBytes + packSlackBytes);
      this.#treeBuffers = PackBuffers.create(workers + 1, treePackBytes + packSlackBytes);
      const { level, recompress } = writing;
      const buffers = { dataBuffers: this.#dataBuffers.handle, treeBuffers: this.#treeBuffers.handle };
      writingData = { writing: { ...buffers, dataPackBytes, treePackBytes, level, recompress } };
    }
    const data: Omit<MaintainWorkerData, "worker" | "packs"> = { key, survey: survey.handle, ...writingData };
    this.#pool = new WorkerPool<ToMaintainWorker, FromMaintainWorker>({
      url: worker,
      workers,
      isStartedByMessage: true,
      data,
      dataOf: () => ({ packs: this.#giveAccess() }),
      onMessage: (worker, message) => {
        if (message.kind === "pack") this.#onPack(message.pack);
        else this.#onMessage(worker, message);
      },
      onFailure: (failure) => this.#fail(failure),
    });
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
  }

  /**
   * Reads every tree that can be reached, each once.
   *
   * @returns what was seen
   * @throws what the store throws that is not damage of one file; Cancelled
   */
  async walk(roots: readonly WalkRoot[], events: WalkEvents): Promise<SharedWalk> {
    const { survey } = this.#options;
    const walk = SharedWalk.create(survey.trees.size, survey.data.size);
    const tries = new Map<number, number>();
    let again: number[] = [];
    const onTree = (tree: number, problem: TreeProblem): void => {
      const { pack } = survey.placeOf(tree * 2 + 1);
      const tried = tries.get(tree) ?? 0;
      const hasOtherCopy = problem.kind === "unreadable" && survey.findCopies(tree * 2 + 1).length > tried;
      events.onFinding({ tree, problem, pack, hasOtherCopy });
      if (!hasOtherCopy) return;
      survey.swapFirst(tree * 2 + 1, tried);
      tries.set(tree, tried + 1);
      again.push(tree);
    };
    for (const { tree, snapshot } of roots) walk.seeTree(tree, -1 - snapshot);
    events.onStart?.(walk);
    do {
      for (const tree of again) walk.putBack(tree);
      again = [];
      await this.#runAll({ kind: "walk", walk: walk.handle }, "walked", (message) => {
        if (message.kind === "tree") for (const problem of message.problems) onTree(message.tree, problem);
      });
    } while (again.length > 0);
    return walk;
  }

  /** Reads whole packs and proves them. @throws as {@link walk} */
  async verify(
    packs: readonly { readonly pack: number; readonly sizeBytes: number }[],
    onPack: (pack: number, findings: PackFindings) => void,
  ): Promise<void> {
    const numbers = new Int32Array(new SharedArrayBuffer(packs.length * 4));
    const sizes = new Float64Array(new SharedArrayBuffer(packs.length * 8));
    packs.forEach(({ pack, sizeBytes }, i) => {
      numbers[i] = pack;
      sizes[i] = sizeBytes;
    });
    const task = { kind: "verify", packs: numbers.buffer, sizes: sizes.buffer, cursor: new SharedArrayBuffer(4) } as const;
    await this.#runAll(task, "verifiedAll", (message) => {
      if (message.kind === "verified") onPack(message.pack, message.findings);
    });
  }

  /**
   * Copies blobs into new packs, and waits until those are durable.
   *
   * @param onCopied called after each task, with what is damaged and was not copied; may answer with another try from another pack
   * @throws StoreFull and what {@link walk} throws
   */
  async copy(
    tasks: Iterable<CopyTask>,
    onCopied: (task: CopyTask, bad: readonly { readonly blob: BlobNumber; readonly failure: Failure }[]) => readonly CopyTask[],
  ): Promise<void> {
    const source = tasks[Symbol.iterator]();
    const extra: CopyTask[] = [];
    const atHand: CopyTask[][] = Array.from({ length: this.#pool.size }, () => []);
    await this.#run((finish) => {
      const feed = (worker: number): void => {
        const hand = atHand[worker] ?? [];
        while (hand.length < tasksAhead) {
          const next = extra.pop() ?? takeNext(source);
          if (next === undefined) break;
          hand.push(next);
          this.#pool.post(worker, next);
        }
        if (atHand.every((tasksOfOne) => tasksOfOne.length === 0)) finish();
      };
      this.#onMessage = (worker, message) => {
        if (message.kind !== "copied") return;
        const task = atHand[worker]?.shift();
        if (task !== undefined) extra.push(...onCopied(task, message.bad.map(decodeBad)));
        feed(worker);
      };
      for (let worker = 0; worker < this.#pool.size; worker++) feed(worker);
    });
    await this.#runAll({ kind: "flush" }, "flushed", () => {});
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

  /** Gives all workers the same message, and waits until each has answered. */
  async #runAll(
    task: ToMaintainWorker,
    answer: FromMaintainWorker["kind"],
    onMessage: (message: FromMaintainWorker) => void,
  ): Promise<void> {
    let answers = 0;
    await this.#run((finish) => {
      this.#onMessage = (_worker, message) => {
        if (message.kind !== answer) onMessage(message);
        else if (++answers === this.#pool.size) finish();
      };
      this.#pool.postAll(task);
    });
  }

  async #run(begin: (finish: () => void) => void): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#reject = reject;
    begin(resolve);
    try {
      await promise;
    } finally {
      this.#onMessage = () => {};
      this.#reject = () => {};
    }
  }

  #giveAccess(): PackAccess {
    const { store, signal } = this.#options;
    const directory = store.pathOf?.({ kind: "config", name: "" }).replace(/\/config$/, "");
    if (directory !== undefined) return { kind: "local", directory };
    const mailbox = createPackMailbox();
    this.#stopServing.push(servePackMailbox(mailbox, store, signal));
    return { kind: "remote", mailbox };
  }

  #onPack(pack: FinishedPack): void {
    const buffers = pack.type === "data" ? this.#dataBuffers : this.#treeBuffers;
    if (buffers === undefined) throw new Failure("Bug", "A worker that was given no buffers finished a pack");
    const bytes = pack.own ?? buffers.bytes(pack.buffer).subarray(0, pack.sizeBytes);
    const save = this.#save(pack, bytes)
      .then(() => {
        if (pack.buffer >= 0) buffers.release(pack.buffer);
      })
      .catch((error: unknown) => this.#fail(toFailure(error)))
      .finally(() => this.#saves.delete(save));
    this.#saves.add(save);
  }

  async #save(pack: FinishedPack, bytes: Uint8Array): Promise<void> {
    const { store, signal, writing } = this.#options;
    await store.save({ kind: "pack", name: hexOf(pack.id) }, bytes, signal);
    writing?.onPackDurable(pack);
  }
}

function takeNext<T>(source: Iterator<T>): T | undefined {
  const next = source.next();
  return next.done === true ? undefined : next.value;
}

function decodeBad({ blob, failure }: BadBlob): { readonly blob: BlobNumber; readonly failure: Failure } {
  return { blob, failure: decodeFailure(failure) };
}
