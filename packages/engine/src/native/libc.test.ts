import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { skipWithout } from "@granary/base/testing";
import {
  chmodAt,
  chmodHandle,
  chownAt,
  closeHandle,
  errno,
  FileStatus,
  findGroupName,
  findUserName,
  linkFile,
  listAttributes,
  makeDirectoryAt,
  makeLinkAt,
  makeNodeAt,
  openAt,
  openBeneath,
  openFlags,
  pathBelow,
  readAttribute,
  readHandle,
  readHandleAt,
  readLinkAt,
  readNames,
  removeAttribute,
  renameFile,
  seekData,
  seekHole,
  seekTo,
  setTimesAt,
  statAt,
  statHandle,
  syncHandle,
  truncateHandle,
  unlinkAt,
  workingDirectory,
  writeAttribute,
  writeHandleAt,
} from "./libc.ts";

const isRoot = process.getuid?.() === 0;
const needsRoot = isRoot ? false : "needs root";

class Folder {
  readonly path: string = mkdtempSync(join(tmpdir(), "granary-libc-"));
  readonly handle: number = openAt(workingDirectory, this.path, openFlags.readOnly | openFlags.directory);

  at(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    assert.equal(closeHandle(this.handle), 0);
    rmSync(this.path, { recursive: true, force: true });
  }
}

const everyByte = Array.from({ length: 255 }, (_, at) => String.fromCharCode(at + 1))
  .filter((byte) => byte !== "/")
  .join("");
const half = [everyByte.slice(0, 127), everyByte.slice(127)] as const;

function failed(name: string): number {
  const number = errno[name];
  assert.ok(number !== undefined);
  return -number;
}

test("statAt() says what Node's lstat says, of every kind of file", () => {
  using folder = new Folder();
  writeFileSync(folder.at("file"), "x".repeat(1000));
  chmodSync(folder.at("file"), 0o4751);
  linkSync(folder.at("file"), folder.at("second name"));
  mkdirSync(folder.at("dir"));
  symlinkSync("nowhere", folder.at("link"));
  assert.equal(makeNodeAt(folder.handle, "fifo", { mode: 0o010640, device: 0n }), 0);
  assert.equal(makeNodeAt(folder.handle, "socket", { mode: 0o140640, device: 0n }), 0);
  if (isRoot) {
    assert.equal(makeNodeAt(folder.handle, "char", { mode: 0o020640, device: 0x105n }), 0);
    assert.equal(makeNodeAt(folder.handle, "block", { mode: 0o060640, device: (0xabcn << 8n) | 0xffn | (0xfedn << 20n) }), 0);
    chownSync(folder.at("file"), 4294967294, 123456);
  }
  for (const [seconds, nanos] of [
    [-1, 999_999_999],
    [2 ** 33, 7],
    [0, 0],
  ] as const) {
    assert.equal(setTimesAt(folder.handle, "link", { atimeSeconds: seconds, atimeNanos: 3, mtimeSeconds: seconds, mtimeNanos: nanos }), 0);
    const status = new FileStatus();
    assert.equal(statAt(folder.handle, "link", status), 0);
    assert.deepEqual([status.mtimeSeconds, status.mtimeNanos], [seconds, nanos]);
  }
  const status = new FileStatus();
  for (const name of readdirSync(folder.path)) {
    assert.equal(statAt(folder.handle, name, status), 0);
    const expected = lstatSync(folder.at(name), { bigint: true });
    const ns = (whole: number, nanos: number): bigint => BigInt(whole) * 1_000_000_000n + BigInt(nanos);
    assert.deepEqual(
      {
        mode: status.mode,
        links: status.links,
        uid: status.uid,
        gid: status.gid,
        inode: status.inode,
        size: status.sizeBytes,
        blocks: status.blocks,
        atime: ns(status.atimeSeconds, status.atimeNanos),
        ctime: ns(status.ctimeSeconds, status.ctimeNanos),
        mtime: ns(status.mtimeSeconds, status.mtimeNanos),
        device: status.device,
        fileSystem: status.fileSystem,
      },
      {
        mode: Number(expected.mode),
        links: Number(expected.nlink),
        uid: Number(expected.uid),
        gid: Number(expected.gid),
        inode: expected.ino,
        size: Number(expected.size),
        blocks: Number(expected.blocks),
        atime: expected.atimeNs,
        ctime: expected.ctimeNs,
        mtime: expected.mtimeNs,
        device: expected.rdev,
        fileSystem: expected.dev,
      },
      name,
    );
  }
});

