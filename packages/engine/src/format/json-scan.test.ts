import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MAX_DEPTH, readInteger, readText, readUint64, skipValue } from "./json-scan.ts";

function isWhole(text: string): boolean {
  const bytes = Buffer.from(text);
  return skipValue(bytes, 0, 0) === bytes.length;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test("skipValue() passes whatever is JSON, compact or not, and stops right behind it", () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 5, stringUnit: "binary" }), fc.nat(3), (json, indent) => {
      const text = JSON.stringify(JSON.parse(json), null, indent);
      assert.ok(isWhole(text));
      const bytes = Buffer.from(`..${text},]}`);
      assert.equal(skipValue(bytes, 2, 0), bytes.length - 3);
    }),
    { numRuns: 500 },
  );
});

test("skipValue() accepts exactly what JSON.parse() accepts", () => {
  const pieces = [
    '"',
    "\\",
    "\\u",
    "\\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "\n",
    "null",
    "true",
    "false",
    "nul",
    "0",
    "1",
    "-",
    "+",
    ".",
    "e",
    "E",
    "12",
    "a",
    "\u00e9",
    "\u0001",
    '"a"',
    '"a":',
    "00",
    "d83d",
  ];
  const anyText = fc.array(fc.constantFrom(...pieces), { maxLength: 8 }).map((parts) => parts.join(""));
  fc.assert(
    fc.property(anyText, (text) => {
      // JSON.parse() takes white space around the value, skipValue() leaves it to its caller
      if (text.trim() === text) assert.equal(isWhole(text), isJson(text), JSON.stringify(text));
    }),
    { numRuns: 20_000 },
  );
  fc.assert(
    fc.property(fc.json({ maxDepth: 2 }), fc.nat(), fc.constantFrom("", ...pieces), (json, place, piece) => {
      const at = place % (json.length + 1);
      const text = json.slice(0, at) + piece + json.slice(at + 1);
      if (text.trim() === text && text !== "") assert.equal(isWhole(text), isJson(text), JSON.stringify(text));
    }),
    { numRuns: 5000 },
  );
});

test("skipValue() refuses what nests too deep", () => {
  assert.equal(isWhole(`${"[".repeat(MAX_DEPTH)}${"]".repeat(MAX_DEPTH)}`), true);
  assert.equal(isWhole(`${"[".repeat(MAX_DEPTH + 1)}${"]".repeat(MAX_DEPTH + 1)}`), false);
  assert.equal(isWhole(`${'{"a":'.repeat(MAX_DEPTH + 1)}1${"}".repeat(MAX_DEPTH + 1)}`), false);
});

test("readText() gives the text of any string", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const bytes = Buffer.from(JSON.stringify(text));
      assert.equal(readText(bytes, 0, bytes.length), text);
    }),
  );
});

test("readInteger() and readUint64() read whole numbers and nothing else", () => {
  const integer = (text: string): number => readInteger(Buffer.from(text), 0, text.length);
  const uint64 = (text: string): number | bigint => readUint64(Buffer.from(text), 0, text.length);
  for (const text of ["", "-1", "01", "1.0", "1e3", "+1", " 1", "1 ", "x", "0x1", "00", '"1"']) {
    assert.equal(integer(text), -1, text);
    assert.equal(uint64(text), -1, text);
  }
  assert.equal(integer("9007199254740991"), Number.MAX_SAFE_INTEGER);
  assert.equal(integer("9007199254740992"), -1);
  assert.equal(uint64("9007199254740991"), Number.MAX_SAFE_INTEGER);
  assert.equal(uint64("9007199254740992"), 9007199254740992n);
  assert.equal(uint64("18446744073709551615"), 2n ** 64n - 1n);
  assert.equal(uint64("18446744073709551616"), -1);
  assert.equal(uint64("99999999999999999999"), -1);
  assert.equal(uint64("01844674407370955161"), -1);
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => assert.equal(BigInt(uint64(String(value))), value)));
});
