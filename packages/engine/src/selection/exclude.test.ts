import assert from "node:assert/strict";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import {
  compileExcluder,
  decodeTextFile,
  noExcludes,
  parseExcludeFile,
  parseFilesFrom,
  parseFilesFromRaw,
  parseFilesFromVerbatim,
  parsePresenceRule,
} from "./exclude.ts";

test("compileExcluder() joins exact and insensitive patterns, from rules that crossed a thread", () => {
  const rules = structuredClone({ ...noExcludes, patterns: ["*.o", "!keep.o"], insensitivePatterns: ["CACHE"] });
  const isExcluded = compileExcluder(rules);
  assert.equal(isExcluded("/a/x.o", false), true);
  assert.equal(isExcluded("/a/keep.o", false), false);
  assert.equal(isExcluded("/home/.x/Cache/keep.o", false), true);
  assert.equal(isExcluded("/a/x.O", false), false);
  assert.equal(compileExcluder(noExcludes)("/anything", true), false);
});

test("compileExcluder() refuses a malformed pattern", () => {
  assert.throws(
    () => compileExcluder({ patterns: [], insensitivePatterns: ["a["] }),
    (error) => isFailure(error, "InvalidArgument"),
  );
});

test("parseExcludeFile() trims lines, and skips comments and empty lines", () => {
  const text = "\n# comment\n  # indented comment\r\n*.o\r\n  spaced name \t\n\u00a0x\u00a0\n!keep\nlast";
  assert.deepEqual(parseExcludeFile(text), ["*.o", "spaced name", "x", "!keep", "last"]);
  assert.deepEqual(parseFilesFrom(text), parseExcludeFile(text));
});

test("parseFilesFromVerbatim() takes lines as they are", () => {
  assert.deepEqual(parseFilesFromVerbatim("/a \r\n\n# b\n  /c\n"), ["/a ", "# b", "  /c"]);
});

test("parseFilesFromRaw() takes any bytes, and refuses a list that may be cut off", () => {
  assert.deepEqual(parseFilesFromRaw(new Uint8Array(0)), []);
  assert.deepEqual(parseFilesFromRaw(Buffer.from("/a\n\xff\0/b c\0", "latin1")), ["/a\n\xff", "/b c"]);
  for (const text of ["/a", "/a\0/b", "/a\0\0", "\0"])
    assert.throws(
      () => parseFilesFromRaw(Buffer.from(text)),
      (error) => isFailure(error, "InvalidArgument"),
      JSON.stringify(text),
    );
});

test("decodeTextFile() reads UTF-8 and, by its mark, UTF-16", () => {
  assert.equal(decodeTextFile(Buffer.from("é\n")), "é\n");
  assert.equal(decodeTextFile(Buffer.from("\ufeffé\n")), "é\n");
  assert.equal(decodeTextFile(Buffer.from("\ufeffé\n", "utf16le")), "é\n");
  assert.equal(decodeTextFile(Buffer.from("\ufeffé\n", "utf16le").swap16()), "é\n");
});

test("parsePresenceRule() splits at the first colon, and needs a file name", () => {
  assert.deepEqual(parsePresenceRule(".nobackup"), { name: ".nobackup" });
  assert.deepEqual(parsePresenceRule("TAG:Signature: 8a"), { name: "TAG", header: "Signature: 8a" });
  assert.deepEqual(parsePresenceRule("TAG:"), { name: "TAG", header: "" });
  for (const text of ["", ":x", "a/b", "..", "."])
    assert.throws(
      () => parsePresenceRule(text),
      (error) => isFailure(error, "InvalidArgument"),
      text,
    );
});
