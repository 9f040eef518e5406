import assert from "node:assert/strict";
import { test } from "node:test";
import { parseLockId } from "./ids.ts";
import { encodeLock, type Lock, parseLock } from "./lock.ts";

const id = parseLockId("10".repeat(32));
const lock: Lock = { timeNs: 1_500_000_000n, exclusive: true, hostname: "host", username: "root", pid: 4711, uid: 0, gid: 7 };

test("encodeLock() writes restic's fields in restic's order, and parseLock() reads them", () => {
  assert.equal(
    encodeLock(lock).toString(),
    '{"time":"1970-01-01T00:00:01.5Z","exclusive":true,"hostname":"host","username":"root","pid":4711,"gid":7}',
  );
  assert.deepEqual(parseLock(encodeLock(lock), id), lock);
});

test("parseLock() refuses what it cannot rely on", () => {
  for (const text of ["", "{}", '{"time":"2026-01-02T03:04:05Z","exclusive":"yes"}', '{"time":"2026-01-02T03:04:05Z","pid":-1}', "{"]) {
    assert.throws(() => parseLock(Buffer.from(text), id), { code: "LockInvalid", message: /Cannot read lock "1010/ }, text);
  }
});
