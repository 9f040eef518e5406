import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { Failure } from "@granary/base/errors";
import { endWarmWorkers, warmWorkers, WorkerPool } from "./worker-pool.ts";

interface Said {
  readonly kind: string;
  readonly [name: string]: unknown;
}

/** A folder with a worker that does what it is told to. */
class PoolBench {
  readonly #folder: string = mkdtempSync(join(tmpdir(), "granary-pool-"));
  readonly url: URL;
  readonly heard: [number, Said][] = [];
  readonly failures: Failure[] = [];
  readonly #waiting: (() => void)[] = [];

  constructor() {
    const path = join(this.#folder, "told.worker.mjs");
    writeFileSync(
      path,
      `import { parentPort, workerData } from "node:worker_threads";
       let data = workerData.hello === undefined ? undefined : workerData;
       parentPort.on("message", (message) => {
         if (data === undefined) data = message;
         else if (message === "die") process.exit(7);
         else if (message === "throw") throw new Error("thrown in a worker");
         else if (message === "reject") Promise.reject(new Error("rejected in a worker"));
         else if (message === "spin") for (;;);
         else if (message === "fail") parentPort.postMessage({ kind: "failed", failure: { code: "StoreFull", message: "no room", details: { at: 3 } } });
         else parentPort.postMessage({ kind: "echo", message, worker: data.worker, hello: data.hello, extra: data.extra });
       });`,
    );
    this.url = pathToFileURL(path);
  }

  pool(options: { workers?: number; onMessage?: () => void; isStartedByMessage?: boolean } = {}): WorkerPool<unknown, Said> {
    return new WorkerPool<unknown, Said>({
      url: this.url,
      workers: options.workers ?? 2,
      data: { hello: "hello" },
      dataOf: (worker) => ({ extra: worker * 10 }),
      ...(options.isStartedByMessage === undefined ? {} : { isStartedByMessage: options.isStartedByMessage }),
      onMessage: (worker, message) => {
        this.heard.push([worker, message]);
        this.#waiting.shift()?.();
        options.onMessage?.();
      },
      onFailure: (failure) => {
        this.failures.push(failure);
        this.#waiting.shift()?.();
      },
    });
  }

  /** Until the next message or failure. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

test("each worker has its own number and data, and answers", async () => {
  using bench = new PoolBench();
  const pool = bench.pool();
  assert.equal(pool.size, 2);
  for (const worker of [1, 0]) {
    const next = bench.next();
    pool.post(worker, `to ${worker}`);
    await next;
  }
  assert.deepEqual(bench.heard, [
    [1, { kind: "echo", message: "to 1", worker: 1, hello: "hello", extra: 10 }],
    [0, { kind: "echo", message: "to 0", worker: 0, hello: "hello", extra: 0 }],
  ]);
  await pool.close();
  assert.deepEqual(bench.failures, []);
});

for (const [word, code, message] of [
  ["die", "Bug", /Worker 1 stopped unexpectedly with code 7/],
  ["throw", "Bug", /thrown in a worker/],
  ["reject", "Bug", /rejected in a worker/],
  ["fail", "StoreFull", /no room/],
] as const) {
  test(`a worker that comes to its end (${word}) fails the pool once, and not the process`, async () => {
    using bench = new PoolBench();
    const pool = bench.pool();
    const next = bench.next();
    pool.post(1, word);
    await next;
    assert.equal(bench.failures.length, 1);
    assert.equal(bench.failures[0]?.code, code);
    assert.match(bench.failures[0]?.message ?? "", message);
    pool.post(0, "still there?");
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(bench.heard, [], "a pool that has failed hears no more");
    await pool.close();
    assert.equal(bench.failures.length, 1);
  });
}

test("a message whose handling throws fails the pool", async () => {
  using bench = new PoolBench();
  const pool = bench.pool({
    onMessage: () => {
      throw new Failure("StoreDenied", "the handler says no");
    },
  });
  const next = bench.next();
  pool.post(0, "x");
  await next;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(bench.failures[0]?.code, "StoreDenied");
  await pool.close();
});

test("close() ends workers whatever they do, is idempotent, and is no failure", { timeout: 10_000 }, async () => {
  using bench = new PoolBench();
  const pool = bench.pool();
  pool.postAll("spin");
  await new Promise((resolve) => setTimeout(resolve, 50));
  await pool.close();
  await pool.close();
  assert.deepEqual([bench.failures, bench.heard], [[], []]);
});

test("threads that were started ahead are used by the next pool that is started by message, and by nobody else", async () => {
  using bench = new PoolBench();
  const threads = (): number => readdirSync("/proc/self/task").length;
  warmWorkers(bench.url, 2);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const before = threads();
  const pool = bench.pool({ isStartedByMessage: true });
  const next = bench.next();
  pool.post(0, "x");
  await next;
  assert.ok(threads() <= before + 1, "no new threads");
  assert.deepEqual(bench.heard, [[0, { kind: "echo", message: "x", worker: 0, hello: "hello", extra: 0 }]]);
  await pool.close();
  warmWorkers(bench.url, 1);
  await endWarmWorkers();
  const own = bench.pool({ isStartedByMessage: true });
  const answered = bench.next();
  own.post(1, "y");
  await answered;
  assert.equal(bench.heard.length, 2);
  await own.close();
  assert.deepEqual(bench.failures, []);
});
