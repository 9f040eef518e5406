/** A folder with one of everything that a file system can hold, for backups that must keep it. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createCipheriv, createHash } from "node:crypto";
import { makeNodeAt, setTimesAt, workingDirectory } from "../src/native/libc.ts";
import type { ByteString } from "../src/format/byte-string.ts";

/** What this process may make. */
export const isRoot: boolean = process.getuid?.() === 0;

/** Bytes that look random and are the same each time. */
export function fillBytes(sizeBytes: number, seed: string): Buffer {
  const key = createHash("sha256").update(seed).digest();
  return createCipheriv("aes-256-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
}

/** Sets both times of an entry, of a link itself too. */
export function setTimes(path: ByteString, seconds: number, nanos: number): void {
  const times = { atimeSeconds: seconds, atimeNanos: nanos, mtimeSeconds: seconds, mtimeNanos: nanos };
  const status = setTimesAt(workingDirectory, path, times);
  if (status < 0) throw new Error(`Cannot set the times of ${path}: error ${-status}`);
}

const raw = (path: ByteString): Buffer => Buffer.from(path, "latin1");

/** Every byte that a name can hold, in names of at most 64 bytes; and names that look like something else. */
export const oddNames: readonly ByteString[] = [
  ...[0, 64, 128, 192].map((from) =>
    Array.from({ length: 64 }, (_, at) => from + at)
      .filter((byte) => byte !== 0 && byte !== 0x2f)
      .map((byte) => String.fromCharCode(byte))
      .join(""),
  ),
  "new\nline",
  " leading and trailing space ",
  "back\\slash",
  '"quoted"',
  "\\x41",
  "\\u0041",
  "a<&>b",
  "\xe2\x80\xa8line separator",
  "\xc3\xa4 umlaut",
  "a\xcc\x88 combined",
  "\xed\xa0\x80 surrogate",
  "\xf4\x90\x80\x80 beyond",
  "\xff\xfe",
  "...",
  "..a",
  ".",
  "-rf",
  "*",
  "n".repeat(255),
  "\xff".repeat(255),
].filter((name) => name !== ".");

/**
 * Fills an empty folder.
 *
 * @param folder ASCII, shorter than 200 characters
 */
export function makeSampleTree(folder: string): void {
  const at = (name: string): string => `${folder}/${name}`;
  mkdirSync(at("empty folder"));
  writeFileSync(at("empty"), "");
  writeFileSync(at("one byte"), "x");
  writeFileSync(at("small"), fillBytes(5000, "small"));
  writeFileSync(at("compressible"), "all work and no play makes Jack a dull boy\n".repeat(60_000));
  writeFileSync(at("large"), fillBytes(11 << 20, "large"));
  for (const sizeBytes of [512 * 1024 - 1, 512 * 1024, 512 * 1024 + 1, 8 << 20])
    writeFileSync(at(`of ${sizeBytes}`), fillBytes(sizeBytes, "sized"));
  makeSparse(at("hole at both ends"), 9 << 20, [[3 << 20, 70_000]]);
  makeSparse(at("only a hole"), 20 << 20, []);
  makeSparse(at("holes between"), (30 << 20) + 123, [
    [0, 4096],
    [10 << 20, 1 << 20],
    [(30 << 20) + 100, 23],
  ]);

  mkdirSync(at("names"));
  for (const name of oddNames) writeFileSync(raw(`${folder}/names/${name}`), name, { encoding: "latin1" });
  for (const name of oddNames.slice(0, 4)) mkdirSync(raw(`${folder}/names/dir ${name}`));

  mkdirSync(at("links"));
  symlinkSync("../small", at("links/to small"));
  symlinkSync("nowhere", at("links/dangling"));
  symlinkSync("links", at("links/to itself"));
  symlinkSync("..", at("links/to a folder"));
  symlinkSync(raw("caf\xe9/\xff\xfe"), at("links/not UTF-8"));
  symlinkSync("t".repeat(4095), at("links/longest"));

  mkdirSync(at("hard"));
  linkSync(at("small"), at("hard/small again"));
  linkSync(at("large"), at("hard/large again"));
  linkSync(at("links/dangling"), at("hard/dangling again"));
  makeNode(at("fifo"), 0o010644, 0n);
  linkSync(at("fifo"), at("hard/fifo again"));
  makeNode(at("socket"), 0o140600, 0n);

  mkdirSync(at("modes"));
  for (const mode of [0o000, 0o100, 0o444, 0o777, 0o4755, 0o2755, 0o1777, 0o7000]) {
    writeFileSync(at(`modes/file ${mode.toString(8)}`), "m");
    chmodSync(at(`modes/file ${mode.toString(8)}`), mode);
    mkdirSync(at(`modes/dir ${mode.toString(8)}`));
    chmodSync(at(`modes/dir ${mode.toString(8)}`), mode);
  }
  if (isRoot) {
    makeNode(at("zero"), 0o020666, 0x105n);
    makeNode(at("block device"), 0o060660, (259n << 8n) | 7n);
    makeNode(at("large numbers"), 0o060660, (0xfffn << 8n) | 0xffn | (0xfffn << 20n));
    writeFileSync(at("owned"), "o");
    chownSync(at("owned"), 12345, 54321);
    writeFileSync(at("owned by the largest id"), "o");
    chownSync(at("owned by the largest id"), 4294967294, 4294967294);
    symlinkSync("owned", at("owned link"));
    lchownSync(at("owned link"), 1, 2);
  }
  setAttributes(folder);
  setSampleTimes(folder);
}

function makeNode(path: string, mode: number, device: bigint): void {
  const status = makeNodeAt(workingDirectory, path, { mode, device });
  if (status < 0) throw new Error(`Cannot make ${path}: error ${-status}`);
  chmodSync(path, mode & 0o7777);
}

/** Makes a file of which only the given spans, offset and length, are there. */
export function makeSparse(path: string, sizeBytes: number, spans: readonly (readonly [number, number])[]): void {
  const file = openSync(path, "w");
  for (const [offset, length] of spans) writeSync(file, fillBytes(length, `${offset}`), 0, length, offset);
  ftruncateSync(file, sizeBytes);
  closeSync(file);
}

function setAttributes(folder: string): void {
  writeFileSync(`${folder}/attributes`, "x");
  mkdirSync(`${folder}/attributes folder`);
  const set = (name: string, value: string, path: string): void => {
    execFileSync("setfattr", ["-h", "-n", name, "-v", value, `${folder}/${path}`]);
  };
  set("user.plain", "value", "attributes");
  set("user.empty", "", "attributes");
  set("user.bytes", "0x00ff0a22", "attributes");
  set("user.long", `0x${"ab".repeat(2000)}`, "attributes");
  set("user.folder", "of a folder", "attributes folder");
  if (isRoot) {
    set("trusted.of root", "0x01", "attributes");
    set("security.capability", "0x0100000200040000000000000000000000000000", "attributes");
  }
  execFileSync("setfacl", ["-m", "u:12:rwx,g:34:r--,m::r-x", `${folder}/attributes`]);
  execFileSync("setfacl", ["-m", "u:56:r-x", "-d", "-m", "u:78:rwx", `${folder}/attributes folder`]);
}

/** Times before 1970, far away, and to the nanosecond, of files, links and at last of folders. */
function setSampleTimes(folder: string): void {
  mkdirSync(`${folder}/times`);
  const times: readonly (readonly [string, number, number])[] = [
    ["nanosecond", 1_700_000_000, 1],
    ["almost a second", 1_700_000_000, 999_999_999],
    ["1970", 0, 0],
    ["before 1970", -1, 999_999_999],
    ["1901", -2_147_483_648, 5],
    ["2038", 2_147_483_648, 0],
    ["2100", 4_102_444_800, 123_456_789],
  ];
  for (const [name, seconds, nanos] of times) {
    writeFileSync(`${folder}/times/${name}`, name);
    setTimes(`${folder}/times/${name}`, seconds, nanos);
  }
  symlinkSync("1970", `${folder}/times/link`);
  setTimes(`${folder}/times/link`, 86_400, 7);
  setTimes(`${folder}/links/dangling`, -5, 3);
  setTimes(`${folder}/fifo`, 1_600_000_000, 5);
  setTimes(`${folder}/times`, -86_400, 11);
  setTimes(`${folder}/empty folder`, 1_500_000_000, 500_000_000);
  setTimes(folder, 1_400_000_000, 400_000_001);
}
