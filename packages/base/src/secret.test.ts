import assert from "node:assert/strict";
import { test } from "node:test";
import { format, inspect } from "node:util";
import { Secret } from "./secret.ts";

test("Secret shows its value to nobody who does not ask", () => {
  const secret = new Secret("hunter2");
  const holder = { nested: { secret } };
  const shown = [
    String(secret),
    `${secret}`,
    JSON.stringify(holder),
    inspect(holder, { depth: 9, showHidden: true }),
    format("%s %o %O %j", secret, secret, secret, secret),
  ];
  for (const text of shown) {
    assert.match(text, /\[secret\]/);
    assert.doesNotMatch(text, /hunter2/);
  }
  assert.doesNotMatch(inspect(structuredClone(holder), { depth: 9 }), /hunter2/);
  assert.doesNotMatch(JSON.stringify(Object.entries(secret)), /hunter2/);
});

test("Secret reveals what it was given", () => {
  assert.equal(new Secret("hunter2").reveal(), "hunter2");
  const bytes = new Uint8Array([1, 2]);
  assert.equal(new Secret(bytes).reveal(), bytes);
});
