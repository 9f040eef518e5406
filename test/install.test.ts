import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

const root = join(import.meta.dirname, "..");
const tree = mkdtempSync(join(tmpdir(), "granary-install-"));
const elsewhere = join(tree, "else where");
const command = join(tree, "prefix/bin/granary");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
after(() => rmSync(tree, { recursive: true }));

/** Runs the npm that runs us, or the one on the PATH. */
function npm(...args: readonly string[]): string {
  const path = process.env.npm_execpath;
  const words = path === undefined ? ["npm", ...args] : [process.execPath, path, ...args];
  const run = spawnSync(words[0] ?? "", words.slice(1), {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, npm_config_loglevel: "error" },
  });
  assert.equal(run.status, 0, `npm ${args.join(" ")}: ${run.stderr}${run.stdout}`);
  return run.stdout;
}

/** Runs the installed command where nothing of the project, and no Node, can be found. */
function granary(...args: readonly string[]): SpawnSyncReturns<string> {
  const env = { PATH: join(tree, "tools"), HOME: join(tree, "home"), GRANARY_PASSWORD: "correct horse" };
  return spawnSync(command, args, { cwd: elsewhere, encoding: "utf8", env });
}

before(() => {
  for (const folder of ["tools", "home", "else where"]) mkdirSync(join(tree, folder));
  for (const name of ["uname", "readlink"]) {
    symlinkSync(spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim(), join(tree, "tools", name));
  }
  npm("pack", "--silent", "--pack-destination", tree);
  const tarball = join(tree, `granary-${version}.tgz`);
  npm("install", "--global", "--prefix", join(tree, "prefix"), "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", tarball);
});

test("the packed file holds the bundle, the launcher and the documents, and no source", () => {
  const run = spawnSync("tar", ["-tzf", join(tree, `granary-${version}.tgz`)], { encoding: "utf8" });
  const names = run.stdout.trim().split("\n");
  for (const name of ["bin/granary", "dist/main.js", "README.md", "LICENSE", "package.json"])
    assert.ok(names.includes(`package/${name}`), name);
  assert.deepEqual(
    names.filter((name) => name.endsWith(".ts") || name.endsWith(".map")),
    [],
  );
});

test("granary, installed globally, runs from another folder with no Node on the PATH", () => {
  assert.ok(lstatSync(command).isSymbolicLink());
  const run = granary("--version");
  assert.equal(run.stdout.trim(), version, run.stderr);
  assert.equal(run.status, 0);
});

test("granary, installed globally, backs up, checks and restores: workers and native calls are found", () => {
  const source = join(root, "docs");
  for (const args of [["init"], ["backup", source], ["check", "--read-data"], ["restore", "latest", "--target", "restored"]]) {
    const run = granary("repo", "-r", "repository", ...args);
    assert.equal(run.status, 0, `${args.join(" ")}: ${run.stderr}${run.stdout}`);
  }
  const compared = spawnSync("diff", ["-r", source, join(elsewhere, "restored", source)], { encoding: "utf8" });
  assert.equal(compared.stdout, "");
  assert.equal(compared.status, 0);
});
