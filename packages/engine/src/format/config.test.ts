import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeConfig, parseConfig } from "./config.ts";

const id = "c0".repeat(32);

test("encodeConfig() writes restic's form, and parseConfig() reads it, other fields or not", () => {
  const config = { version: 2, id, chunkerPolynomial: 0x25b468838dcb75n };
  assert.equal(encodeConfig(config).toString(), `{"version":2,"id":"${id}","chunker_polynomial":"25b468838dcb75"}`);
  assert.deepEqual(parseConfig(encodeConfig(config)), config);
  assert.deepEqual(parseConfig(Buffer.from(`{"is_hot":true,"version":1,"id":"${id}","chunker_polynomial":"25b468838dcb75"}`)), {
    ...config,
    version: 1,
  });
});

test("parseConfig() tells a newer format from a damaged file", () => {
  assert.throws(() => parseConfig(Buffer.from(`{"version":3,"id":"x"}`)), {
    code: "RepositoryVersion",
    kind: "unsupported",
    message: /version 3, 1 to 2/,
  });
  const wrong = [
    "",
    "{}",
    `{"version":0,"id":"${id}","chunker_polynomial":"25b468838dcb75"}`,
    `{"version":"2","id":"${id}","chunker_polynomial":"25b468838dcb75"}`,
    `{"version":2,"id":"${id.slice(1)}","chunker_polynomial":"25b468838dcb75"}`,
    `{"version":2,"id":"${id}","chunker_polynomial":""}`,
    `{"version":2,"id":"${id}","chunker_polynomial":"xyz"}`,
    `{"version":2,"id":"${id}","chunker_polynomial":"11111111111111111"}`,
    `{"version":2,"id":"${id}"}`,
  ];
  for (const text of wrong) assert.throws(() => parseConfig(Buffer.from(text)), { code: "ConfigInvalid", kind: "corrupt" }, text);
});
