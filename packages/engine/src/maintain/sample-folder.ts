/** For tests: a folder with every kind of entry, names of any bytes, attributes, and content that repeats. */
import { execFileSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { chmodSync, linkSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { toBytes } from "../format/byte-string.ts";

/** A path of raw bytes: a folder that is text, and below it any bytes. */
function at(folder: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${folder}/`), toBytes(name)]);
}

function run(program: string, ...args: readonly string[]): void {
  execFileSync(program, args, { stdio: ["ignore", "ignore", "pipe"] });
}

/** Whether this process may make devices and change owners. */
export const isRoot: boolean = process.getuid?.() === 0;

/** Fills a folder, which must be empty. */
export async function fillSampleFolder(folder: string): Promise<void> {
  const big = Buffer.alloc(6 * 2 ** 20);
  randomFillSync(big, 0, 4 * 2 ** 20);
  mkdirSync(`${folder}/docs/deep/er/still`, { recursive: true });
  mkdirSync(`${folder}/empty`);
  mkdirSync(`${folder}/same-1/inner`, { recursive: true });
  mkdirSync(`${folder}/same-2/inner`, { recursive: true });
  writeFileSync(`${folder}/big.bin`, big);
  writeFileSync(`${folder}/zeros.img`, Buffer.alloc(9 * 2 ** 20));
  writeFileSync(`${folder}/docs/notes.txt`, "notes\n");
  writeFileSync(`${folder}/docs/Read Me.MD`, "# read me\n");
  writeFileSync(`${folder}/docs/deep/er/still/leaf.txt`, "leaf\n".repeat(1000));
  writeFileSync(`${folder}/docs/empty.txt`, "");
  for (const one of ["same-1", "same-2"]) {
    writeFileSync(`${folder}/${one}/inner/copy.txt`, "the same in two places\n");
    writeFileSync(`${folder}/${one}/twin.bin`, big.subarray(0, 300_000));
  }
  linkSync(`${folder}/docs/notes.txt`, `${folder}/docs/notes-hard-link.txt`);
  symlinkSync("docs/notes.txt", `${folder}/link`);
  symlinkSync(toBytes("no such \xff\xfe place"), at(folder, "odd-link"));
  writeFileSync(at(folder, "caf\xc3\xa9"), "utf-8 name\n");
  writeFileSync(at(folder, "caf\xe9"), "latin-1 name\n");
  writeFileSync(at(folder, 'quo"te\\back\nline'), "odd name\n");
  writeFileSync(`${folder}/${"long".repeat(60)}`, "long name\n");
  mkdirSync(`${folder}/${"d".repeat(90)}/${"e".repeat(90)}`, { recursive: true });
  writeFileSync(`${folder}/${"d".repeat(90)}/${"e".repeat(90)}/file`, "long path\n");
  writeFileSync(`${folder}/setuid`, "#!/bin/sh\n");
  chmodSync(`${folder}/setuid`, 0o6755);
  chmodSync(`${folder}/empty`, 0o1777);
  run("mkfifo", `${folder}/pipe`);
  if (isRoot) run("mknod", `${folder}/null`, "c", "1", "3");
  if (isRoot) run("mknod", `${folder}/disk`, "b", "259", "65537");
  await makeSocket(`${folder}/socket`);
  run("setfattr", "-n", "user.note", "-v", "0x00ff3d0a25", `${folder}/docs/notes.txt`);
  run("setfattr", "-n", "user.per%cent", "-v", "text", `${folder}/docs`);
  run("setfacl", "-m", "u:1234:r-x,g:4321:rwx", `${folder}/docs/Read Me.MD`);
  run("setfacl", "-d", "-m", "u:77:rw-", `${folder}/docs/deep`);
  run("touch", "-d", "2001-02-03 04:05:06.123456789", `${folder}/docs/Read Me.MD`);
  run("touch", "-d", "1965-04-03 02:01:00.5", `${folder}/docs/empty.txt`);
  run("touch", "-h", "-d", "2020-02-29 12:00:00.000000001", `${folder}/link`);
}

/** Changes it in every way that a comparison tells apart. */
export function changeSampleFolder(folder: string): void {
  const more = Buffer.alloc(1_000_000);
  randomFillSync(more);
  writeFileSync(`${folder}/added.bin`, more);
  mkdirSync(`${folder}/new-dir/sub`, { recursive: true });
  writeFileSync(`${folder}/new-dir/sub/file`, "new\n");
  // what was in one place only is in two now
  writeFileSync(`${folder}/new-dir/copy.txt`, "the same in two places\n");
  writeFileSync(`${folder}/docs/deep/er/still/leaf.txt`, "other\n");
  rmSync(`${folder}/same-2`, { recursive: true });
  rmSync(`${folder}/docs/empty.txt`);
  rmSync(`${folder}/link`);
  mkdirSync(`${folder}/link`);
  rmSync(`${folder}/pipe`);
  symlinkSync("elsewhere", `${folder}/pipe`);
  chmodSync(`${folder}/setuid`, 0o644);
  run("setfattr", "-n", "user.note", "-v", "changed", `${folder}/docs/notes.txt`);
}

/** A socket stays behind in the file system when its server is gone, if the process does not remove it; so a child makes it. */
async function makeSocket(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  // renamed, so that closing the server does not remove it
  run("mv", path, `${path}.kept`);
  await new Promise((resolve) => {
    server.close(resolve);
  });
  run("mv", `${path}.kept`, path);
}
