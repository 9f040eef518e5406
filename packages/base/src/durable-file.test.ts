import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeDurably } from "./durable-file.ts";

async function makeFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), "granary-durable-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

test("writeDurably() writes all bytes under the name and leaves nothing else", async () => {
  await using folder = await makeFolder();
  const data = new Uint8Array(5_000_001).map((_, index) => index * 31);
  await writeDurably(join(folder.path, "a"), data);
  assert.deepEqual(await readdir(folder.path), ["a"]);
  assert.ok(Buffer.from(data).equals(await readFile(join(folder.path, "a"))));
});

test("writeDurably() writes an empty file, and a name of 255 bytes", async () => {
  await using folder = await makeFolder();
  const name = "n".repeat(255);
  await writeDurably(join(folder.path, name), new Uint8Array());
  assert.deepEqual(await readdir(folder.path), [name]);
  assert.equal((await stat(join(folder.path, name))).size, 0);
});

test("writeDurably() replaces a file and gives it the asked mode", async () => {
  await using folder = await makeFolder();
  const path = join(folder.path, "key");
  await writeFile(path, "old and longer", { mode: 0o644 });
  await writeDurably(path, Buffer.from("new"), { mode: 0o600 });
  assert.equal(await readFile(path, "utf8"), "new");
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

test("writeDurably() keeps the old file and removes its temporary one when the rename fails", async () => {
  await using folder = await makeFolder();
  await mkdir(join(folder.path, "taken", "inside"), { recursive: true });
  await assert.rejects(writeDurably(join(folder.path, "taken"), Buffer.from("x")), (error: NodeJS.ErrnoException) =>
    ["EISDIR", "ENOTEMPTY", "EEXIST"].includes(error.code ?? ""),
  );
  assert.deepEqual(await readdir(folder.path), ["taken"]);
  assert.deepEqual(await readdir(join(folder.path, "taken")), ["inside"]);
});

test("writeDurably() tells of a full disk and removes its temporary file", { skip: process.platform !== "linux" }, async () => {
  // /dev/full cannot hold a temporary file, so the limit of one file's size stands in for the disk's: the write fails in the middle.
  const { spawnSync } = await import("node:child_process");
  await using folder = await makeFolder();
  const module = new URL("./durable-file.ts", import.meta.url).href;
  const script = `const { writeDurably } = await import(${JSON.stringify(module)});
    process.on("SIGXFSZ", () => {});
    try { await writeDurably(process.argv[1], new Uint8Array(4_000_000)); } catch (error) { console.log(error.code); }`;
  const run = spawnSync(
    "sh",
    ["-c", 'ulimit -f 100 && exec "$@"', "sh", process.execPath, "--input-type=module", "-e", script, join(folder.path, "big")],
    { encoding: "utf8" },
  );
  assert.equal(run.stdout.trim(), "EFBIG", run.stderr);
  assert.deepEqual(await readdir(folder.path), []);
});

test("writeDurably() fails without a trace when the folder is missing", async () => {
  await using folder = await makeFolder();
  await assert.rejects(writeDurably(join(folder.path, "no", "file"), Buffer.from("x")), { code: "ENOENT" });
  assert.deepEqual(await readdir(folder.path), []);
});
