/**
 * Lets a worker read packs of a remote store: it writes what it wants into shared memory and sleeps; the main thread, which owns the store's
 * connections, loads it and wakes the worker. One mailbox a worker, one request at a time.
 */
import { Buffer } from "node:buffer";
import { encodeFailure, decodeFailure, type FailureRecord } from "@granary/base/errors";
import { hexOf } from "../format/ids.ts";
import type { Store } from "../store/store.ts";

/** Reads spans of packs, synchronously. */
export interface PackReader {
  /**
   * Fills `target` from a pack.
   *
   * @throws StoreFileNotFound, StoreTruncated, StoreUnavailable
   */
  read(packId: Uint8Array, offsetBytes: number, target: Uint8Array): void;
  close(): void;
}

/** The shared memory; see the offsets below. */
export interface PackMailbox {
  readonly control: SharedArrayBuffer;
  /** The answer; grows to the largest. */
  readonly data: SharedArrayBuffer;
}

// Words of `control`; the pack's id follows them.
const state = 0;
const offset = 1;
const length = 2;
const idAt = 16;

// Values of `state`.
const idle = 0;
const asked = 1;
const answered = 2;
const failed = 3;
const closed = 4;

const largestAnswer = 2 ** 32;

export function createPackMailbox(): PackMailbox {
  return { control: new SharedArrayBuffer(64), data: new SharedArrayBuffer(0, { maxByteLength: largestAnswer }) };
}

/** The worker's end. */
export function openMailboxReader(mailbox: PackMailbox): PackReader {
  const control = new Int32Array(mailbox.control);
  const id = new Uint8Array(mailbox.control, idAt, 32);
  return {
    read(packId, offsetBytes, target) {
      id.set(packId);
      control[offset] = offsetBytes;
      control[length] = target.length;
      Atomics.store(control, state, asked);
      Atomics.notify(control, state);
      while (Atomics.load(control, state) === asked) Atomics.wait(control, state, asked);
      const outcome = Atomics.load(control, state);
      const answer = new Uint8Array(mailbox.data, 0, control[length] ?? 0);
      if (outcome === failed) throw decodeFailure(JSON.parse(Buffer.from(answer).toString()) as FailureRecord); // written by serve()
      target.set(answer);
      Atomics.store(control, state, idle);
    },
    close() {},
  };
}

/** The main thread's end: answers until the returned function is called. */
export function servePackMailbox(mailbox: PackMailbox, store: Store, signal?: AbortSignal): () => void {
  const control = new Int32Array(mailbox.control);
  void serve(mailbox, control, { store, ...(signal === undefined ? {} : { signal }) });
  return () => {
    Atomics.store(control, state, closed);
    Atomics.notify(control, state);
  };
}

async function serve(mailbox: PackMailbox, control: Int32Array, from: { store: Store; signal?: AbortSignal }): Promise<void> {
  for (;;) {
    const now = Atomics.load(control, state);
    if (now === closed) return;
    if (now !== asked) {
      await Atomics.waitAsync(control, state, now).value;
      continue;
    }
    const span = { offsetBytes: (control[offset] ?? 0) >>> 0, lengthBytes: (control[length] ?? 0) >>> 0 };
    const name = hexOf(new Uint8Array(mailbox.control, idAt, 32), 0);
    let answer: Uint8Array;
    let outcome = answered;
    try {
      answer = await from.store.load({ kind: "pack", name }, span, from.signal);
    } catch (error) {
      answer = Buffer.from(JSON.stringify(encodeFailure(error)));
      outcome = failed;
    }
    if (mailbox.data.byteLength < answer.length) mailbox.data.grow(answer.length);
    new Uint8Array(mailbox.data).set(answer);
    control[length] = answer.length;
    if (Atomics.compareExchange(control, state, asked, outcome) !== asked) return; // closed meanwhile
    Atomics.notify(control, state);
  }
}
