import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isFileName } from "./layout.ts";
import { isRestList, parseRestList } from "./rest-list.ts";

const names = fc.array(fc.constantFrom(..."0123456789abcdef"), { minLength: 64, maxLength: 64 }).map((digits) => digits.join(""));
const files = fc.record({ name: names, size: fc.maxSafeNat() });
const strangers = fc.oneof(fc.jsonValue(), fc.record({ name: fc.string(), size: fc.jsonValue() }));

function isNamed(value: unknown): value is { name: string; size?: unknown } {
  return typeof value === "object" && value !== null && "name" in value && typeof value.name === "string" && isFileName(value.name);
}

test("parseRestList() finds what JSON.parse() finds, however it is written and whatever stands between", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(files, names, strangers)), fc.constantFrom(undefined, 1, "\t"), (list, indent) => {
      const bytes = Buffer.from(` ${JSON.stringify(list, undefined, indent)}\n`);
      assert.ok(isRestList(bytes));
      const expected = list.flatMap((entry) => {
        if (typeof entry === "string" && isFileName(entry)) return [{ name: entry, sizeBytes: undefined }];
        if (!isNamed(entry)) return [];
        return [
          { name: entry.name, sizeBytes: Number.isSafeInteger(entry.size) && Number(entry.size) >= 0 ? Number(entry.size) : undefined },
        ];
      });
      assert.deepEqual([...parseRestList(bytes)], expected);
    }),
  );
});

test("isRestList() refuses every list that was cut off", () => {
  fc.assert(
    fc.property(fc.array(files, { minLength: 1, maxLength: 4 }), fc.nat(), (list, at) => {
      const bytes = Buffer.from(JSON.stringify(list));
      assert.equal(isRestList(bytes.subarray(0, at % bytes.length)), false);
    }),
  );
});

test("isRestList() and parseRestList() survive any bytes", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.array(fc.constantFrom(...'[]{}",:0a\\ n'), { maxLength: 40 }).map((parts) => Buffer.from(parts.join(""))),
      ),
      (bytes) => {
        if (isRestList(bytes)) assert.ok(Array.isArray([...parseRestList(bytes)]));
      },
    ),
  );
});
