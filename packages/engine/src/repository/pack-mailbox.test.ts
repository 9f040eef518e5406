import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { sha256 } from "../crypto/hash.ts";
import { hexOf } from "../format/ids.ts";
import { createFaultyStore } from "../store/faulty.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { Store } from "../store/store.ts";
import { createPackMailbox, type PackMailbox, servePackMailbox } from "./pack-mailbox.ts";

/** What a reading thread says: what it read, in hex, or the code of a failure. */
interface Answer {
  readonly read?: string;
  readonly code?: string;
  readonly message?: string;
}

/** A thread that reads what it is told to through a mailbox. */
class ReadingThread {
  readonly #worker: Worker;

  constructor(mailbox: PackMailbox) {
    const url = new URL("./pack-mailbox.ts", import.meta.url).href;
    const code = `
      const { workerData, parentPort } = require("node:worker_threads");
      import(workerData.url).then(({ openMailboxReader }) => {
        const reader = openMailboxReader(workerData.mailbox);
        parentPort.on("message", ({ id, offset, length }) => {
          const target = Buffer.alloc(length);
          try {
            reader.read(id, offset, target);
            parentPort.postMessage({ read: target.toString("hex") });
          } catch (error) {
            parentPort.postMessage({ code: error.code, message: error.message });
          }
        });
      });`;
    this.#worker = new Worker(code, { eval: true, workerData: { url, mailbox } });
  }

  ask(id: Uint8Array, offset: number, length: number): Promise<Answer> {
    this.#worker.postMessage({ id: Buffer.from(id), offset, length });
    return new Promise((resolve) => this.#worker.once("message", (answer: Answer) => resolve(answer)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}

async function savePack(store: Store, sizeBytes: number): Promise<{ id: Buffer; bytes: Buffer }> {
  const bytes = randomBytes(sizeBytes);
  const id = sha256(bytes);
  await store.save({ kind: "pack", name: hexOf(id) }, bytes);
  return { id, bytes };
}

test("a thread reads spans of packs through its mailbox, one after the other, small and large", async () => {
  const store = createMemoryStore();
  const mailbox = createPackMailbox();
  const stop = servePackMailbox(mailbox, store);
  await using thread = new ReadingThread(mailbox);
  const { id, bytes } = await savePack(store, 3_000_000);
  for (const [offset, length] of [
    [0, 1],
    [0, 3_000_000],
    [1000, 70_000],
    [2_999_999, 1],
    [5, 0],
    [7, 100],
  ] as const) {
    assert.equal((await thread.ask(id, offset, length)).read, bytes.subarray(offset, offset + length).toString("hex"));
  }
  stop();
});

test("several threads, each with its mailbox, read at the same time", async () => {
  const store = createFaultyStore(createMemoryStore(), [{ operation: "load", every: 3, mode: "slow", delayMs: 5 }]);
  const { id, bytes } = await savePack(store, 100_000);
  const readings = Array.from({ length: 3 }, async (_, worker) => {
    const mailbox = createPackMailbox();
    const stop = servePackMailbox(mailbox, store);
    await using thread = new ReadingThread(mailbox);
    for (let at = 0; at < 30; at++) {
      const offset = at * 1000 + worker;
      assert.equal((await thread.ask(id, offset, 777)).read, bytes.subarray(offset, offset + 777).toString("hex"));
    }
    stop();
  });
  await Promise.all(readings);
});

test("what the store throws is thrown in the thread, and the next read works", async () => {
  const inner = createMemoryStore();
  const { id, bytes } = await savePack(inner, 1000);
  const store = createFaultyStore(inner, [{ operation: "load", nth: 2, mode: "before", code: "StoreDenied" }]);
  const mailbox = createPackMailbox();
  const stop = servePackMailbox(mailbox, store);
  await using thread = new ReadingThread(mailbox);
  assert.equal((await thread.ask(randomBytes(32), 0, 10)).code, "StoreFileNotFound");
  const denied = await thread.ask(id, 0, 10);
  assert.equal(denied.code, "StoreDenied");
  assert.match(denied.message ?? "", /Cannot load pack/);
  assert.equal((await thread.ask(id, 990, 20)).code, "StoreTruncated");
  assert.equal((await thread.ask(id, 990, 10)).read, bytes.subarray(990).toString("hex"));
  stop();
});

test("a failure with more to say than there is room for is told in short", async () => {
  const inner = createMemoryStore();
  const talkative: Store = Object.assign(Object.create(inner) as Store, {
    load: () => Promise.reject(Object.assign(new Error("x".repeat(200_000)), { code: "StoreDenied", kind: "denied", details: {} })),
  });
  const mailbox = createPackMailbox();
  const stop = servePackMailbox(mailbox, talkative);
  await using thread = new ReadingThread(mailbox);
  const answer = await thread.ask(randomBytes(32), 0, 10);
  assert.equal(answer.code, "StoreDenied");
  assert.equal(answer.message?.length, 1000);
  stop();
});

test("a thread that waits for an answer is let go when the mailbox is closed, and so is one that asks afterwards", async () => {
  const inner = createMemoryStore();
  const { id } = await savePack(inner, 1000);
  const store = createFaultyStore(inner, [{ operation: "load", mode: "hang" }]);
  const mailbox = createPackMailbox();
  const stop = servePackMailbox(mailbox, store);
  await using thread = new ReadingThread(mailbox);
  const waiting = thread.ask(id, 0, 10);
  while (store.calls.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  stop();
  assert.equal((await waiting).code, "Cancelled");
  assert.equal((await thread.ask(id, 0, 10)).code, "Cancelled");
  store.release();
  assert.equal((await thread.ask(id, 0, 10)).code, "Cancelled");
});

test("a signal ends a load that hangs", async () => {
  const inner = createMemoryStore();
  const { id } = await savePack(inner, 1000);
  const store = createFaultyStore(inner, [{ operation: "load", mode: "hang" }]);
  const mailbox = createPackMailbox();
  const cancel = new AbortController();
  const stop = servePackMailbox(mailbox, store, cancel.signal);
  await using thread = new ReadingThread(mailbox);
  const waiting = thread.ask(id, 0, 10);
  while (store.calls.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  cancel.abort();
  assert.equal((await waiting).code, "Cancelled");
  stop();
});
