import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { systemClock } from "@granary/base/clock";
import { createGate, gateKey, shutGate } from "./termination-gate.ts";

const symbols = new URL("./symbols.ts", import.meta.url).href;
const gateModule = new URL("./termination-gate.ts", import.meta.url).href;

function start(code: string, gate: SharedArrayBuffer): Worker {
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), { workerData: { [gateKey]: gate } });
}

test("threads that are ended while they load koffi do not take the process along", async () => {
  for (let delayMs = 0; delayMs < 60; delayMs += 3) {
    const gate = createGate();
    const worker = start(
      `import(${JSON.stringify(symbols)}).then(({ bindSymbol }) => { for (;;) bindSymbol("getpid", "int", []); })`,
      gate,
    );
    await once(worker, "online");
    await systemClock.sleep(delayMs);
    await shutGate(gate);
    await worker.terminate();
  }
});

test("shutGate() waits for the thread to come out, and keeps it out", async () => {
  const gate = createGate();
  const code = `
    import { parentPort } from "node:worker_threads";
    const { passGate } = await import(${JSON.stringify(gateModule)});
    passGate(() => { parentPort.postMessage("inside"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200); parentPort.postMessage("done"); });
    for (let count = 0; count < 1e6; count++) passGate(() => parentPort.postMessage(count));`;
  const worker = start(code, gate);
  const said: unknown[] = [];
  worker.on("message", (message) => said.push(message));
  while (said.length === 0) await once(worker, "message");
  await shutGate(gate);
  await systemClock.sleep(50); // for what is under way
  assert.deepEqual(said.slice(0, 2), ["inside", "done"]);
  const before = said.length;
  await systemClock.sleep(50);
  assert.equal(said.length, before);
  await worker.terminate();
});
