import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { expandGlob, readTargets } from "./backup-targets.ts";
import { expandVariables } from "./exclude-options.ts";

const folder = mkdtempSync(join(tmpdir(), "granary-targets-"));
before(() => {
  for (const name of ["a1", "a2", "b1"]) mkdirSync(join(folder, name));
  for (const name of ["a1/x.txt", "a2/x.txt", "a2/{y}.txt", "b1/x.txt"]) writeFileSync(join(folder, name), "");
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/caf`), Buffer.from([0xe9])]), "");
});
after(() => rmSync(folder, { recursive: true }));

test("expandGlob() matches each component by itself, and knows no braces", () => {
  assert.deepEqual(expandGlob(`${folder}/a*/x.txt`), [`${folder}/a1/x.txt`, `${folder}/a2/x.txt`]);
  assert.deepEqual(expandGlob(`${folder}/a2/{y}.txt`), [`${folder}/a2/{y}.txt`]);
  assert.deepEqual(expandGlob(`${folder}/[ab]1/*`), [`${folder}/a1/x.txt`, `${folder}/b1/x.txt`]);
  assert.deepEqual(expandGlob(`${folder}/none*`), []);
  assert.deepEqual(expandGlob(`${folder}/caf?`), [`${folder}/caf\xe9`]);
});

test("readTargets() takes patterns, paths and raw lists, then the arguments, and tells of patterns that match nothing", async () => {
  const [globs, verbatim, raw] = ["globs", "verbatim", "raw"].map((name) => join(folder, name)) as [string, string, string];
  writeFileSync(globs, `# a comment\n${folder}/a?\n${folder}/zz*\n`);
  writeFileSync(verbatim, `${folder}/*\n`);
  writeFileSync(raw, Buffer.from([0x2f, 0xff, 0]));
  const unmatched: string[] = [];
  const targets = await readTargets(["docs"], { filesFrom: [globs], filesFromVerbatim: [verbatim], filesFromRaw: [raw] }, (pattern) =>
    unmatched.push(pattern),
  );
  assert.deepEqual(targets, [`${folder}/a1`, `${folder}/a2`, `${folder}/*`, "/\xff", "docs"]);
  assert.deepEqual(unmatched, [`${folder}/zz*`]);
});

test("readTargets() refuses to back up nothing, and lists that cannot be read", async () => {
  await assert.rejects(
    readTargets([], {}, () => undefined),
    { code: "InvalidArgument" },
  );
  await assert.rejects(
    readTargets([], { filesFrom: ["/nowhere/list"] }, () => undefined),
    { code: "InputUnreadable" },
  );
});

test("expandVariables() puts the environment's values into pattern lines", () => {
  const env = { HOME: "/home/alice", X: "x" };
  assert.equal(expandVariables("$HOME/${X}/$$/$NONE.txt", env), "/home/alice/x/$/.txt");
});
