import assert from "node:assert/strict";
import { test } from "node:test";
import { indentJson, stringifyExactly } from "./exact-json.ts";

test("numbers beyond 2^53 keep all their digits", () => {
  assert.equal(stringifyExactly({ inode: 18446744073709551615n, size: 1 }), '{"inode":18446744073709551615,"size":1}');
  assert.equal(indentJson('{"inode":18446744073709551615}'), '{\n  "inode": 18446744073709551615\n}');
});
