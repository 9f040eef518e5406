import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { findPasswordSource, getPassword } from "./password.ts";

const { signal } = new AbortController();
const ask = { what: "password", signal };

test("findPasswordSource() prefers flags, then our variables, then those of restic", () => {
  const env = { GRANARY_PASSWORD: "ours", RESTIC_PASSWORD_FILE: "/theirs" };
  assert.equal(findPasswordSource({ file: "/flag" }, env).file, "/flag");
  assert.equal(findPasswordSource({ command: "pass" }, env).command, "pass");
  assert.equal(findPasswordSource({}, env).value?.reveal(), "ours");
  assert.equal(findPasswordSource({}, { RESTIC_PASSWORD_FILE: "/theirs" }).file, "/theirs");
  assert.equal(findPasswordSource({}, { GRANARY_PASSWORD_FILE: "/a", GRANARY_PASSWORD: "b" }).file, "/a");
  assert.deepEqual(findPasswordSource({}, { GRANARY_PASSWORD: "" }), {});
  assert.equal(findPasswordSource({}, { RESTIC_FROM_PASSWORD: "other" }, "FROM_").value?.reveal(), "other");
  assert.throws(() => findPasswordSource({ command: "a", file: "b" }, {}), { code: "InvalidArgument" });
});

test("a password found in the environment is not shown when the source is printed", () => {
  assert.doesNotMatch(JSON.stringify(findPasswordSource({}, { GRANARY_PASSWORD: "hunter2" })), /hunter2/);
});

test("getPassword() reads a file or a command's output without the space around it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "granary-password-"));
  try {
    const file = join(folder, "password");
    writeFileSync(file, "\ufeff  correct horse \r\n");
    assert.equal((await getPassword({ file }, ask)).reveal(), "correct horse");
    writeFileSync(file, Buffer.from("\ufeffcorrect horse\n", "utf16le"));
    assert.equal((await getPassword({ file }, ask)).reveal(), "correct horse");
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.equal((await getPassword({ command: `sh -c 'echo "correct horse"'` }, ask)).reveal(), "correct horse");
});

test("getPassword() says which file or command failed, and how", async () => {
  await assert.rejects(getPassword({ file: "/nowhere/password" }, ask), { code: "InputUnreadable", message: /nowhere.*ENOENT/ });
  await assert.rejects(getPassword({ command: "sh -c 'exit 7'" }, ask), { code: "InputUnreadable", message: /exit code 7/ });
  await assert.rejects(getPassword({ command: "no-such-program-here" }, ask), { code: "InputUnreadable", message: /ENOENT/ });
});

test("getPassword() does not take a password from standard input when that is what is backed up", async () => {
  await assert.rejects(getPassword({}, { ...ask, isInputTaken: true }), { code: "PasswordMissing" });
});
