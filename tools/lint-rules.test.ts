import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";

const root = join(import.meta.dirname, "..");
const tree = mkdtempSync(join(tmpdir(), "granary-lint-"));
const file = "packages/base/src/sample.ts";

before(() => {
  symlinkSync(join(root, "node_modules"), join(tree, "node_modules"));
  for (const path of [".oxlintrc.json", "tsconfig.json", "tools/lint-rules.ts"]) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    copyFileSync(join(root, path), join(tree, path));
  }
});
after(() => rmSync(tree, { recursive: true }));

/** The names of the rules that the project's own configuration finds broken by these lines. */
function lint(lines: readonly string[], path = file): string[] {
  mkdirSync(dirname(join(tree, path)), { recursive: true });
  writeFileSync(join(tree, path), `${lines.join("\n")}\n`);
  const run = spawnSync(process.execPath, [join(root, "node_modules/oxlint/bin/oxlint"), "--format=unix", path], {
    cwd: tree,
    encoding: "utf8",
  });
  rmSync(join(tree, path));
  return Array.from(run.stdout.matchAll(/\[Error\/[\w-]+\(([\w-]+)\)\]/g), (match) => match[1] ?? "");
}

const broken: readonly (readonly [rule: string, line: string])[] = [
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

for (const [rule, line] of broken) {
  test(`lint fails on ${JSON.stringify(line)}`, () => assert.ok(lint([line]).includes(rule), String(lint([line]))));
}

test("lint accepts the time in the clock itself and in tests, conversions, and an explained exception", () => {
  assert.deepEqual(lint(["export const nowMs: number = Date.now();"], "packages/base/src/clock.ts"), []);
  assert.deepEqual(lint(["export const nowMs: number = Date.now();"], "packages/base/src/sample.test.ts"), []);
  assert.deepEqual(lint(["export const epoch: Date = new Date(0);"]), []);
  const reason = "// oxlint-disable-next-line max-params -- mirrors the call of the C library";
  assert.deepEqual(lint([reason, "export const sum = (a: number, b: number, c: number, d: number): number => a + b + c + d;"]), []);
});
