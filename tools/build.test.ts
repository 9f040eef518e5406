import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { bundle, listEntries } from "./build.ts";

const root = join(import.meta.dirname, "..");

function makeTree(files: Readonly<Record<string, string>>): Disposable & { path: string } {
  const path = mkdtempSync(join(tmpdir(), "granary-build-"));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true });
    writeFileSync(join(path, name), text);
  }
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

const mainSource = `
import { Worker } from "node:worker_threads";
import { Failure } from "@granary/base/errors";
import { workerUrl } from "@granary/base/worker-url";
const worker = new Worker(workerUrl(import.meta.url, "../../../packages/x/src/pool/double.worker.ts"));
worker.once("message", (answer) => {
  console.log(answer, new Failure("Bug", "").kind, process.argv.slice(2).join());
  void worker.terminate();
});
worker.postMessage(21);
`;
const workerSource = `
import { parentPort } from "node:worker_threads";
import { Failure } from "@granary/base/errors";
parentPort?.on("message", (value: number) => parentPort?.postMessage(value * 2 + new Failure("Bug", "").code));
`;

test("bundle() makes a folder that runs by itself, workers included", async () => {
  using tree = makeTree({
    "package.json": '{ "type": "module", "dependencies": {} }',
    "apps/cli/src/main.ts": mainSource,
    "packages/x/src/pool/double.worker.ts": workerSource,
  });
  mkdirSync(join(tree.path, "node_modules/@granary"), { recursive: true });
  symlinkSync(join(root, "packages/base"), join(tree.path, "node_modules/@granary/base"));
  await bundle(tree.path);
  rmSync(join(tree.path, "node_modules"), { recursive: true });
  rmSync(join(tree.path, "packages"), { recursive: true });
  rmSync(join(tree.path, "apps"), { recursive: true });

  const env = { ...process.env, XDG_CACHE_HOME: join(tree.path, "cache") };
  const run = spawnSync(process.execPath, [join(tree.path, "dist/main.js"), "a", "b"], { cwd: tmpdir(), env, encoding: "utf8" });
  assert.equal(run.stdout, "42Bug bug a,b\n", run.stderr);
  assert.equal(run.stderr, "");
  assert.ok(readdirSync(join(tree.path, "cache/granary")).length > 0, "compiled code is kept in the user's folder");
  assert.deepEqual(
    readdirSync(join(tree.path, "dist")).filter((name) => name.endsWith(".map")),
    [],
  );
});

test("listEntries() refuses two workers of one name", () => {
  using tree = makeTree({ "packages/a/src/x.worker.ts": "", "packages/b/src/deep/x.worker.ts": "" });
  assert.throws(() => listEntries(tree.path), /worker files need names of their own/);
});
