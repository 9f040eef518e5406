import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { skipWithout } from "@granary/base/testing";
import { parseNode } from "../format/parse-node.ts";
import type { TreeNode } from "../format/node.ts";
import { encodeTarHeader, fitsTar, formatAcl, tarEnd, tarPadding } from "./tar.ts";

function nodeOf(fields: object): TreeNode {
  const bytes = Buffer.from(JSON.stringify({ name: "n", type: "file", mode: 0o644, mtime: "2026-01-02T03:04:05Z", ...fields }));
  return parseNode(bytes, 0, bytes.length);
}

/** The records of the pax header that an entry begins with, and the ustar header behind it. */
function readHeaders(headers: Buffer): { records: Map<string, string>; header: Buffer } {
  const records = new Map<string, string>();
  let at = 0;
  if (headers.latin1Slice(156, 157) === "x") {
    const end = 512 + Number.parseInt(headers.latin1Slice(124, 135), 8);
    for (at = 512; at < end; ) {
      const text = headers.latin1Slice(at, end);
      const length = Number(text.slice(0, text.indexOf(" ")));
      const record = text.slice(text.indexOf(" ") + 1, length);
      assert.equal(record.at(-1), "\n");
      records.set(record.slice(0, record.indexOf("=")), record.slice(record.indexOf("=") + 1, -1));
      at += length;
    }
    at = Math.ceil(at / 512) * 512;
  }
  assert.equal(headers.length, at + 512);
  return { records, header: headers.subarray(at) };
}

test("encodeTarHeader() puts what the short header can hold there, and only the rest into records", () => {
  const node = nodeOf({
    uid: 1000,
    gid: 8 ** 7,
    user: "alice",
    group: "grüppe",
    atime: "2026-01-02T03:04:05.5Z",
    ctime: "1969-12-31T23:59:59.25Z",
  });
  const { records, header } = readHeaders(encodeTarHeader("home/alice/n", node, 12));
  assert.deepEqual(Object.fromEntries(records), {
    gid: String(8 ** 7),
    atime: "1767323045.5",
    ctime: "-0.75",
    gname: Buffer.from("grüppe").latin1Slice(),
  });
  assert.equal(header.latin1Slice(0, 13), "home/alice/n\0");
  assert.equal(header.latin1Slice(108, 116), "0001750\0");
  assert.equal(header.latin1Slice(116, 124), "0000000\0");
  assert.equal(header.latin1Slice(124, 136), "00000000014\0");
  assert.equal(header.latin1Slice(257, 265), "ustar\x0000");
  const sum = header.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0);
  assert.equal(Number.parseInt(header.latin1Slice(148, 154), 8), sum);
});

test("encodeTarHeader() writes records whose length counts itself at every number of digits", () => {
  for (let length = 1; length < 1100; length += 1) {
    const { records } = readHeaders(
      encodeTarHeader("f", nodeOf({ extended_attributes: [{ name: "user.x", value: Buffer.alloc(length, 10).toString("base64") }] }), 0),
    );
    assert.equal(records.get("SCHILY.xattr.user.x")?.length, length);
  }
});

test("encodeTarHeader() keeps times before 1970, sizes of terabytes, and ids of 32 bits", () => {
  const node = nodeOf({ mtime: "1901-01-01T00:00:00.000000001Z", uid: 2 ** 32 - 2 });
  const { records } = readHeaders(encodeTarHeader("f", node, 2 ** 43));
  assert.equal(records.get("mtime"), "-2177452799.999999999");
  assert.equal(records.get("uid"), String(2 ** 32 - 2));
  assert.equal(records.get("size"), String(2 ** 43));
});

test("encodeTarHeader() escapes what would end the name of an attribute", () => {
  const attributes = [{ name: "user.a=b%c", value: Buffer.from("=\n").toString("base64") }];
  assert.equal(
    readHeaders(encodeTarHeader("f", nodeOf({ extended_attributes: attributes }), 0)).records.get("SCHILY.xattr.user.a%3Db%25c"),
    "=\n",
  );
});

test("GNU tar unpacks names and link targets of any bytes and length", { skip: skipWithout("tar") }, () => {
  const folder = mkdtempSync(join(tmpdir(), "granary-tar-"));
  try {
    const names = [
      "plain",
      "caf\xc3\xa9",
      "caf\xe9\xff",
      "x".repeat(100),
      "y".repeat(101),
      "z".repeat(255),
      `${"d".repeat(60)}/${"e".repeat(60)}/f`,
      `${"d".repeat(155)}/${"g".repeat(100)}`,
      `${"d".repeat(156)}/${"h".repeat(99)}`,
      `${"\xc3\xa9".repeat(60)}/${"\xff".repeat(200)}`,
      "new\nline =12 path=/etc/passwd",
    ];
    const target = "\xfe\xff no UTF-8\n".repeat(20);
    const link = { ...nodeOf({ type: "symlink", mode: 0o777 }), linkTarget: target };
    const parts: Uint8Array[] = [];
    for (const name of names) parts.push(encodeTarHeader(name, nodeOf({}), 3), Buffer.from("abc"), tarPadding(3));
    parts.push(encodeTarHeader("link", link, 0), encodeTarHeader("dir\xff", nodeOf({ type: "dir", mode: 0o755 + 2 ** 31 }), 0), tarEnd);
    const archive = join(folder, "a.tar");
    writeFileSync(archive, Buffer.concat(parts));
    execFileSync("tar", ["-xf", archive, "-C", folder], { stdio: ["ignore", "pipe", "pipe"] });
    const found = readdirSync(Buffer.from(folder), { recursive: true, encoding: "buffer" }).map((name) => name.latin1Slice());
    for (const name of names) assert.ok(found.includes(name), JSON.stringify(name));
    assert.ok(found.includes("dir\xff"));
    assert.equal(readlinkSync(join(folder, "link"), { encoding: "buffer" }).latin1Slice(), target);
    assert.equal(statSync(join(folder, "plain")).mtimeMs, Date.UTC(2026, 0, 2, 3, 4, 5));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("formatAcl() reads what Linux stores and refuses what it does not", () => {
  const acl = Buffer.from(
    "0200000001000600ffffffff02000500d204000004000400ffffffff08000700e110000010000700ffffffff20000000ffffffff",
    "hex",
  );
  assert.equal(formatAcl(acl), "user::rw-\nuser:1234:r-x\ngroup::r--\ngroup:4321:rwx\nmask::rwx\nother::---\n");
  for (const wrong of ["", "02000000ff", "01000000", "0200000003000600ffffffff"])
    assert.equal(formatAcl(Buffer.from(wrong, "hex")), undefined);
  const attributes = [{ name: "system.posix_acl_access", value: Buffer.from("junk").toString("base64") }];
  assert.equal(
    readHeaders(encodeTarHeader("f", nodeOf({ extended_attributes: attributes }), 0)).records.get("SCHILY.xattr.system.posix_acl_access"),
    "junk",
  );
});

test("fitsTar() takes all types but sockets and what is irregular", () => {
  const types = ["file", "dir", "symlink", "dev", "chardev", "fifo", "socket", "irregular"];
  assert.deepEqual(
    types.filter((type) => !fitsTar(nodeOf({ type }))),
    ["socket", "irregular"],
  );
});
