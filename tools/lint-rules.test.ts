import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "..");

/** The names of the rules that the project's own configuration finds broken, by path, in a tree given as path → text. */
function lint(files: Readonly<Record<string, string>>): Map<string, string[]> {
  const tree = mkdtempSync(join(tmpdir(), "granary-lint-"));
  try {
    symlinkSync(join(root, "node_modules"), join(tree, "node_modules"));
    mkdirSync(join(tree, "tools"));
    for (const path of [".oxlintrc.json", "tsconfig.json", "tools/lint-rules.ts"]) copyFileSync(join(root, path), join(tree, path));
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(tree, path)), { recursive: true });
      writeFileSync(join(tree, path), `${text}\n`);
    }
    const args = [join(root, "node_modules/oxlint/bin/oxlint"), "--format=unix", ...Object.keys(files)];
    const { stdout } = spawnSync(process.execPath, args, { cwd: tree, encoding: "utf8" });
    const found = new Map<string, string[]>(Object.keys(files).map((path) => [path, []]));
    for (const [, path = "", rule = ""] of stdout.matchAll(/^([^:]+):.*\[Error\/[\w-]+\(([\w-]+)\)\]$/gm)) found.get(path)?.push(rule);
    return found;
  } finally {
    rmSync(tree, { recursive: true });
  }
}

const broken: readonly (readonly [rule: string, text: string])[] = [
  ["no-wall-time", "export const nowMs: number = Date.now();"],
  ["no-wall-time", "export const now: Date = new Date();"],
  ["no-wall-time", "export const text: string = Date();"],
  ["no-restricted-globals", "setTimeout(() => undefined, 5);"],
  ["no-restricted-imports", 'export { setTimeout } from "node:timers/promises";'],
  ["explain-disable", "export let x: number; // oxlint-disable-line prefer-const"],
  ["explain-disable", "// @ts-expect-error\nexport const x: number = 'a';"],
  ["no-explicit-any", "export const x = (value: any): unknown => value;"],
  ["no-floating-promises", "export const run = (): void => { Promise.resolve(); };"],
  ["no-misused-promises", "export const run = (): void => [1].forEach(async () => Promise.resolve());"],
  ["max-params", "export const sum = (a: number, b: number, c: number, d: number): number => a + b + c + d;"],
  ["only-throw-error", 'export const run = (): void => { throw "text"; };'],
];

test("lint fails on what the house forbids", () => {
  const files = Object.fromEntries(broken.map(([, text], index) => [`packages/base/src/sample-${index}.ts`, text]));
  const found = [...lint(files).values()];
  for (const [index, [rule, text]] of broken.entries()) assert.ok(found[index]?.includes(rule), `${text} → ${String(found[index])}`);
});

test("lint accepts the time in the clock itself and in tests, conversions, and an explained exception", () => {
  const nowMs = "export const nowMs: number = Date.now();";
  const reason = "// oxlint-disable-next-line max-params -- mirrors the call of the C library";
  const found = lint({
    "packages/base/src/clock.ts": nowMs,
    "packages/base/src/sample.test.ts": nowMs,
    "packages/base/src/epoch.ts": "export const epoch: Date = new Date(0);",
    "packages/base/src/sum.ts": `${reason}\nexport const sum = (a: number, b: number, c: number, d: number): number => a + b + c + d;`,
  });
  assert.deepEqual([...found.values()], [[], [], [], []]);
});
