/**
 * A store that fails by plan, for the tests of everything above the port. The plan is a list of rules; the first that fits a call
 * decides its fate, and without one the call goes through. Everything is counted, nothing is random: one plan, one course of events.
 *
 * It never breaks the port's promises: no part of a file becomes visible, and bytes come whole or not at all. The exception is the
 * mode `flip`, which damages what `load` returns, as a failing disk or memory does.
 */

import { cancelledBy, throwIfCancelled } from "@granary/base/cancel";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure } from "@granary/base/errors";
import { describeRef } from "./layout.ts";
import type { FileEntry, FileKind, FileRef, Span, Store } from "./store.ts";

/** The calls that can be made to fail. */
export type FaultyOperation = "create" | "save" | "load" | "stat" | "list" | "remove" | "quarantine";

/**
 * What happens to a call:
 * - `before`: it fails and has done nothing;
 * - `midway`: it fails while bytes are under way: a save leaves nothing, a list breaks off after half of its entries, others read in vain;
 * - `after`: it is done, and then the answer is lost;
 * - `hang`: it does nothing and never settles, until its signal is aborted, or {@link FaultyStore.release} or `close` is called;
 * - `slow`: it waits `delayMs`, and is then done;
 * - `twice`: it is done twice, as by a network that repeats a request;
 * - `flip`: one bit of what `load` returns is wrong.
 */
export type FaultMode = "before" | "midway" | "after" | "hang" | "slow" | "twice" | "flip";

/** One rule of a plan. With none of `nth`, `every` and `from`, it holds for every call that fits. */
export interface FaultRule {
  /** Any operation when absent. */
  readonly operation?: FaultyOperation;
  /** Any kind of file when absent. */
  readonly kind?: FileKind;
  /** Only the n-th call that fits, counted from 1. */
  readonly nth?: number;
  /** Every n-th call that fits. */
  readonly every?: number;
  /** The n-th call that fits and all later ones: a store that goes away, or a process that dies at a commit point. */
  readonly from?: number;
  readonly mode: FaultMode;
  /** The code of the failure; `StoreUnavailable` when absent. */
  readonly code?: string;
  /** For `slow`; 100 when absent. */
  readonly delayMs?: number;
}

/** A call as it was made, in order. */
export interface FaultyCall {
  readonly operation: FaultyOperation;
  readonly kind?: FileKind;
  readonly name?: string;
  /** What the plan did to it. */
  readonly fault?: FaultMode;
}

/** A {@link Store} that fails by plan. */
export interface FaultyStore extends Store {
  /** Every call up to now. */
  readonly calls: readonly FaultyCall[];
  /** Lets the calls that hang now go on, to be done late. */
  release(): void;
}

/** @param inner does the work; closed by `close` */
export function createFaultyStore(inner: Store, plan: readonly FaultRule[] = [], options: { clock?: Clock } = {}): FaultyStore {
  return new PlannedStore(inner, plan, options.clock ?? systemClock);
}

/** A call on its way: what the plan says to it, and how it is named in messages. */
interface MetCall {
  readonly operation: FaultyOperation;
  readonly object: string;
  readonly rule: FaultRule | undefined;
  readonly signal: AbortSignal | undefined;
}

class PlannedStore implements FaultyStore {
  readonly location: string;
  readonly concurrency: number;
  readonly settleMs: number;
  readonly calls: FaultyCall[] = [];
  readonly quarantine?: (ref: FileRef) => Promise<void>;
  readonly pathOf?: (ref: FileRef) => string;
  readonly #inner: Store;
  readonly #rules: readonly { readonly rule: FaultRule; count: number }[];
  readonly #clock: Clock;
  readonly #hanging = new Set<(failure?: Failure) => void>();

  constructor(inner: Store, plan: readonly FaultRule[], clock: Clock) {
    this.#inner = inner;
    this.#rules = plan.map((rule) => ({ rule, count: 0 }));
    this.#clock = clock;
    this.location = inner.location;
    this.concurrency = inner.concurrency;
    this.settleMs = inner.settleMs;
    if (inner.quarantine !== undefined)
      this.quarantine = (ref) => this.#run(this.#meet("quarantine", ref), async () => inner.quarantine?.(ref));
    if (inner.pathOf !== undefined) this.pathOf = inner.pathOf.bind(inner);
  }

  create(): Promise<void> {
    return this.#run(this.#meet("create"), () => this.#inner.create());
  }

