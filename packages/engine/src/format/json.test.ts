import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { findUtf8, fromBytes, fromUtf8 } from "./byte-string.ts";
import { escapeJsonBytes, parseExact, quoteJson } from "./json.ts";

test("quoteJson() escapes as Go's encoding/json does", () => {
  assert.equal(quoteJson("plain é 😀 \x7f"), '"plain é 😀 \x7f"');
  assert.equal(quoteJson('<a&b>"\\'), '"\\u003ca\\u0026b\\u003e\\"\\\\"');
  assert.equal(quoteJson("\b\f\n\r\t\0\x1f"), '"\\u0008\\u000c\\n\\r\\t\\u0000\\u001f"');
  assert.equal(quoteJson("\u2028\u2029"), '"\\u2028\\u2029"');
  assert.equal(quoteJson("a\ud800b\udc00"), '"a\\ufffdb\\ufffd"');
});

test("quoteJson() is read back by any JSON parser", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      assert.equal(JSON.parse(quoteJson(text)), text);
    }),
  );
});

test("escapeJsonBytes() agrees with quoteJson() on UTF-8, and replaces each other byte", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      assert.equal(findUtf8(`"${escapeJsonBytes(fromUtf8(text))}"`), quoteJson(text));
    }),
  );
  assert.equal(escapeJsonBytes("a\xff\xfeb"), "a\\ufffd\\ufffdb");
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.ok(findUtf8(escapeJsonBytes(fromBytes(bytes))) !== undefined);
    }),
  );
});

test("parseExact() keeps integers that a double cannot hold", () => {
  assert.deepEqual(
    parseExact('{"a":9007199254740991,"b":9007199254740993,"c":[18446744073709551615,-9007199254740993],"d":1.5,"e":1e300}'),
    {
      a: 9007199254740991,
      b: 9007199254740993n,
      c: [18446744073709551615n, -9007199254740993n],
      d: 1.5,
      e: 1e300,
    },
  );
  assert.throws(() => parseExact('{"a":'), SyntaxError);
});
