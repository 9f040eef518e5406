import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { checkLayers } from "./check-layers.ts";

const manifests: Readonly<Record<string, unknown>> = {
  "package.json": { devDependencies: { "fast-check": "1" } },
  "packages/base/package.json": { exports: { "./*": {} } },
  "packages/engine/package.json": { exports: { ".": {}, "./testing": {} }, dependencies: { "@granary/base": "1", koffi: "1" } },
  "packages/contract/package.json": { exports: { ".": {} }, dependencies: { "@granary/base": "1", "@granary/engine": "1" } },
  "apps/cli/package.json": { dependencies: { "@granary/base": "1", "@granary/engine": "1", "@granary/vault": "1" } },
  "apps/vault/package.json": { exports: { ".": {} }, dependencies: { "@granary/base": "1" } },
};

/** The faults of a tree given as path → lines. */
function check(files: Readonly<Record<string, readonly string[]>>): string[] {
  const root = mkdtempSync(join(tmpdir(), "granary-layers-"));
  try {
    const texts = [
      ...Object.entries(manifests).map(([path, value]) => [path, JSON.stringify(value)] as const),
      ...Object.entries(files).map(([path, lines]) => [path, lines.join("\n")] as const),
    ];
    for (const [path, text] of texts) {
      mkdirSync(join(root, dirname(path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return checkLayers(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

const empty = ["export {};"];

test("checkLayers() accepts what the table allows", () => {
  const faults = check({
    "packages/base/src/errors.ts": empty,
    "packages/engine/src/errors.ts": ['import { type CodeEntry, declareCodes } from "@granary/base/errors";'],
    "packages/engine/src/index.ts": ['export { open } from "./repository/open.ts";'],
    "packages/engine/src/repository/open.ts": [
      'import { statSync } from "node:fs";',
      'import koffi from "koffi";',
      "import {",
      "  seal,",
      "  type Key,",
      '} from "../crypto/seal.ts";',
      'import "../errors.ts";',
    ],
    "packages/engine/src/crypto/seal.ts": ['import { hash } from "node:crypto";', 'import { bind } from "../native/bind.ts";'],
    "packages/engine/src/native/bind.ts": empty,
    "packages/engine/src/crypto/seal.test.ts": ['import fc from "fast-check";', 'import { open } from "../repository/open.ts";'],
    "packages/engine/src/testing.ts": empty,
    "apps/vault/src/index.ts": empty,
    "apps/cli/src/main.ts": ['import { open } from "@granary/engine";', `await import(${JSON.stringify("@granary/vault")});`],
    "tools/bench/main.ts": ['import { open } from "@granary/engine/testing";'],
  });
  assert.deepEqual(faults, []);
});

const violations: Readonly<Record<string, readonly [path: string, lines: readonly string[], fault: RegExp]>> = {
  "a room that is not in the table of the importer": [
    "packages/contract/src/index.ts",
    ['import { open } from "@granary/engine";'],
    /"contract" must not import "engine"/,
  ],
  "a type from a room that is not in the table": [
    "packages/contract/src/index.ts",
    ['import type { Store } from "@granary/engine";'],
    /"contract" must not import "engine"/,
  ],
  "an app imported by another, other than with import()": [
    "apps/cli/src/main.ts",
    ['import { serve } from "@granary/vault";'],
    /"cli" must not import "vault"/,
  ],
  "a higher layer of the engine": [
    "packages/engine/src/store/local.ts",
    ['import type { Repository } from "../repository/open.ts";'],
    /"store" must not import "repository"/,
  ],
  "a layer at the same height": [
    "packages/engine/src/crypto/seal.ts",
    ['import { cut } from "../chunk/cut.ts";'],
    /"crypto" must not import "chunk"/,
  ],
  "a verb by another verb": [
    "packages/engine/src/restore/run.ts",
    ['import { run } from "../backup/run.ts";'],
    /"restore" must not import "backup"/,
  ],
  "a re-export of a higher layer": [
    "packages/engine/src/chunk/cut.ts",
    ['export { pack } from "../format/pack.ts";'],
    /"chunk" must not import "format"/,
  ],
  "the index by a layer": ["packages/engine/src/store/local.ts", ['import { open } from "../index.ts";'], /not the index/],
  "a folder of the engine that is no layer": [
    "packages/engine/src/stuff/x.ts",
    ['import { run } from "../backup/run.ts";'],
    /"stuff" is not a layer/,
  ],
  "files in a pure layer": ["packages/engine/src/format/pack.ts", ['import { open } from "node:fs/promises";'], /"format" is pure/],
  "the inside of a package by name": [
    "apps/cli/src/main.ts",
    ['import { seal } from "@granary/engine/crypto";'],
    /reaches inside a package/,
  ],
  "the inside of a package by path": [
    "apps/cli/src/main.ts",
    ['import { run } from "../../../packages/engine/src/backup/run.ts";'],
    /leaves its room/,
  ],
  "a workspace that is not declared": [
    "packages/base/src/retry.ts",
    ['import type { Store } from "@granary/engine";'],
    /"@granary\/engine" is not declared/,
  ],
  "a package that is not declared": ["packages/base/src/retry.ts", ['import koffi from "koffi";'], /"koffi" is not declared/],
  "a development package outside tests": [
    "packages/engine/src/chunk/cut.ts",
    ['import fc from "fast-check";'],
    /"fast-check" is not declared/,
  ],
  "a room nobody planned": ["packages/extra/src/x.ts", ['import { retry } from "@granary/base/retry";'], /"extra" is not a room/],
  "its own package by name": ["packages/engine/src/store/local.ts", ['import { open } from "@granary/engine";'], /imports are relative/],
  "test code in what is shipped": [
    "apps/cli/src/main.ts",
    ['import { MemoryStore } from "@granary/engine/testing";'],
    /"@granary\/engine\/testing" is for tests/,
  ],
  "a file that is not there": ["packages/base/src/retry.ts", ['import { x } from "./gone.ts";'], /"\.\/gone.ts" does not exist/],
  "a module that Node does not have": ["packages/base/src/retry.ts", ['import { x } from "node:gone";'], /not part of Node/],
  "a folder whose name says nothing": ["packages/base/src/utils/x.ts", empty, /folder "utils" says nothing/],
  "a file name that is not kebab-case": ["packages/base/src/fileName.ts", empty, /kebab-case/],
  "an export of everything": ["packages/engine/src/index.ts", ['export * from "./backup/run.ts";'], /hides what is exported/],
};

for (const [what, [path, lines, expected]] of Object.entries(violations)) {
  test(`checkLayers() rejects ${what}`, () => {
    const faults = check({
      "packages/engine/src/index.ts": empty,
      "packages/engine/src/chunk/cut.ts": empty,
      "packages/engine/src/format/pack.ts": empty,
      "packages/engine/src/repository/open.ts": empty,
      "packages/engine/src/backup/run.ts": empty,
      [path]: lines,
    });
    assert.ok(
      faults.some((fault) => fault.startsWith(`${path}: `) && expected.test(fault)),
      `found only: ${faults.join("; ")}`,
    );
  });
}

test("checkLayers() finds cycles of any length, through types too, once", () => {
  const faults = check({
    "packages/base/src/a.ts": ['import { b } from "./b.ts";'],
    "packages/base/src/b.ts": ['import type { C } from "./c.ts";'],
    "packages/base/src/c.ts": ['export { a } from "./a.ts";', 'import { d } from "./d.ts";'],
    "packages/base/src/d.ts": empty,
  });
  assert.equal(faults.length, 1);
  assert.match(faults[0] ?? "", /import cycle packages\/base\/src\/(\w)\.ts → .* → packages\/base\/src\/\1\.ts$/);
});

test("checkLayers() is not misled by comments", () => {
  const faults = check({
    "packages/base/src/a.ts": ["/**", ' * import { x } from "@granary/engine";', " */", '// import { x } from "./gone.ts";', ...empty],
  });
  assert.deepEqual(faults, []);
});
