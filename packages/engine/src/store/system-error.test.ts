import assert from "node:assert/strict";
import { constants } from "node:os";
import { test } from "node:test";
import { storeCodeOf, systemCodeOf } from "./system-error.ts";

/** As Node makes them: libuv's number is the negated errno; numbers without a name get none. */
function systemError(name: keyof typeof constants.errno, code: string = name): Error {
  return Object.assign(new Error(name), { errno: -constants.errno[name], code });
}

test("storeCodeOf() tells full, denied, missing and unavailable apart", () => {
  for (const name of ["ENOSPC", "EDQUOT"] as const) assert.equal(storeCodeOf(systemError(name)), "StoreFull");
  for (const name of ["EACCES", "EPERM", "EROFS"] as const) assert.equal(storeCodeOf(systemError(name)), "StoreDenied");
  assert.equal(storeCodeOf(systemError("ENOENT")), "StoreFileNotFound");
  for (const name of ["EIO", "ESTALE", "EMFILE", "ENOTDIR", "ETIMEDOUT"] as const)
    assert.equal(storeCodeOf(systemError(name)), "StoreUnavailable");
  assert.equal(storeCodeOf(new Error("no system error")), "StoreUnavailable");
  assert.equal(storeCodeOf("not even an error"), "StoreUnavailable");
});

test("systemCodeOf() knows a full quota, for which Node has no name", () => {
  const error = systemError("EDQUOT", `Unknown system error -${constants.errno.EDQUOT}`);
  assert.equal(systemCodeOf(error), "EDQUOT");
  assert.equal(storeCodeOf(error), "StoreFull");
});
