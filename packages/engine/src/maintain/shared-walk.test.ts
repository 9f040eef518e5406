import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { SharedWalk } from "./shared-walk.ts";

test("SharedWalk gives each tree once, and is over when all were finished", () => {
  const walk = SharedWalk.create(100, 10);
  walk.seeTree(5, -1);
  walk.seeTree(5, -2);
  assert.equal(walk.take(), 5);
  walk.seeTree(99, 5);
  walk.seeTree(5, 99);
  walk.finish();
  assert.equal(walk.take(), 99);
  walk.finish();
  assert.equal(walk.take(), -1);
  assert.deepEqual([walk.treesDone, walk.parentOf(5), walk.parentOf(99)], [2, -1, 5]);
  assert.deepEqual([walk.hasSeenTree(5), walk.hasSeenTree(6)], [true, false]);
});

test("SharedWalk gives a tree again that was put back", () => {
  const walk = SharedWalk.create(1, 0);
  walk.seeTree(0, -1);
  assert.equal(walk.take(), 0);
  walk.finish();
  walk.putBack(0);
  assert.equal(walk.take(), 0);
  walk.finish();
  assert.equal(walk.take(), -1);
});

test("SharedWalk counts data blobs once", () => {
  const walk = SharedWalk.create(0, 100);
  assert.deepEqual([walk.seeData(31), walk.seeData(32), walk.seeData(31), walk.seeData(99)], [true, true, false, true]);
  assert.deepEqual([walk.blobsSeen, walk.hasSeenData(99), walk.hasSeenData(98)], [3, true, false]);
});

test("SharedWalk with nothing to do is over at once, and one that was stopped too", () => {
  assert.equal(SharedWalk.create(10, 10).take(), -1);
  const walk = SharedWalk.create(10, 10);
  walk.seeTree(1, -1);
  walk.stop();
  assert.equal(walk.take(), -1);
});

test("SharedWalk divides a large tree of trees among threads, loses none and ends in all", async () => {
  const trees = 200_000;
  const walk = SharedWalk.create(trees, trees);
  walk.seeTree(0, -1);
  const module = new URL("./shared-walk.ts", import.meta.url).href;
  // Each tree names three others; many are named more than once.
  const script = `
    const { workerData, parentPort } = require("node:worker_threads");
    import(${JSON.stringify(module)}).then(({ SharedWalk }) => {
      const walk = SharedWalk.attach(workerData);
      let taken = 0;
      for (let tree = walk.take(); tree >= 0; tree = walk.take()) {
        taken++;
        for (const child of [tree * 2 + 1, tree * 2 + 2, Math.floor(tree / 2) + 7]) {
          if (child < ${trees}) walk.seeTree(child, tree);
          walk.seeData(child % ${trees});
        }
        walk.finish();
      }
      parentPort.postMessage(taken);
    });`;
  const workers = [1, 2, 3].map(() => new Worker(script, { eval: true, workerData: walk.handle }));
  const taken = await Promise.all(workers.map(async (worker) => Number((await once(worker, "message"))[0])));
  assert.equal(taken[0] !== undefined ? taken.reduce((sum, count) => sum + count, 0) : 0, trees);
  assert.equal(walk.treesDone, trees);
  for (let tree = 0; tree < trees; tree++) if (!walk.hasSeenTree(tree)) assert.fail(`tree ${tree} was not seen`);
});