  save(ref: FileRef, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#run(this.#meet("save", ref, signal), () => this.#inner.save(ref, data, signal));
  }

  load(ref: FileRef, span?: Span, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#run(this.#meet("load", ref, signal), () => this.#inner.load(ref, span, signal));
  }

  stat(ref: FileRef, signal?: AbortSignal): Promise<FileEntry> {
    return this.#run(this.#meet("stat", ref, signal), () => this.#inner.stat(ref, signal));
  }

  remove(ref: FileRef, signal?: AbortSignal): Promise<void> {
    return this.#run(this.#meet("remove", ref, signal), () => this.#inner.remove(ref, signal));
  }

  async *list(kind: FileKind, signal?: AbortSignal): AsyncGenerator<FileEntry> {
    const call = this.#meet("list", { kind }, signal);
    const mode = call.rule?.mode;
    await this.#start(call);
    if (mode === "midway" || mode === "after") {
      const entries = await Array.fromAsync(this.#inner.list(kind, signal));
      yield* mode === "after" ? entries : entries.slice(0, Math.ceil(entries.length / 2));
      throw failureOf(call, "the answer broke off");
    }
    if (mode === "twice") for await (const entry of this.#inner.list(kind, signal)) void entry;
    yield* this.#inner.list(kind, signal);
  }

  release(): void {
    for (const settle of this.#hanging) settle();
  }

  async close(): Promise<void> {
    for (const settle of this.#hanging) settle(new Failure("StoreUnavailable", "The store was closed while a call was hanging"));
    await this.#inner.close();
  }

  async #run<T>(call: MetCall, act: () => Promise<T>): Promise<T> {
    const mode = call.rule?.mode;
    await this.#start(call);
    if (mode === "midway") {
      if (call.operation === "load" || call.operation === "stat") await act();
      throw failureOf(call, "the connection broke midway");
    }
    if (mode === "twice") await act();
    const answer = await act();
    if (mode === "after") throw failureOf(call, "the answer was lost");
    if (mode === "flip" && answer instanceof Uint8Array) flipBit(answer);
    return answer;
  }

  async #start(call: MetCall): Promise<void> {
    const { rule, signal } = call;
    throwIfCancelled(signal);
    if (rule?.mode === "before") throw failureOf(call, "the store did not answer");
    if (rule?.mode === "slow") await this.#clock.sleep(rule.delayMs ?? 100, signal);
    if (rule?.mode === "hang") await this.#hang(signal);
  }

  #hang(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (failure?: Failure): void => {
        this.#hanging.delete(settle);
        signal?.removeEventListener("abort", stop);
        if (failure === undefined) resolve();
        else reject(failure);
      };
      const stop = (): void => settle(signal === undefined ? undefined : cancelledBy(signal));
      signal?.addEventListener("abort", stop, { once: true });
      this.#hanging.add(settle);
    });
  }

  /** Records a call, counts it for every rule that fits, and finds the first that takes effect. */
  #meet(operation: FaultyOperation, subject: { kind?: FileKind; name?: string } = {}, signal?: AbortSignal): MetCall {
    const { kind, name } = subject;
    let met: FaultRule | undefined;
    for (const entry of this.#rules) {
      const { rule } = entry;
      if ((rule.operation ?? operation) !== operation || (rule.kind ?? kind) !== kind) continue;
      entry.count++;
      const isDue =
        (rule.nth === undefined || entry.count === rule.nth) &&
        (rule.every === undefined || entry.count % rule.every === 0) &&
        (rule.from === undefined || entry.count >= rule.from);
      if (isDue) met ??= rule;
    }
    this.calls.push({ operation, ...(kind && { kind }), ...(name && { name }), ...(met && { fault: met.mode }) });
    const object = kind === undefined ? "the repository" : name === undefined ? `${kind} files` : describeRef({ kind, name });
    return { operation, object, rule: met, signal };
  }
}

function failureOf(call: MetCall, reason: string): Failure {
  const { operation, object, rule } = call;
  const details = { operation, mode: rule?.mode ?? "before" };
  return new Failure(rule?.code ?? "StoreUnavailable", `Cannot ${operation} ${object}: ${reason} (planned fault)`, { details });
}

function flipBit(data: Uint8Array): void {
  const middle = data.length >> 1;
  const byte = data[middle];
  if (byte !== undefined) data[middle] = byte ^ 1;
}