test("names of every byte, and of 255 bytes, go through unchanged", () => {
  using folder = new Folder();
  const names = [...half, "n".repeat(255), "\xff".repeat(255)];
  for (const name of names) {
    assert.equal(makeDirectoryAt(folder.handle, name, 0o700), 0);
    assert.equal(makeLinkAt(folder.handle, `${name.slice(0, 254)}l`, name), 0);
    assert.equal(readLinkAt(folder.handle, `${name.slice(0, 254)}l`), name);
  }
  const found: string[] = [];
  assert.equal(readNames(folder.handle, found), 0);
  const expected = readdirSync(Buffer.from(folder.path), "buffer").map((name) => name.latin1Slice());
  assert.deepEqual(found.sort(), expected.sort());
  assert.equal(found.length, names.length * 2);
  assert.equal(makeDirectoryAt(folder.handle, "n".repeat(256), 0o700), failed("ENAMETOOLONG"));
});

test("readNames() lists a folder that takes several calls, with types", () => {
  using folder = new Folder();
  for (let at = 0; at < 3000; at++) writeFileSync(folder.at(`file with a name that takes some room ${at}`), "");
  mkdirSync(folder.at("dir"));
  symlinkSync("x", folder.at("link"));
  const names: string[] = [];
  const types: number[] = [];
  assert.equal(readNames(folder.handle, names, types), 0);
  assert.equal(new Set(names).size, 3002);
  assert.equal(types[names.indexOf("dir")], 4);
  assert.equal(types[names.indexOf("link")], 10);
  assert.equal(types.filter((type) => type === 8).length, 3000);
});

test("calls answer the negated errno, and never 0 for a failure", () => {
  using folder = new Folder();
  writeFileSync(folder.at("file"), "x");
  symlinkSync("file", folder.at("link"));
  const status = new FileStatus();
  assert.equal(openAt(folder.handle, "nothing", openFlags.readOnly), failed("ENOENT"));
  assert.equal(openAt(folder.handle, "file", openFlags.readOnly | openFlags.directory), failed("ENOTDIR"));
  assert.equal(openAt(folder.handle, "link", openFlags.readOnly | openFlags.noFollow), failed("ELOOP"));
  assert.equal(statAt(folder.handle, "nothing", status), failed("ENOENT"));
  assert.equal(statHandle(9999, status), failed("EBADF"));
  assert.equal(closeHandle(9999), failed("EBADF"));
  assert.equal(readLinkAt(folder.handle, "file"), failed("EINVAL"));
  assert.equal(readHandle(folder.handle, Buffer.alloc(10)), failed("EISDIR"));
  assert.equal(makeDirectoryAt(folder.handle, "file", 0o700), failed("EEXIST"));
  assert.equal(unlinkAt(folder.handle, "nothing"), failed("ENOENT"));
  assert.equal(seekTo(folder.handle, -1), failed("EINVAL"));
  assert.equal(listAttributes(folder.at("nothing")), failed("ENOENT"));
  assert.equal(readAttribute(folder.at("file"), "user.nothing"), failed("ENODATA"));
});

