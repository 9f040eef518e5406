/**
 * What a thread has taken from the system and not given back, so that whoever ends the thread can do it: file handles, and memory of OpenSSL
 * and zstd. A thread may be ended at any moment, and nothing of this is given back then by itself.
 *
 * One piece of memory that both share: a bit for each handle, and a list of contexts. A handle is entered after it was opened and struck out
 * before it is closed, so that at worst one is forgotten, and never one closed that is somebody else's by now.
 */
import { isMainThread, workerData } from "node:worker_threads";
import { bindSymbol, type NativeFunction } from "./symbols.ts";

/** The name under which a ledger is given in a thread's `workerData`. */
export const ledgerKey = "threadLedger";

/** Functions that give a context back, by the number under which it is entered. */
const freeFunctions = ["ZSTD_freeCCtx", "ZSTD_freeDCtx", "EVP_CIPHER_CTX_free"] as const;
export type FreeFunction = (typeof freeFunctions)[number];

const handleWords = 32 * 1024; // for handles below 2^20, the usual limit of a process
const contextSlots = 64;
const contextBytes = 16;
const contextsAt = handleWords * 4;

export function createLedger(): SharedArrayBuffer {
  return new SharedArrayBuffer(contextsAt + contextSlots * contextBytes);
}

interface Ledger {
  readonly handles: Int32Array;
  readonly contexts: BigInt64Array;
}

let own: Ledger | undefined | null = null;
let contextCount = 0;

function view(memory: SharedArrayBuffer): Ledger {
  return { handles: new Int32Array(memory, 0, handleWords), contexts: new BigInt64Array(memory, contextsAt) };
}

function findOwn(): Ledger | undefined {
  if (isMainThread) return undefined;
  const given: unknown = workerData;
  if (typeof given !== "object" || given === null || !(ledgerKey in given)) return undefined;
  const memory: unknown = given[ledgerKey];
  return memory instanceof SharedArrayBuffer ? view(memory) : undefined;
}

/** Enters a handle that this thread has opened or was given. */
export function enterHandle(handle: number): void {
  if (own === null) own = findOwn();
  if (own === undefined || handle < 0) return;
  const word = handle >>> 5;
  if (word < handleWords) own.handles[word] = (own.handles[word] ?? 0) | (1 << (handle & 31));
}

/** Strikes out a handle that this thread is about to close. */
export function strikeHandle(handle: number): void {
  if (own === null) own = findOwn();
  if (own === undefined || handle < 0) return;
  const word = handle >>> 5;
  if (word < handleWords) own.handles[word] = (own.handles[word] ?? 0) & ~(1 << (handle & 31));
}

/** Enters memory that is to be given back by this function when the thread has ended. */
export function enterContext(free: FreeFunction, pointer: bigint): void {
  if (own === null) own = findOwn();
  if (own === undefined || contextCount === contextSlots) return;
  const at = contextCount++ * 2;
  own.contexts[at + 1] = pointer;
  own.contexts[at] = BigInt(freeFunctions.indexOf(free) + 1);
}

/** Gives back what is in the ledger of a thread that has ended. Idempotent. */
export function settleLedger(memory: SharedArrayBuffer): void {
  const { handles, contexts } = view(memory);
  for (let word = 0; word < handleWords; word++) {
    for (let bits = handles[word] ?? 0; bits !== 0; bits &= bits - 1) {
      call("close", word * 32 + 31 - Math.clz32(bits & -bits));
    }
    if (handles[word] !== 0) handles[word] = 0;
  }
  for (let at = 0; at < contexts.length; at += 2) {
    const free = freeFunctions[Number(contexts[at] ?? 0n) - 1];
    if (free === undefined) continue;
    contexts[at] = 0n;
    call(free, contexts[at + 1] ?? 0n);
  }
}

const bound = new Map<string, NativeFunction>();

function call(name: "close" | FreeFunction, argument: number | bigint): void {
  let found = bound.get(name);
  if (found === undefined) {
    found = name === "close" ? bindSymbol(name, "int", ["int"]) : bindSymbol(name, "void", ["void *"]);
    bound.set(name, found);
  }
  found(argument);
}
