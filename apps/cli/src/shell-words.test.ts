import assert from "node:assert/strict";
import { test } from "node:test";
import { splitShellWords } from "./shell-words.ts";

test("splitShellWords() divides at white space, but not inside quotes or behind a backslash", () => {
  assert.deepEqual(splitShellWords("pass show  backup"), ["pass", "show", "backup"]);
  assert.deepEqual(splitShellWords(`sh -c 'echo "a b"'`), ["sh", "-c", 'echo "a b"']);
  assert.deepEqual(splitShellWords(String.raw`a\ b "c\"d\n" ''`), ["a b", String.raw`c"d\n`, ""]);
  assert.deepEqual(splitShellWords(`--key='x y'z`), ["--key=x yz"]);
});

test("splitShellWords() refuses an open quote and an empty command", () => {
  for (const text of ["a 'b", 'a "b\\"', "", "  \n"]) assert.throws(() => splitShellWords(text), { code: "InvalidArgument" }, text);
});