test("files are read, written and cut at positions beyond 4 GiB, and their holes are found", () => {
  using folder = new Folder();
  const far = 5 * 2 ** 30;
  const writing = openAt(folder.handle, "sparse", openFlags.writeOnly | openFlags.create | openFlags.exclusive, 0o600);
  assert.ok(writing >= 0);
  assert.equal(openAt(folder.handle, "sparse", openFlags.writeOnly | openFlags.create | openFlags.exclusive), failed("EEXIST"));
  assert.equal(writeHandleAt(writing, Buffer.from("far away"), far), 0);
  assert.equal(truncateHandle(writing, far + 2 ** 20), 0);
  assert.equal(syncHandle(writing), 0);
  assert.equal(closeHandle(writing), 0);
  const handle = openAt(folder.handle, "sparse", openFlags.readOnly);
  const target = Buffer.alloc(8);
  assert.equal(readHandleAt(handle, target, far), 8);
  assert.equal(target.toString(), "far away");
  assert.equal(seekTo(handle, far + 4), far + 4);
  assert.equal(readHandle(handle, target.subarray(0, 4)), 4);
  assert.equal(target.subarray(0, 4).toString(), "away");
  assert.equal(seekData(handle, 0), far);
  assert.equal(seekHole(handle, 0), 0);
  assert.ok(seekHole(handle, far) > far);
  assert.equal(seekData(handle, far + 2 ** 19), failed("ENXIO"));
  const status = new FileStatus();
  assert.equal(statHandle(handle, status), 0);
  assert.equal(status.sizeBytes, far + 2 ** 20);
  assert.equal(chmodHandle(handle, 0o604), 0);
  assert.equal(fstatSync(handle).mode & 0o777, 0o604);
  assert.equal(closeHandle(handle), 0);
});

test("entries are linked, renamed, removed and changed by name without following links", () => {
  using folder = new Folder();
  writeFileSync(folder.at("file"), "content");
  symlinkSync("file", folder.at("link"));
  const from = { directory: folder.handle, name: "file" };
  assert.equal(linkFile(from, { directory: folder.handle, name: "second" }), 0);
  assert.equal(linkFile({ directory: folder.handle, name: "link" }, { directory: folder.handle, name: "second link" }), 0);
  assert.equal(readlinkSync(folder.at("second link")), "file");
  assert.equal(renameFile({ directory: folder.handle, name: "second" }, { directory: folder.handle, name: "third" }), 0);
  assert.equal(readFileSync(folder.at("third"), "utf8"), "content");
  assert.equal(chmodAt(folder.handle, "third", 0o640), 0);
  assert.equal(lstatSync(folder.at("file")).mode & 0o7777, 0o640);
  mkdirSync(folder.at("dir"));
  assert.equal(unlinkAt(folder.handle, "dir", true), 0);
  assert.equal(unlinkAt(folder.handle, "third"), 0);
  assert.deepEqual(readdirSync(folder.path).sort(), ["file", "link", "second link"]);
});

test("chownAt() changes a link and not what it points to", { skip: needsRoot }, () => {
  using folder = new Folder();
  writeFileSync(folder.at("file"), "");
  symlinkSync("file", folder.at("link"));
  assert.equal(chownAt(folder.handle, "link", { uid: 12, gid: 4294967294 }), 0);
  assert.deepEqual([lstatSync(folder.at("link")).uid, lstatSync(folder.at("link")).gid], [12, 4294967294]);
  assert.equal(lstatSync(folder.at("file")).uid, 0);
});

test("openBeneath() opens what lies below, and nothing that a link or `..` leads to", () => {
  using folder = new Folder();
  mkdirSync(folder.at("a/b"), { recursive: true });
  writeFileSync(folder.at("a/b/file"), "x");
  symlinkSync("a", folder.at("link"));
  symlinkSync("/etc/passwd", folder.at("a/absolute"));
  const open = (path: string): number => openBeneath(folder.handle, path, openFlags.readOnly);
  const handle = open("a/b/file");
  assert.ok(handle >= 0);
  closeHandle(handle);
  assert.equal(open("link/b/file"), failed("ELOOP"));
  assert.equal(open("a/absolute"), failed("ELOOP"));
  assert.equal(open("../x"), failed("EXDEV"));
  assert.equal(open("/etc/passwd"), failed("EXDEV"));
  assert.equal(open("a/../../x"), failed("EXDEV"));
});

