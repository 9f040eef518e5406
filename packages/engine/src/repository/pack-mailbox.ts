/**
 * Lets a worker read packs of a remote store: it writes what it wants into shared memory and sleeps; the main thread, which owns the store's
 * connections, loads it and wakes the worker. One mailbox a worker, one request at a time.
 */
import { Buffer } from "node:buffer";
import { decodeFailure, encodeFailure, Failure, type FailureRecord } from "@granary/base/errors";
import { hexOf } from "../format/ids.ts";
import type { Store } from "../store/store.ts";
import { reserveShared } from "./shared-memory.ts";

/** Reads spans of packs, synchronously. */
export interface PackReader {
  /**
   * Fills `target` from a pack.
   *
   * @throws StoreFileNotFound, StoreTruncated, StoreUnavailable; Cancelled
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
const leastAnswer = 2 ** 27;
/** Room that is always there, for the message of a failure at least. */
const roomBytes = 64 * 1024;

export function createPackMailbox(): PackMailbox {
  const data = reserveShared(largestAnswer, leastAnswer);
  data.grow(roomBytes);
  return { control: new SharedArrayBuffer(64), data };
}

/** The worker's end. Once the other end is closed, a read throws Cancelled. */
export function openMailboxReader(mailbox: PackMailbox): PackReader {
  const control = new Int32Array(mailbox.control);
  const id = new Uint8Array(mailbox.control, idAt, 32);
  return {
    read(packId, offsetBytes, target) {
      id.set(packId);
      control[offset] = offsetBytes;
      control[length] = target.length;
      Atomics.compareExchange(control, state, idle, asked);
      Atomics.notify(control, state);
      while (Atomics.load(control, state) === asked) Atomics.wait(control, state, asked);
      const outcome = Atomics.load(control, state);
      if (outcome === closed) throw new Failure("Cancelled", "Nobody reads packs for this thread any more");
      const answer = new Uint8Array(mailbox.data, 0, control[length] ?? 0);
      const failure = outcome === failed ? decodeFailure(JSON.parse(Buffer.from(answer).toString()) as FailureRecord) : undefined; // written by answer()
      if (failure === undefined) target.set(answer);
      Atomics.compareExchange(control, state, outcome, idle);
      if (failure !== undefined) throw failure;
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

interface Source {
  readonly store: Store;
  readonly signal?: AbortSignal;
}

async function serve(mailbox: PackMailbox, control: Int32Array, from: Source): Promise<void> {
  for (;;) {
    const now = Atomics.load(control, state);
    if (now === closed) return;
    if (now !== asked) {
      await Atomics.waitAsync(control, state, now).value;
      continue;
    }
    const outcome = await answer(mailbox, control, from);
    if (Atomics.compareExchange(control, state, asked, outcome) !== asked) return; // closed meanwhile
    Atomics.notify(control, state);
  }
}

/** Puts what was asked for into the mailbox, or why that failed; does not fail itself. */
async function answer(mailbox: PackMailbox, control: Int32Array, from: Source): Promise<number> {
  const span = { offsetBytes: (control[offset] ?? 0) >>> 0, lengthBytes: (control[length] ?? 0) >>> 0 };
  const name = hexOf(new Uint8Array(mailbox.control, idAt, 32), 0);
  try {
    const bytes = await from.store.load({ kind: "pack", name }, span, from.signal);
    if (mailbox.data.byteLength < bytes.length) mailbox.data.grow(bytes.length);
    put(mailbox, control, bytes);
    return answered;
  } catch (error) {
    const record = encodeFailure(error);
    const text = Buffer.from(JSON.stringify(record));
    const short = { code: record.code, message: record.message.slice(0, 1000), details: {} };
    put(mailbox, control, text.length <= roomBytes ? text : Buffer.from(JSON.stringify(short)));
    return failed;
  }
}

function put(mailbox: PackMailbox, control: Int32Array, bytes: Uint8Array): void {
  new Uint8Array(mailbox.data).set(bytes);
  control[length] = bytes.length;
}
