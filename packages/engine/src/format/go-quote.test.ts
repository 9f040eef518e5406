import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { fromBytes, fromUtf8 } from "./byte-string.ts";
import { quoteGo, unquoteGo } from "./go-quote.ts";

test("quoteGo() escapes as Go's strconv.Quote does", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["plain name.txt", "plain name.txt"],
    ['a<&>"q\\.txt', 'a<&>\\"q\\\\.txt'],
    ["\x07\b\t\n\v\f\r", "\\a\\b\\t\\n\\v\\f\\r"],
    ["\x01\x1f\x7f", "\\x01\\x1f\\x7f"],
    [fromUtf8("é漢😀"), fromUtf8("é漢😀")],
    [fromUtf8("\u00a0\u00ad\u2028\u2029\u200b"), "\\u00a0\\u00ad\\u2028\\u2029\\u200b"],
    [fromUtf8("\ufffd\u0301"), fromUtf8("\ufffd\u0301")],
    [fromUtf8("\ue000\u{f0000}\u{e0001}"), "\\ue000\\U000f0000\\U000e0001"],
    ["\xff\xc3(\xe2\x82", "\\xff\\xc3(\\xe2\\x82"],
    // surrogates, an overlong slash, and beyond U+10FFFF are no UTF-8
    ["\xed\xa0\x80", "\\xed\\xa0\\x80"],
    ["\xc0\xaf", "\\xc0\\xaf"],
    ["\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"],
  ];
  for (const [raw, quoted] of cases) {
    assert.equal(quoteGo(raw), quoted);
    assert.equal(unquoteGo(quoted), raw);
  }
});

test("unquoteGo() gives back any bytes that quoteGo() quoted", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const raw = fromBytes(bytes);
      assert.equal(unquoteGo(quoteGo(raw)), raw);
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 20 }), (text) => {
      const raw = fromUtf8(text);
      const quoted = quoteGo(raw);
      assert.equal(unquoteGo(quoted), raw);
      assert.ok(Buffer.from(quoted, "latin1").equals(Buffer.from(Buffer.from(quoted, "latin1").utf8Slice(), "utf8")), "valid UTF-8");
    }),
    { numRuns: 2000 },
  );
});

test("unquoteGo() reads octal and upper-case hex, which Go reads too", () => {
  assert.equal(unquoteGo("\\101\\xFF\\u00E9"), "A\xff\xc3\xa9");
});

test("unquoteGo() refuses what Go refuses", () => {
  for (const wrong of [
    '"',
    "a\nb",
    "\\",
    "\\q",
    "\\'",
    "\\x1",
    "\\xgg",
    "\\u12",
    "\\ud800",
    "\\U00110000",
    "\\U0000dfff",
    "\\400",
    "\\08",
    'x\\n"',
  ]) {
    assert.throws(() => unquoteGo(wrong), { code: "TreeInvalid" }, wrong);
  }
});

test("quoteGo() leaves exactly the characters as they are that Unicode 15.0 has as printable", () => {
  let printable = 0;
  for (let point = 0x80; point <= 0x10ffff; point++) {
    if (point >= 0xd800 && point <= 0xdfff) continue;
    if (!quoteGo(fromUtf8(String.fromCodePoint(point))).startsWith("\\")) printable++;
  }
  // of the categories L, M, N, P and S; counted in Python 3.12's unicodedata, which is 15.0.0
  assert.equal(printable, 148_903);
  assert.equal(quoteGo(fromUtf8("\u2427\u{1fae8}\u{1fae9}")), `\\u2427${fromUtf8("\u{1fae8}")}\\U0001fae9`);
});
