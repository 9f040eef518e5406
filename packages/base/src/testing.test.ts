import assert from "node:assert/strict";
import { test } from "node:test";
import { findTool, skipWithout } from "./testing.ts";

test("findTool() finds programs on the PATH and no others", () => {
  assert.match(findTool("sh") ?? "", /\/sh$/);
  assert.equal(findTool("no-program-has-this-name"), undefined);
});

test("skipWithout() names what is missing, and is false when nothing is", () => {
  assert.equal(skipWithout("sh"), false);
  assert.equal(skipWithout("sh", "no-program-has-this-name"), "needs no-program-has-this-name");
});
