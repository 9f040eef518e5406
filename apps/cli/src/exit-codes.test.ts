import assert from "node:assert/strict";
import { test } from "node:test";
import { listCodes } from "@granary/base/errors";
import "@granary/engine";
import "./errors.ts";
import { exitCodeOf, exitCodeTable } from "./exit-codes.ts";

test("every declared error has an exit code of the table, and none that means success", () => {
  const known = new Set(exitCodeTable.map(({ exitCode }) => exitCode));
  for (const [code, { kind }] of listCodes()) {
    const exitCode = exitCodeOf({ code, kind });
    assert.ok(known.has(exitCode), code);
    assert.ok(exitCode !== 0 && exitCode !== 3, code);
  }
});

test("every code that the table names is declared, and every kind is in it", () => {
  const codes = listCodes();
  for (const code of exitCodeTable.flatMap((entry) => entry.codes ?? [])) assert.ok(codes.has(code), code);
  const kinds = new Set(exitCodeTable.flatMap((entry) => entry.kinds ?? []));
  for (const [, { kind }] of codes) assert.ok(kinds.has(kind), kind);
});

test("exit codes are ascending and those of restic mean what they mean there", () => {
  const all = exitCodeTable.map(({ exitCode }) => exitCode);
  assert.deepEqual(
    all,
    all.toSorted((a, b) => a - b),
  );
  assert.equal(exitCodeOf({ code: "RepositoryNotFound", kind: "notFound" }), 10);
  assert.equal(exitCodeOf({ code: "RepositoryLocked", kind: "unavailable" }), 11);
  assert.equal(exitCodeOf({ code: "WrongPassword", kind: "denied" }), 12);
  assert.equal(exitCodeOf({ code: "Cancelled", kind: "cancelled" }), 130);
});
