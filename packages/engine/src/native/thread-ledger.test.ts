import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { createLedger, ledgerKey, settleLedger } from "./thread-ledger.ts";

/** Runs code in a thread of its own, which is ended in the midst of an endless loop. @returns what it said before that */
async function runAndEnd(code: string, ledger: SharedArrayBuffer): Promise<unknown> {
  const url = new URL(".", import.meta.url).href;
  const thread = new Worker(
    `const { parentPort } = require("node:worker_threads");
     (async () => { const url = ${JSON.stringify(url)}; ${code}; for (;;); })();`,
    { eval: true, workerData: { [ledgerKey]: ledger } },
  );
  const said = await new Promise((resolve, reject) => thread.on("message", resolve).on("error", reject));
  await thread.terminate();
  return said;
}

function countHandles(): number {
  return readdirSync("/proc/self/fd").length;
}

test("what a thread has opened and not closed is closed once it has ended, and nothing else", async () => {
  const ledger = createLedger();
  const before = countHandles();
  const kept = await runAndEnd(
    `const { openAt, closeHandle, openFlags, workingDirectory, duplicateHandle, adoptHandle } = await import(url + "libc.ts");
     const open = () => openAt(workingDirectory, "/", openFlags.readOnly | openFlags.directory);
     const all = Array.from({ length: 100 }, open);
     const own = all.filter((_, at) => at % 3 === 0);
     for (const handle of all) if (!own.includes(handle)) closeHandle(handle);
     adoptHandle(duplicateHandle(own[0]));
     parentPort.postMessage(own.length + 1);`,
    ledger,
  );
  assert.equal(kept, 35);
  assert.ok(countHandles() >= before + 35);
  settleLedger(ledger);
  assert.equal(countHandles(), before);
  settleLedger(ledger);
  assert.equal(countHandles(), before);
});

test("a handle that the thread had closed is not closed again when somebody else has got its number", async () => {
  const ledger = createLedger();
  await runAndEnd(
    `const { openAt, closeHandle, openFlags, workingDirectory } = await import(url + "libc.ts");
     for (let at = 0; at < 50; at++) closeHandle(openAt(workingDirectory, "/", openFlags.readOnly));
     parentPort.postMessage("done");`,
    ledger,
  );
  const { openSync, closeSync, fstatSync } = await import("node:fs");
  const mine = Array.from({ length: 60 }, () => openSync("/", "r"));
  settleLedger(ledger);
  for (const handle of mine) assert.ok(fstatSync(handle).isDirectory());
  for (const handle of mine) closeSync(handle);
});

test("contexts of threads that were ended are given back: memory does not grow from thread to thread", async () => {
  const code = `
    const { openZstd } = await import(url + "zstd.ts");
    const { openOpenssl } = await import(url + "openssl.ts");
    const zstd = openZstd();
    const data = Buffer.alloc(1 << 20, "granary");
    for (const level of [1, 9]) zstd.compress(data, Buffer.alloc(1 << 21), level);
    for (let at = 0; at < 10; at++) openOpenssl().openCtr(Buffer.alloc(32));
    parentPort.postMessage("done");`;
  const run = async (): Promise<void> => {
    const ledger = createLedger();
    await runAndEnd(code, ledger);
    settleLedger(ledger);
  };
  for (let round = 0; round < 4; round++) await run();
  const before = process.memoryUsage.rss();
  for (let round = 0; round < 8; round++) await run();
  // A compressor of level 9 takes some 10 MiB.
  const grownBytes = process.memoryUsage.rss() - before;
  assert.ok(grownBytes < 40 * 2 ** 20, `memory grew by ${grownBytes >> 20} MiB`);
});
