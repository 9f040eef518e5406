import assert from "node:assert/strict";
import { test } from "node:test";
import { goModeOf, isNodeType, nodeTypeOfMode, permissionsOfGoMode, stModeOf } from "./mode.ts";

test("goModeOf() gives the values that restic stores", () => {
  assert.equal(goModeOf(0o040755), 2147484141);
  assert.equal(goModeOf(0o100644), 420);
  assert.equal(goModeOf(0o120777), 134218239);
  assert.equal(goModeOf(0o041777), 2 ** 31 + 2 ** 20 + 0o777);
  assert.equal(goModeOf(0o104755), 2 ** 23 + 0o755);
  assert.equal(goModeOf(0o020600), 2 ** 26 + 2 ** 21 + 0o600);
  assert.equal(goModeOf(0o060600), 2 ** 26 + 0o600);
});

test("stModeOf() gives back every st_mode of a known type", () => {
  for (const type of [0o01, 0o02, 0o04, 0o06, 0o10, 0o12, 0o14]) {
    for (let permissions = 0; permissions < 0o10000; permissions++) {
      const stMode = type * 0o10000 + permissions;
      const goMode = goModeOf(stMode);
      assert.equal(stModeOf(nodeTypeOfMode(stMode), goMode), stMode);
      assert.equal(permissionsOfGoMode(goMode), permissions);
    }
  }
  assert.equal(nodeTypeOfMode(0o150644), "irregular");
});

test("isNodeType() knows the eight types and no inherited names", () => {
  assert.equal(isNodeType("chardev"), true);
  assert.equal(isNodeType("door"), false);
  assert.equal(isNodeType("constructor"), false);
});
