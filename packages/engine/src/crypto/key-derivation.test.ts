import assert from "node:assert/strict";
import { test } from "node:test";
import { type Clock, systemClock } from "@granary/base/clock";
import { isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { calibrateScrypt, deriveKey } from "./key-derivation.ts";

/** A clock by which one derivation takes `ms`. */
function clockTaking(ms: number): Clock {
  let nowMs = 0;
  return { ...systemClock, monotonicMs: () => (nowMs += ms) };
}

test("deriveKey() agrees with the vectors of RFC 7914", async () => {
  const vectors: readonly (readonly [password: string, salt: string, N: number, p: number, hex: string])[] = [
    [
      "password",
      "NaCl",
      1024,
      16,
      "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640",
    ],
    [
      "pleaseletmein",
      "SodiumChloride",
      16384,
      1,
      "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
    ],
  ];
  for (const [password, salt, N, p, hex] of vectors) {
    const key = await deriveKey(new Secret(password), Buffer.from(salt), { N, r: 8, p });
    assert.equal(Buffer.concat([key.encrypt, key.macK, key.macR]).toString("hex"), hex);
  }
});

test("deriveKey() does not block the thread", async () => {
  let turns = 0;
  const counting = setInterval(() => turns++, 1);
  await deriveKey(new Secret("x"), Buffer.alloc(64), { N: 2 ** 14, r: 8, p: 2 });
  clearInterval(counting);
  assert.ok(turns > 5, `only ${turns} turns of the event loop`);
});

test("deriveKey() refuses a cost that scrypt cannot have", async () => {
  for (const cost of [
    { N: 3, r: 8, p: 1 },
    { N: 2 ** 17, r: 1, p: 1 },
    { N: 0, r: 8, p: 1 },
  ]) {
    await assert.rejects(deriveKey(new Secret("x"), Buffer.alloc(64), cost), (error) => isFailure(error, "InvalidArgument"));
  }
});

test("calibrateScrypt() never goes below the floor, however slow the machine and small its memory", async () => {
  assert.deepEqual(await calibrateScrypt({ clock: clockTaking(5000) }), { N: 2 ** 15, r: 8, p: 3 });
  assert.deepEqual(await calibrateScrypt({ clock: clockTaking(5000), maxMemoryBytes: 1024 }), { N: 2 ** 15, r: 8, p: 3 });
  assert.deepEqual(await calibrateScrypt({ clock: clockTaking(5000), maxMemoryBytes: 64 * 2 ** 20 }), { N: 2 ** 16, r: 8, p: 2 });
  assert.deepEqual(await calibrateScrypt({ clock: clockTaking(5000), maxMemoryBytes: 2 ** 40 }), { N: 2 ** 17, r: 8, p: 1 });
});

test("calibrateScrypt() fills the time it is granted", async () => {
  assert.deepEqual(await calibrateScrypt({ clock: clockTaking(40), targetMs: 200 }), { N: 2 ** 15, r: 8, p: 5 });
  assert.deepEqual(await calibrateScrypt({ clock: clockTaking(40), targetMs: 800, maxMemoryBytes: 2 ** 27 }), { N: 2 ** 17, r: 8, p: 5 });
  assert.equal((await calibrateScrypt({ clock: clockTaking(0.001), targetMs: 60_000 })).p, 64);
});
