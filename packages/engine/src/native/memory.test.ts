import assert from "node:assert/strict";
import { test } from "node:test";
import { releaseMemory } from "./memory.ts";

test("releaseMemory() empties large buffers, and leaves small ones, shared ones and those from Node's pool alone", () => {
  const large = Buffer.allocUnsafeSlow(1 << 20);
  releaseMemory(large);
  assert.equal(large.length, 0);
  releaseMemory(large);
  const shared = new Uint8Array(new SharedArrayBuffer(1 << 20));
  releaseMemory(shared);
  assert.equal(shared.length, 1 << 20);
  for (const sizeBytes of [1, 1000, Buffer.poolSize >> 2, Buffer.poolSize]) {
    const pooled = Buffer.from("x".repeat(sizeBytes));
    const unsafe = Buffer.allocUnsafe(sizeBytes).fill(7);
    releaseMemory(pooled);
    releaseMemory(unsafe);
    assert.equal(pooled.toString(), "x".repeat(sizeBytes));
    assert.equal(unsafe.length, sizeBytes);
  }
});
