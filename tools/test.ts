/**
 * Runs the tests: every `*.test.ts` of the project, or those named as arguments (files, folders, or parts of a path). `--long` runs the
 * `*.long.test.ts` instead, which are left out otherwise. Installs the real programs the tests compare with (restic, borg, rclone…)
 * where it may; where it may not, the tests that need them are skipped, and the skips are listed at the end. With CI=true a skip is a
 * failure. Exit code 0 only when everything passed.
 */

import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { findTool, neededTools } from "@granary/base/testing";

const root = join(import.meta.dirname, "..");

/** The test files for these arguments, sorted. */
export function findTestFiles(filters: readonly string[], isLong: boolean): string[] {
  const exclude = (name: string): boolean => name === "node_modules" || name === "dist";
  return globSync("{packages,apps,tools,test}/**/*.test.ts", { cwd: root, exclude })
    .filter((path) => path.endsWith(".long.test.ts") === isLong)
    .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter.replace(/^\.\//, ""))))
    .sort();
}

/** Installs, through apt, the programs that are missing. Says so when it cannot. */
function installTools(): void {
  const missing = neededTools.filter(({ name }) => findTool(name) === undefined);
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(({ debianPackage }) => debianPackage))];
  const names = missing.map(({ name }) => name).join(", ");
  if (process.getuid?.() !== 0 || findTool("apt-get") === undefined) {
    console.error(`test: ${names} missing, and only root on Debian can install; tests that need them are skipped`);
    return;
  }
  console.error(`test: ${names} missing; installing ${packages.join(" ")} with apt-get`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const aptGet = (...args: string[]): boolean => {
    const done = spawnSync("apt-get", ["-qq", "-o", "DPkg::Lock::Timeout=120", ...args], { env, encoding: "utf8", timeout: 600_000 });
    if (done.status !== 0) console.error(`test: apt-get ${args.join(" ")} failed:\n${done.stderr}`);
    return done.status === 0;
  };
  if (aptGet("update")) aptGet("install", "--yes", "--no-install-recommends", ...packages);
}

/** Runs the files two at a time, as many as the smallest machine has cores, and reports to standard output. */
async function runFiles(files: string[], isLong: boolean): Promise<boolean> {
  const skips: string[] = [];
  let isGood = true;
  const events = run({
    files: files.map((path) => join(root, path)),
    cwd: root,
    concurrency: isLong ? 1 : 2,
    timeout: isLong ? Number.POSITIVE_INFINITY : 600_000,
  });
  events.on("test:fail", ({ todo }) => {
    if (todo === undefined || todo === false) isGood = false;
  });
  events.on("test:pass", ({ name, skip }) => {
    if (skip !== undefined && skip !== false) skips.push(`  ${name}: ${skip === true ? "no reason given" : skip}`);
  });
  for await (const text of events.compose(new spec())) process.stdout.write(String(text));
  if (skips.length > 0) {
    const isFailure = process.env.CI === "true";
    if (isFailure) isGood = false;
    console.log(`\n${isFailure ? "✖" : "!"} ${skips.length} skipped${isFailure ? ", which CI does not accept" : ""}\n${skips.join("\n")}`);
  }
  return isGood;
}

if (import.meta.main) {
  const filters = process.argv.slice(2).filter((argument) => argument !== "--long");
  const isLong = process.argv.includes("--long");
  const files = findTestFiles(filters, isLong);
  if (files.length === 0) {
    console.error(`test: no test file matches ${filters.join(" ") || "*.long.test.ts"}`);
    process.exitCode = 1;
  } else {
    installTools();
    if (!(await runFiles(files, isLong))) process.exitCode = 1;
  }
}
