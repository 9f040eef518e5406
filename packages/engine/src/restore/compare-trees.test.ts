import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { compareTrees } from "./compare-trees.ts";

const time = new Date("2026-01-01");

function fill(folder: string): void {
  mkdirSync(join(folder, "folder"));
  for (const name of ["folder/file", "other"]) writeFileSync(join(folder, name), "content");
  linkSync(join(folder, "folder/file"), join(folder, "again"));
  symlinkSync("other", join(folder, "link"));
  for (const name of ["folder/file", "other", "folder"]) utimesSync(join(folder, name), time, time);
  execFileSync("touch", ["-h", "-d", "2026-01-01", join(folder, "link")]);
}

const changes: readonly (readonly [what: string, change: (folder: string) => void, expected: RegExp])[] = [
  ["content", (folder) => writeAs(join(folder, "other"), "c0ntent"), /^\/other: content differs at byte 1$/],
  ["length", (folder) => writeAs(join(folder, "other"), "content!"), /^\/other: .*7 bytes and .*8 bytes$/],
  ["modification time", (folder) => utimesSync(join(folder, "folder"), time, new Date("2026-01-02")), /^\/folder: .*mtime/],
  ["mode", (folder) => chmodSync(join(folder, "other"), 0o600), /^\/other: .*mode/],
  ["a missing file", (folder) => unlinkSync(join(folder, "other")), /^\/other: only in the first$/],
  ["an extra file", (folder) => writeFileSync(join(folder, "extra"), ""), /^\/extra: only in the second$/],
  ["type", (folder) => makeFolder(folder, "other"), /^\/other: type file and dir$/],
  ["target of a link", (folder) => relink(folder), /^\/link: leads to "other" and "another"$/],
  ["hard links", (folder) => copyAgain(folder), /another name of \/again and of \/folder\/file/],
];

function writeAs(path: string, content: string): void {
  writeFileSync(path, content);
  utimesSync(path, time, time);
}

function makeFolder(folder: string, name: string): void {
  unlinkSync(join(folder, name));
  mkdirSync(join(folder, name));
}

function relink(folder: string): void {
  unlinkSync(join(folder, "link"));
  symlinkSync("another", join(folder, "link"));
  execFileSync("touch", ["-h", "-d", "2026-01-01", join(folder, "link")]);
}

function copyAgain(folder: string): void {
  unlinkSync(join(folder, "again"));
  writeAs(join(folder, "again"), "content");
}

for (const [what, change, expected] of changes) {
  test(`compareTrees() sees a difference in ${what}`, async () => {
    const folder = mkdtempSync(join(tmpdir(), "granary-compare-"));
    try {
      for (const side of ["a", "b"]) {
        mkdirSync(join(folder, side));
        fill(join(folder, side));
      }
      assert.deepEqual(await compareTrees(join(folder, "a"), join(folder, "b")), []);
      change(join(folder, "b"));
      const differences = await compareTrees(join(folder, "a"), join(folder, "b"));
      assert.equal(differences.filter((text) => expected.test(text)).length, 1, differences.join("\n"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test("compareTrees() sees attributes, lists of access and holes", { skip: skipWithout("setfattr", "setfacl") }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "granary-compare-"));
  try {
    for (const side of ["a", "b"]) {
      mkdirSync(join(folder, side));
      for (const name of ["attribute", "list", "hole"]) writeFileSync(join(folder, side, name), "");
    }
    execFileSync("setfattr", ["-n", "user.x", "-v", "1", join(folder, "a/attribute")]);
    execFileSync("setfacl", ["-m", "u:1:r", join(folder, "b/list")]);
    writeFileSync(join(folder, "a/hole"), new Uint8Array(1 << 20));
    truncateSync(join(folder, "b/hole"), 1 << 20);
    const differences = await compareTrees(join(folder, "a"), join(folder, "b"), { times: false, modes: false, holes: true });
    assert.match(differences.join("\n"), /^\/attribute: .*\n\/hole: data at .*\n\/list: attributes .*$/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
