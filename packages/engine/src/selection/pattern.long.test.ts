/** Asks the installed restic. With GRANARY_WRITE_VECTORS=1, for the whole table, which takes minutes, and writes its answers down. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { askRestic, readPatternVectors, writePatternVectors } from "./pattern-vectors.ts";

const isWriting = process.env.GRANARY_WRITE_VECTORS === "1";

test("the vectors are what the installed restic does", { skip: skipWithout("restic") }, () => {
  const vectors = readPatternVectors();
  const asked = vectors.cases.filter((_, index) => isWriting || index % 6 === 0);
  const cases = askRestic(vectors.paths, asked);
  if (isWriting) writePatternVectors({ ...vectors, cases });
  assert.deepEqual(cases, asked);
});
