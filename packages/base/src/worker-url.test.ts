import assert from "node:assert/strict";
import { test } from "node:test";
import { workerUrl } from "./worker-url.ts";

test("workerUrl() points at the source file when running from source", () => {
  assert.equal(workerUrl("file:///a/src/backup/run.ts", "./backup.worker.ts").href, "file:///a/src/backup/backup.worker.ts");
  assert.equal(workerUrl("file:///a/src/backup/run.ts", "../pool/hash.worker.ts").href, "file:///a/src/pool/hash.worker.ts");
});