test("extended attributes are what setfattr and getfattr see", { skip: skipWithout("setfattr", "getfattr") }, () => {
  using folder = new Folder();
  writeFileSync(folder.at("file"), "");
  const path = folder.at("file");
  assert.deepEqual(listAttributes(path), []);
  execFileSync("setfattr", ["-n", "user.b", "-v", "0x00ff00", path]);
  execFileSync("setfattr", ["-n", "user.a", path]);
  assert.equal(writeAttribute(path, "user.long", Buffer.alloc(3000, 7)), 0);
  assert.deepEqual(listAttributes(path), ["user.a", "user.b", "user.long"]);
  assert.deepEqual(readAttribute(path, "user.b"), Buffer.from([0, 255, 0]));
  assert.deepEqual(readAttribute(path, "user.a"), Buffer.alloc(0));
  assert.deepEqual(readAttribute(path, "user.long"), Buffer.alloc(3000, 7));
  assert.equal(removeAttribute(path, "user.a"), 0);
  assert.match(execFileSync("getfattr", ["-d", path], { encoding: "utf8" }), /user\.long/);
  const kept = readAttribute(path, "user.b");
  readAttribute(path, "user.long");
  assert.deepEqual(kept, Buffer.from([0, 255, 0]), "the answer is the caller's own");
  assert.deepEqual(listAttributes(pathBelow(folder.handle, "file")), ["user.b", "user.long"]);
});

test("a link has its own attributes, not those of what it points to", { skip: needsRoot }, () => {
  using folder = new Folder();
  writeFileSync(folder.at("file"), "");
  symlinkSync("file", folder.at("link"));
  assert.equal(writeAttribute(folder.at("file"), "user.of the file", Buffer.from("x")), 0);
  assert.deepEqual(listAttributes(folder.at("link")), []);
  assert.equal(writeAttribute(folder.at("link"), "trusted.of the link", Buffer.from("x")), 0);
  assert.deepEqual(listAttributes(folder.at("link")), ["trusted.of the link"]);
});

test("findUserName() and findGroupName() know what getent knows, and nothing of unknown ids", () => {
  for (const line of readFileSync("/etc/passwd", "utf8").split("\n").filter(Boolean)) {
    const [name = "", , uid, gid] = line.split(":");
    const [first] = execFileSync("getent", ["passwd", String(uid)], { encoding: "utf8" }).split(":");
    assert.equal(findUserName(Number(uid)), first ?? name);
    assert.equal(typeof findGroupName(Number(gid)), "string");
  }
  for (const line of readFileSync("/etc/group", "utf8").split("\n").filter(Boolean)) {
    const [name = "", , gid] = line.split(":");
    assert.equal(findGroupName(Number(gid)), name);
  }
  assert.equal(findUserName(3_999_999_999), "");
  assert.equal(findGroupName(3_999_999_999), "");
});

test("findUserName() is not confused by another thread that asks at the same time", async () => {
  // Whoever asks for a user that there is not makes the C library read the names of all others.
  const code = `
    const { workerData, parentPort } = require("node:worker_threads");
    import(workerData).then(({ findUserName }) => {
      parentPort.postMessage("ready");
      for (let uid = 3_000_000_000; ; uid++) findUserName(uid);
    });`;
  const url = new URL("./libc.ts", import.meta.url).href;
  const noise = new Worker(code, { eval: true, workerData: url });
  try {
    await new Promise((resolve, reject) => noise.on("message", resolve).on("error", reject));
    for (let round = 0; round < 100; round++) {
      // A fresh module remembers no name.
      const fresh = (await import(`${url}?round=${round}`)) as { findUserName: typeof findUserName }; // the module under test
      assert.equal(fresh.findUserName(0), "root");
    }
  } finally {
    await noise.terminate();
  }
});

test("a descriptor that Node opened can be used, and the other way round", () => {
  using folder = new Folder();
  const own = openSync(folder.at("file"), "w+");
  writeSync(own, "from Node");
  const target = Buffer.alloc(20);
  assert.equal(readHandleAt(own, target, 0), 9);
  ftruncateSync(own, 4);
  assert.equal(readHandleAt(own, target, 0), 4);
  assert.equal(readHandleAt(own, target, 4), 0);
  closeSync(own);
});
