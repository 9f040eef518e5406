import assert from "node:assert/strict";
import test from "node:test";
import { isFailure } from "@granary/base/errors";
import { cut } from "./cutter.ts";
import { createFixedCutter } from "./fixed.ts";

test("a fixed cutter cuts at multiples of its size, and gives the rest at the end", async () => {
  const source = async function* (): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(1500);
    yield new Uint8Array(1501);
  };
  const chunks = await Array.fromAsync(cut(source(), createFixedCutter(1024)));
  assert.deepEqual(
    chunks.map((chunk) => chunk.length),
    [1024, 1024, 953],
  );
});

test("createFixedCutter() refuses sizes that are not multiples of 512 up to 64 MiB", () => {
  for (const sizeBytes of [0, -512, 511, 513, 1024.5, Number.NaN, 64 * 1024 * 1024 + 512]) {
    assert.throws(
      () => createFixedCutter(sizeBytes),
      (error) => isFailure(error, "InvalidArgument"),
    );
  }
  assert.equal(createFixedCutter(64 * 1024 * 1024).maxBytes, 64 * 1024 * 1024);
});
