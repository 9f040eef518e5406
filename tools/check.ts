/**
 * Everything CI asks for, in order: format, lint with types, types, layers, generated docs, then the tests. All stages run even when one
 * fails. With arguments, runs only the test files they name.
 */

import { spawnSync } from "node:child_process";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const packages = join(root, "node_modules");
const node = [process.execPath, "--conditions=source"];

const stages: readonly (readonly [name: string, command: readonly string[]])[] = [
  ["format", [join(packages, ".bin/biome"), "format"]],
  ["lint", [process.execPath, join(packages, "oxlint/bin/oxlint")]],
  ["types", [process.execPath, join(packages, "typescript/bin/tsc"), "--noEmit", "--project", "."]],
  ["layers", [...node, "tools/check-layers.ts"]],
  ["errors", [...node, "tools/write-errors-doc.ts", "--check"]],
];

function runStage(command: readonly string[]): { isGood: boolean; output: string } {
  const [program = "", ...args] = command;
  const run = spawnSync(program, args, { cwd: root, encoding: "utf8", maxBuffer: 2 ** 28 });
  return { isGood: run.status === 0, output: `${run.stdout ?? ""}${run.stderr ?? ""}${run.error?.message ?? ""}` };
}

const filters = process.argv.slice(2);
const failed: string[] = [];
for (const [name, command] of filters.length === 0 ? stages : []) {
  const startMs = performance.now();
  const { isGood, output } = runStage(command);
  console.log(`${isGood ? "✔" : "✖"} ${name} (${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
  if (!isGood) {
    failed.push(name);
    console.log(output);
  }
}
const tests = spawnSync(process.execPath, ["--conditions=source", "tools/test.ts", ...filters], { cwd: root, stdio: "inherit" });
if (tests.status !== 0) failed.push("tests");
if (failed.length > 0) {
  console.error(`✖ failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
