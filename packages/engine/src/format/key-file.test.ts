import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { parseKeyId } from "./ids.ts";
import { encodeKeyFile, encodeMasterKey, type KeyFile, parseKeyFile, parseMasterKey } from "./key-file.ts";

const id = parseKeyId("be".repeat(32));
const key: KeyFile = {
  createdNs: 1_767_323_045_678_901_234n,
  username: "u",
  hostname: "h",
  cost: { N: 32768, r: 8, p: 5 },
  salt: new Uint8Array(randomBytes(64)),
  data: new Uint8Array(randomBytes(180)),
};

test("parseKeyFile() gives back what encodeKeyFile() wrote", () => {
  assert.deepEqual(parseKeyFile(encodeKeyFile(key), id), key);
  const text = encodeKeyFile(key).toString();
  assert.match(
    text,
    /^\{"created":"2026-01-02T03:04:05.678901234Z","username":"u","hostname":"h","kdf":"scrypt","N":32768,"r":8,"p":5,"salt":"/,
  );
});

test("parseKeyFile() bounds the cost of scrypt before it is paid", () => {
  const withCost = (N: unknown, r: unknown, p: unknown): Buffer =>
    Buffer.from(JSON.stringify({ ...JSON.parse(encodeKeyFile(key).toString()), N, r, p }));
  assert.deepEqual(parseKeyFile(withCost(2 ** 20, 8, 1), id).cost, { N: 2 ** 20, r: 8, p: 1 });
  const wrong: readonly (readonly [unknown, unknown, unknown, RegExp])[] = [
    [0, 8, 1, /"N" is 0, a power of two/],
    [1, 8, 1, /"N" is 1/],
    [32769, 8, 1, /"N" is 32769/],
    [2 ** 23, 1, 1, /"N" is 8388608/],
    [-2, 8, 1, /"N" is -2/],
    ["32768", 8, 1, /"N" is "32768"/],
    [32768, 0, 1, /"r" is 0/],
    [32768, 8, 0, /"p" is 0/],
    [32768, 8, 33, /N=32768, r=8, p=33 would work on 1107296256 bytes, at most 1073741824 allowed/],
    [2 ** 22, 8, 1, /4294967296 bytes/],
    [2, Number.MAX_SAFE_INTEGER, 1, /at most 1073741824/],
    [2, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, /at most 1073741824/],
  ];
  for (const [N, r, p, message] of wrong) assert.throws(() => parseKeyFile(withCost(N, r, p), id), { code: "KeyInvalid", message });
});

test("parseKeyFile() refuses another salt length, another key derivation, and damaged base64", () => {
  const change = (changes: object): Buffer => Buffer.from(JSON.stringify({ ...JSON.parse(encodeKeyFile(key).toString()), ...changes }));
  const wrong: readonly (readonly [object, RegExp])[] = [
    [{ kdf: "argon2" }, /key "bebe.*": field "kdf" is "argon2", "scrypt" needed/],
    [{ salt: randomBytes(63).toString("base64") }, /"salt" is 63 bytes, exactly 64 needed/],
    [{ salt: "" }, /"salt" is 0 bytes/],
    [{ salt: "***=" }, /"salt" is no base64/],
    [{ data: randomBytes(32).toString("base64") }, /"data" is 32 bytes, more than 32 needed/],
    [{ data: "A".repeat(100_000) }, /"data" is 75000 bytes, at most 65536 needed/],
  ];
  for (const [changes, message] of wrong)
    assert.throws(() => parseKeyFile(change(changes), id), { code: "KeyInvalid", kind: "corrupt", message });
});

test("parseMasterKey() gives back what encodeMasterKey() wrote, and never shows a secret in a message", () => {
  const master = { encrypt: new Uint8Array(randomBytes(32)), macK: new Uint8Array(randomBytes(16)), macR: new Uint8Array(randomBytes(16)) };
  assert.deepEqual(parseMasterKey(encodeMasterKey(master), id), master);
  const short = encodeMasterKey({ ...master, macR: master.macR.subarray(1) });
  assert.throws(
    () => parseMasterKey(short, id),
    (error: Error) => {
      assert.match(error.message, /"r" is 15 bytes, exactly 16 needed/);
      assert.equal(error.message.includes(Buffer.from(master.macR.subarray(1)).toString("base64")), false);
      return true;
    },
  );
  assert.throws(() => parseMasterKey(Buffer.from('{"encrypt":""}'), id), { code: "KeyInvalid", message: /"mac" is missing/ });
});
