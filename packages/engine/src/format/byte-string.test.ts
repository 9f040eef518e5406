import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { findUtf8, fromBytes, fromUtf8, isAscii, toBytes, toUtf8OrEscaped, utf8LengthAt } from "./byte-string.ts";

test("byte strings sort as their raw bytes do", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 6 }), fc.uint8Array({ maxLength: 6 }), (a, b) => {
      const [left, right] = [fromBytes(a), fromBytes(b)];
      assert.equal(left < right ? -1 : left > right ? 1 : 0, Buffer.compare(a, b));
      assert.deepEqual(new Uint8Array(toBytes(left)), a);
    }),
  );
});

test("fromUtf8() and findUtf8() are inverse; bytes that are no UTF-8 give undefined", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => assert.equal(findUtf8(fromUtf8(text)), text)));
  assert.equal(findUtf8("\xff"), undefined);
  assert.equal(isAscii("a\x7f"), true);
  assert.equal(isAscii("a\x80"), false);
});

test("utf8LengthAt() accepts exactly the sequences that the platform's decoder accepts", () => {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const edge = [
    0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3,
    0xf4, 0xf5, 0xff,
  ];
  const isValid = (bytes: readonly number[]): boolean => {
    try {
      return [...decoder.decode(Uint8Array.from(bytes))].length === 1;
    } catch {
      return false;
    }
  };
  const check = (bytes: readonly number[]): void => {
    const expected = [1, 2, 3, 4].find((n) => n <= bytes.length && isValid(bytes.slice(0, n))) ?? 0;
    assert.equal(utf8LengthAt(String.fromCharCode(...bytes), 0), expected, bytes.join(" "));
  };
  for (const a of edge) {
    check([a]);
    for (const b of edge) {
      check([a, b]);
      for (const c of edge) for (const d of a >= 0xf0 ? edge : [0x41]) check([a, b, c, d]);
    }
  }
});

test("toUtf8OrEscaped() shows text as it is, and other bytes and control characters as escapes", () => {
  assert.equal(toUtf8OrEscaped("plain \\ text"), "plain \\ text");
  assert.equal(toUtf8OrEscaped(fromUtf8("é😀")), "é😀");
  assert.equal(toUtf8OrEscaped(`${fromUtf8("é")}\xff\xc3`), "é\\xff\\xc3");
  assert.equal(toUtf8OrEscaped("a\x1b[2Jb\n"), "a\\x1b[2Jb\\x0a");
  assert.equal(toUtf8OrEscaped(fromUtf8("\u202e\u2028")), "\\u{202e}\\u{2028}");
});
