import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { compareFolders, type ComparisonCounts } from "./compare-folders.ts";

let top: string;
let first: string;
let second: string;

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), "granary-compare-"));
  first = join(top, "first");
  second = join(top, "second");
  mkdirSync(join(first, "folder"), { recursive: true });
  writeFileSync(join(first, "folder/file"), "content");
  writeFileSync(join(first, "large"), Buffer.alloc(3 << 20, 7));
  symlinkSync("file", join(first, "folder/link"));
  linkSync(join(first, "folder/file"), join(first, "second name"));
  writeFileSync(Buffer.concat([Buffer.from(`${first}/caf`), Buffer.from([0xe9])]), "");
  execFileSync("cp", ["-a", first, second]);
});
afterEach(() => execFileSync("rm", ["-rf", top]));

async function compare(except?: string): Promise<{ found: string[]; counts: ComparisonCounts }> {
  const found: string[] = [];
  const counts = await compareFolders(first, second, {
    ...(except === undefined ? {} : { except }),
    onDifference: ({ path, what }) => found.push(`${path}: ${what}`),
  });
  assert.equal(counts.differences, found.length);
  return { found, counts };
}

/** Gives the folder back the time it had. */
function keepTime(path: string, change: () => void): void {
  const times = [path, join(path, "..")].map((folder) => [folder, statSync(folder)] as const);
  change();
  for (const [folder, { atime, mtime }] of times) utimesSync(folder, atime, mtime);
  for (const [folder, { atime, mtime }] of times) utimesSync(folder.replace(second, first), atime, mtime);
}

test("a faithful copy is the same, and everything in it is counted", async () => {
  assert.deepEqual(await compare(), { found: [], counts: { files: 4, folders: 2, others: 1, bytes: (3 << 20) + 14, differences: 0 } });
});

test("content that differs is found, wherever it is, though size and time are the same", async () => {
  const large = join(second, "large");
  const { atime, mtime } = statSync(join(first, "large"));
  writeFileSync(large, Buffer.concat([Buffer.alloc((3 << 20) - 1, 7), Buffer.of(8)]));
  for (const folder of [first, second]) utimesSync(join(folder, "large"), atime, mtime);
  assert.deepEqual((await compare()).found, [`large: the content differs from byte ${2 << 20} on, or a little after`]);
});

test("sizes, modes and times that differ are found", async () => {
  appendFileSync(join(second, "large"), "x");
  chmodSync(join(second, "folder"), 0o700);
  const { found } = await compare();
  assert.ok(found.some((text) => text.startsWith("large: size 3145728 became 3145729")));
  assert.ok(found.some((text) => text.startsWith("large: modification time ")));
  assert.ok(found.some((text) => /^folder: mode \d+ became 700$/.test(text)));
  assert.equal(found.length, 3, found.join("\n"));
});

test("owners that differ are found", { skip: process.getuid?.() !== 0 && "needs root" }, async () => {
  chownSync(join(second, "large"), 12, 34);
  assert.deepEqual((await compare()).found, ["large: owner 0:0 became 12:34"]);
});

test("entries that are missing, or too many, are found", async () => {
  keepTime(join(second, "folder"), () => unlinkSync(join(second, "folder/link")));
  keepTime(second, () => writeFileSync(join(second, "extra"), ""));
  const { found } = await compare();
  assert.deepEqual(found.filter((text) => !text.includes("time")).sort(), ["extra: only in the copy", "folder/link: missing in the copy"]);
});

test("links that point elsewhere, and types that changed, are found", async () => {
  unlinkSync(join(second, "folder/link"));
  symlinkSync("elsewhere", join(second, "folder/link"));
  unlinkSync(join(second, "large"));
  mkdirSync(join(second, "large"));
  const { found } = await compare();
  assert.ok(found.includes("folder/link: the link points elsewhere"));
  assert.ok(found.includes("large: a file became a folder"));
});

test("names that were one file and are two now are found", async () => {
  const name = join(second, "second name");
  rmSync(name);
  cpSync(join(second, "folder/file"), name, { preserveTimestamps: true });
  execFileSync("touch", ["-r", join(first, "second name"), name]);
  assert.ok((await compare()).found.includes("second name: was another name of a file, and is a file of its own now"));
});

test("extended attributes that differ are found", { skip: skipWithout("setfattr") }, async () => {
  execFileSync("setfattr", ["-n", "user.note", "-v", "before", join(first, "large")]);
  assert.deepEqual((await compare()).found, ["large: extended attribute user.note differs"]);
  execFileSync("setfattr", ["-n", "user.note", "-v", "after", join(second, "large")]);
  assert.deepEqual((await compare()).found, ["large: extended attribute user.note differs"]);
  execFileSync("setfattr", ["-n", "user.note", "-v", "before", join(second, "large")]);
  assert.deepEqual((await compare()).found, []);
});

test("sockets, and a folder that is excepted, are left out", async () => {
  mkdirSync(join(first, "data"));
  writeFileSync(join(first, "data/repository"), "not compared");
  const server = createServer().listen(join(first, "socket"));
  await new Promise((resolve) => server.once("listening", resolve));
  execFileSync("touch", ["-r", first, second]);
  assert.deepEqual((await compare(join(first, "data"))).found, []);
  await new Promise((resolve) => server.close(resolve));
});

/** Makes a folder in a folder in a folder…, whose path is longer than the system takes in one call. */
function makeDeepFolder(folder: string): void {
  let handle = openSync(folder, "r");
  for (let depth = 0; depth < 30; depth++) {
    const below = `/proc/self/fd/${handle}/${"d".repeat(200)}`;
    mkdirSync(below);
    const next = openSync(below, "r");
    closeSync(handle);
    handle = next;
  }
  writeFileSync(`/proc/self/fd/${handle}/file`, folder);
  closeSync(handle);
}

test("paths of any length are compared", async () => {
  makeDeepFolder(first);
  makeDeepFolder(second);
  const { found, counts } = await compare();
  assert.equal(counts.folders, 32);
  const contents = found.filter((text) => text.includes("content"));
  assert.deepEqual(contents, [`${"d".repeat(200)}/`.repeat(30) + "file: the content differs from byte 0 on, or a little after"]);
});

test("a comparison can be cancelled", async () => {
  const controller = new AbortController();
  controller.abort();
  await assert.rejects(compareFolders(first, second, { onDifference: () => undefined, signal: controller.signal }), { code: "Cancelled" });
});
