import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

const root = join(import.meta.dirname, "..");
const tree = mkdtempSync(join(tmpdir(), "granary-test-"));
after(() => rmSync(tree, { recursive: true }));

const start = 'import { test } from "node:test";\n';
const samples: Readonly<Record<string, string>> = {
  "good.test.ts": `${start}test("is good", () => {});`,
  "left-out.test.ts": `${start}test("is left out", { skip: "needs a moon" }, () => {});`,
  "bad.test.ts": `${start}test("is bad", () => { throw new Error("as it should"); });`,
  "broken.test.ts": "throw new Error('before any test');",
  "endless.long.test.ts": `${start}test("is long", () => {});`,
};

before(() => {
  for (const folder of ["tools", "test", "node_modules/@granary"]) mkdirSync(join(tree, folder), { recursive: true });
  copyFileSync(join(root, "tools/test.ts"), join(tree, "tools/test.ts"));
  symlinkSync(join(root, "packages/base"), join(tree, "node_modules/@granary/base"));
  writeFileSync(join(tree, "package.json"), '{ "type": "module" }');
  for (const [name, text] of Object.entries(samples)) writeFileSync(join(tree, "test", name), text);
});

function runTests(args: readonly string[], isCi = false): SpawnSyncReturns<string> {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const command = ["--conditions=source", "tools/test.ts", ...args];
  return spawnSync(process.execPath, command, { cwd: tree, encoding: "utf8", env: { ...env, CI: String(isCi) } });
}

test("the test command ends well when all pass, and shows the runner's summary", () => {
  const run = runTests(["good"]);
  assert.equal(run.status, 0, run.stderr);
  assert.match(run.stdout, /✔ is good/);
  assert.match(run.stdout, /ℹ tests 1\n(?:.*\n)*ℹ pass 1\nℹ fail 0\n/);
});

test("the test command fails when a test fails, a file cannot run, or no file matches", () => {
  for (const filter of ["bad", "broken", "no-such-file"]) assert.equal(runTests([filter]).status, 1, filter);
  assert.equal(runTests(["good", "bad"]).status, 1);
});

test("the test command lists what was skipped, and does not accept it in CI", () => {
  const run = runTests(["good", "left-out"]);
  assert.equal(run.status, 0);
  assert.match(run.stdout, /! 1 skipped\n {2}is left out: needs a moon\n/);
  const inCi = runTests(["good", "left-out"], true);
  assert.equal(inCi.status, 1);
  assert.match(inCi.stdout, /1 skipped, which CI does not accept/);
});

test("the test command runs the long tests only when asked, and then no others", () => {
  const all = runTests([]);
  assert.equal(all.status, 1);
  assert.doesNotMatch(all.stdout, /is long/);
  const long = runTests(["--long"]);
  assert.equal(long.status, 0);
  assert.match(long.stdout, /is long/);
  assert.match(long.stdout, /ℹ tests 1\n/);
});
