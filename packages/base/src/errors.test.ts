import assert from "node:assert/strict";
import { test } from "node:test";
import { declareCodes, decodeFailure, encodeFailure, Failure, isFailure, listCodes, messageOf, toFailure, withContext } from "./errors.ts";

declareCodes({ TestBroken: { kind: "corrupt", guidance: "Restore it from a copy." } });

test("Failure takes kind and guidance from the catalogue", () => {
  const failure = new Failure("TestBroken", "Cannot open it", { details: { sizeBytes: 12 } });
  assert.equal(failure.kind, "corrupt");
  assert.equal(failure.guidance, "Restore it from a copy.");
  assert.deepEqual(failure.details, { sizeBytes: 12 });
  assert.ok(listCodes().has("TestBroken"));
});

test("Failure with a code nobody declared is a bug", () => {
  assert.equal(new Failure("TestNobodyDeclaredThis", "?").kind, "bug");
});

test("isFailure() knows failures by shape and code, and nothing else", () => {
  assert.ok(isFailure(new Failure("TestBroken", "")));
  assert.ok(isFailure(new Failure("TestBroken", ""), "TestBroken"));
  assert.ok(!isFailure(new Failure("TestBroken", ""), "Bug"));
  assert.ok(!isFailure(Object.assign(new Error("x"), { code: "ENOENT" })));
  assert.ok(!isFailure({ code: "TestBroken", kind: "corrupt", details: {} }));
  assert.ok(!isFailure(undefined));
});

test("toFailure() keeps failures and wraps the rest as bugs with their cause", () => {
  const failure = new Failure("TestBroken", "");
  assert.equal(toFailure(failure), failure);
  const error = new TypeError("x is not a function");
  assert.equal(toFailure(error).code, "Bug");
  assert.equal(toFailure(error).cause, error);
  assert.match(toFailure("text").message, /text/);
  assert.equal(messageOf(42), "42");
});

test("withContext() adds facts, and changes neither meaning nor facts already there", () => {
  const cause = new Error("EIO");
  const failure = new Failure("TestBroken", "Cannot open it", { details: { sizeBytes: 12 }, cause });
  const more = withContext(failure, { pack: "ab", sizeBytes: 0 });
  assert.deepEqual(
    [more.code, more.kind, more.message, more.stack, more.cause],
    ["TestBroken", "corrupt", "Cannot open it", failure.stack, cause],
  );
  assert.deepEqual(more.details, { pack: "ab", sizeBytes: 12 });
});

test("encodeFailure() and decodeFailure() carry a failure through a message", () => {
  const failure = new Failure("TestBroken", "Cannot open it", { details: { packs: ["a", "b"], isWhole: false }, cause: new Error("EIO") });
  const arrived = decodeFailure(structuredClone(encodeFailure(failure)));
  assert.deepEqual(
    [arrived.code, arrived.kind, arrived.message, arrived.details],
    ["TestBroken", "corrupt", "Cannot open it", failure.details],
  );
  assert.equal(messageOf(arrived.cause), "EIO");
});

test("declareCodes() refuses a code that is taken", () => {
  assert.throws(() => declareCodes({ TestBroken: { kind: "invalid", guidance: "" } }), /TestBroken: it is declared already/);
});
