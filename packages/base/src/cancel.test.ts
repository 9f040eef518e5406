import assert from "node:assert/strict";
import { test } from "node:test";
import { cancelledBy, throwIfCancelled } from "./cancel.ts";
import { Failure } from "./errors.ts";

test("throwIfCancelled() passes without a signal and with a live one", () => {
  throwIfCancelled(undefined);
  throwIfCancelled(new AbortController().signal);
});

test("throwIfCancelled() throws Cancelled with the reason as its cause", () => {
  const reason = new Error("Ctrl-C");
  assert.throws(() => throwIfCancelled(AbortSignal.abort(reason)), {
    name: "Failure",
    code: "Cancelled",
    kind: "cancelled",
    cause: reason,
  });
});

test("cancelledBy() keeps a failure given as the reason, so that the first error is the one reported", () => {
  const reason = new Failure("InvalidArgument", "Cannot parse --tag");
  assert.equal(cancelledBy(AbortSignal.abort(reason)), reason);
});
