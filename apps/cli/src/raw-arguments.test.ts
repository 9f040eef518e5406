import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { bytesOfArgument, showArgument, textOfBytes } from "./raw-arguments.ts";

test("bytesOfArgument() gives back the bytes that textOfBytes() was given, whatever they are", () => {
  const bytes = fc.oneof(
    fc.uint8Array(),
    fc.string({ unit: "grapheme" }).map((text) => Buffer.from(text, "utf8")),
    fc.constant(Buffer.from([0xed, 0xa0, 0x80])),
  );
  fc.assert(
    fc.property(fc.array(bytes), (parts) => {
      const raw = Buffer.concat(parts).latin1Slice();
      assert.equal(bytesOfArgument(textOfBytes(raw)), raw);
    }),
    { seed: 1 },
  );
});

test("textOfBytes() reads valid UTF-8 as text, next to bytes that are none", () => {
  assert.equal(textOfBytes(Buffer.from("Größe", "utf8").latin1Slice()), "Größe");
  assert.equal(textOfBytes(`${Buffer.from("ö€😀", "utf8").latin1Slice()}\xff`), "ö€😀\udcff");
});

test("showArgument() writes bytes that are no UTF-8 in hex, and leaves characters of two halves alone", () => {
  assert.equal(showArgument("caf\udce9 😀"), "caf\\xe9 😀");
});
