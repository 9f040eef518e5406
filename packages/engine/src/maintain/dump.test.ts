import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createWriteStream, lstatSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { after, before, describe, test } from "node:test";
import { inflateRawSync } from "node:zlib";
import { isFailure } from "@granary/base/errors";
import { skipWithout } from "@granary/base/testing";
import { type ByteString, fromBytes, fromUtf8, toBytes } from "../format/byte-string.ts";
import type { Repository } from "../repository/repository.ts";
import { loadSnapshots, type StoredSnapshot } from "../repository/snapshots.ts";
import { type DumpEvent, type DumpSubject, dumpTo, openDump } from "./dump.ts";
import { ResticRunner } from "./restic-runner.ts";
import { fillSampleFolder, isRoot } from "./sample-folder.ts";

describe("dump", { skip: skipWithout("restic", "setfattr", "setfacl", "tar") }, () => {
  let restic: ResticRunner;
  let repository: Repository;
  let snapshot: StoredSnapshot;
  let folder: string;

  before(async () => {
    restic = new ResticRunner();
    await restic.create();
    folder = restic.makeFolder("source");
    await fillSampleFolder(folder);
    restic.run("backup", folder);
    repository = await restic.open();
    snapshot = (await loadSnapshots(repository))[0] ?? assert.fail();
  });
  after(() => restic[Symbol.dispose]());

  const subject = (path: string, format: "tar" | "zip" = "tar"): DumpSubject => ({
    source: repository,
    tree: snapshot.tree,
    path: fromUtf8(path),
    format,
  });

  async function dumpToFile(name: string, what: DumpSubject, onEvent?: (event: DumpEvent) => void): Promise<string> {
    const path = `${restic.folder}/${name}`;
    const file = createWriteStream(path);
    await dumpTo(file, what, onEvent === undefined ? {} : { onEvent });
    assert.equal(file.writableEnded, false); // left open
    file.end();
    await finished(file);
    return path;
  }

  test("a file comes out as it went in, small, empty, sparse and large", async () => {
    for (const name of ["docs/notes.txt", "docs/empty.txt", "zeros.img", "big.bin", "setuid"]) {
      const path = await dumpToFile("file", subject(`${folder}/${name}`));
      assert.ok(readFileSync(path).equals(readFileSync(`${folder}/${name}`)), name);
      assert.ok(readFileSync(path).equals(Buffer.from(restic.read("dump", snapshot.id, `${folder}/${name}`), "latin1")), name);
    }
  });

  test("what is neither file nor folder, or not there, is refused before anything is written", async () => {
    for (const [path, code] of [
      ["link", "InvalidArgument"],
      ["pipe", "InvalidArgument"],
      ["nowhere", "PathNotFound"],
      ["big.bin/x", "PathNotFound"],
    ] as const) {
      await assert.rejects(openDump(subject(`${folder}/${path}`)), (error) => isFailure(error, code), path);
    }
    assert.equal((await openDump(subject("/"))).isArchive, true);
    assert.equal((await openDump(subject(`${folder}/setuid`))).isArchive, false);
  });

  test("a folder as tar unpacks to what it was, with modes, owners, times in nanoseconds, attributes, ACLs and devices", async () => {
    const skipped: string[] = [];
    const path = await dumpToFile(
      "ours.tar",
      subject(folder),
      (event) => void (event.kind === "skipped" && skipped.push(`${event.type} ${event.path}`)),
    );
    assert.deepEqual(skipped, []); // restic stores no sockets
    const target = unpackTar(restic, path, "ours");
    const [found, expected] = [describeFolder(`${target}${folder}`), describeFolder(folder)];
    expected.delete("socket");
    // restic 0.14 keeps only what is UTF-8 of a link's target
    const [foundLink, expectedLink] = [found, expected].map((map) => map.get("odd-link") as Record<string, unknown>); // made by describeFolder()
    assert.deepEqual({ ...foundLink, target: "", size: 0 }, { ...expectedLink, target: "", size: 0 });
    for (const map of [found, expected]) map.delete("odd-link");
    assert.deepEqual(found, expected);
    assert.ok(found.size >= 30 && (!isRoot || found.has("disk")));
  });

  test("a folder as tar has what restic's tar has", async () => {
    const theirs = `${restic.folder}/theirs.tar`;
    const out = execFileSync("restic", ["--no-cache", "--no-lock", "dump", snapshot.id, `${folder}/docs`], {
      env: restic.environment(),
      maxBuffer: 2 ** 28,
    });
    writeFileSync(theirs, out);
    const ours = await dumpToFile("docs.tar", subject(`${folder}/docs`));
    const list = (path: string): string[] =>
      execFileSync("tar", ["--utc", "--numeric-owner", "--xattrs", "--acls", "-tvvf", path], { encoding: "latin1" }).trim().split("\n");
    assert.deepEqual(list(ours), list(theirs));
    assert.deepEqual(
      describeFolder(`${unpackTar(restic, ours, "docs-ours")}${folder}/docs`, true),
      describeFolder(`${unpackTar(restic, theirs, "docs-theirs")}${folder}/docs`, true),
    );
  });

  test("a folder as zip has the same files, links and modes as restic's zip and as the folder", async () => {
    const skipped: string[] = [];
    const ours = readZip(
      readFileSync(
        await dumpToFile("ours.zip", subject(folder, "zip"), (event) => void (event.kind === "skipped" && skipped.push(event.type))),
      ),
    );
    const out = execFileSync("restic", ["--no-cache", "--no-lock", "dump", "-a", "zip", snapshot.id, folder], {
      env: restic.environment(),
      maxBuffer: 2 ** 28,
    });
    const theirs = readZip(out);
    assert.deepEqual([...new Set(skipped)].sort(), isRoot ? ["chardev", "dev", "fifo"] : ["fifo"]);
    for (const [name, entry] of theirs) if ((entry.mode & 0o170000) !== 0o100000 && !/\/$|link$/.test(name)) theirs.delete(name);
    assert.deepEqual([...ours.keys()], [...theirs.keys()]);
    for (const [name, { content, mode, isUtf8 }] of ours) {
      const there = theirs.get(name) ?? assert.fail();
      assert.ok(content.equals(there.content), name);
      assert.equal(mode, there.mode, name);
      assert.equal(isUtf8, name.endsWith("caf\xc3\xa9"), name);
    }
    assert.equal(ours.get(`${folder.slice(1)}/link`)?.content.toString(), "docs/notes.txt");
  });

  test("unzip accepts the zip and finds the times in it", { skip: skipWithout("unzip") }, async () => {
    const path = await dumpToFile("docs.zip", subject(`${folder}/docs`, "zip"));
    execFileSync("unzip", ["-tq", path]);
    const target = restic.makeFolder("unzipped");
    execFileSync("unzip", ["-q", path, "-d", target], { env: { ...process.env, TZ: "UTC" } });
    for (const name of ["Read Me.MD", "deep/er/still/leaf.txt"]) {
      assert.equal(
        Math.floor(statSync(`${target}${folder}/docs/${name}`).mtimeMs / 1000),
        Math.floor(statSync(`${folder}/docs/${name}`).mtimeMs / 1000),
        name,
      );
    }
  });

  test("a slow reader is waited for, and one that goes away ends the dump", async () => {
    let takenBytes = 0;
    const slow = new Writable({
      highWaterMark: 1,
      write(chunk: Buffer, _encoding, done) {
        takenBytes += chunk.length;
        setTimeout(takenBytes > 3_000_000 ? () => done(new Error("the pipe is closed")) : done, 1);
      },
    });
    await assert.rejects(dumpTo(slow, subject(folder)), /the pipe is closed/);
    assert.ok(takenBytes < 8_000_000);
    const abort = new AbortController();
    const cancelling = new Writable({
      write(_chunk, _encoding, done) {
        abort.abort();
        done();
      },
    });
    await assert.rejects(dumpTo(cancelling, subject(folder), { signal: abort.signal }));
  });

  test("a damaged blob ends the dump with its name", async () => {
    const packs = readdirSync(`${restic.location}/data`, { recursive: true, encoding: "utf8" }).filter((name) => name.length > 60);
    const biggest =
      packs.map((name) => `${restic.location}/data/${name}`).sort((a, b) => statSync(b).size - statSync(a).size)[0] ?? assert.fail();
    const bytes = readFileSync(biggest);
    const damaged = Buffer.from(bytes);
    for (let at = 0; at < bytes.length; at += 50_000) damaged[at] = (damaged[at] ?? 0) ^ 1;
    execFileSync("chmod", ["u+w", biggest]);
    writeFileSync(biggest, damaged);
    try {
      await assert.rejects(dumpToFile("never", subject(`${folder}/big.bin`)), (error) => isFailure(error, "BlobInvalid"));
    } finally {
      writeFileSync(biggest, bytes);
    }
    await dumpToFile("again", subject(`${folder}/big.bin`));
  });
});

function unpackTar(restic: ResticRunner, archive: string, name: string): string {
  const target = restic.makeFolder(name);
  const args = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--same-owner", "-xpf", archive, "-C", target];
  const done = execFileSync("tar", args, { stdio: ["ignore", "pipe", "pipe"] });
  assert.equal(done.length, 0);
  return target;
}

/** Everything about each entry below a folder, by its path. @param isCoarse leaves out what restic's tar does not keep */
function describeFolder(folder: string, isCoarse = false): Map<ByteString, unknown> {
  const found = new Map<ByteString, unknown>();
  const walk = (path: Buffer, prefix: ByteString): void => {
    for (const name of readdirSync(path, { encoding: "buffer" })) {
      const full = Buffer.concat([path, Buffer.from("/"), name]);
      const shown = prefix + fromBytes(name);
      const stats = lstatSync(full, { bigint: true });
      const mtime = isCoarse ? roundToSeconds(stats.mtimeNs) : stats.mtimeNs;
      found.set(shown, {
        mode: stats.mode,
        owner: [stats.uid, stats.gid],
        mtime,
        size: stats.isDirectory() ? 0n : stats.size,
        device: stats.rdev,
        target: stats.isSymbolicLink() ? fromBytes(readlinkSync(full, { encoding: "buffer" })) : "",
        content: stats.isFile() ? readFileSync(full).toString("base64") : "",
        attributes: stats.isFile() || stats.isDirectory() ? readAttributes(full) : "",
      });
      if (stats.isDirectory()) walk(full, `${shown}/`);
    }
  };
  walk(Buffer.from(folder), "");
  return found;
}

/** The nearest second, halves up, as restic's tar has it. */
function roundToSeconds(timeNs: bigint): bigint {
  const farNs = 10n ** 20n;
  return (timeNs + 500_000_000n + farNs) / 1_000_000_000n - farNs / 1_000_000_000n;
}

/** Attributes and ACLs as getfattr prints them. */
function readAttributes(path: Buffer): string {
  // a shell takes any bytes, which a list of texts cannot hold
  const quoted = `'${fromBytes(path).replaceAll("'", `'\\''`)}'`;
  const script = toBytes(`getfattr --absolute-names -d -m - -e hex ${quoted} | grep -v '^#'`);
  return execFileSync("sh", ["-s"], { input: Buffer.concat([script, Buffer.from(" || true\n")]), encoding: "latin1" });
}

interface ZipEntry {
  readonly mode: number;
  readonly isUtf8: boolean;
  readonly content: Buffer;
}

/** Reads a zip by its central directory; knows no zip64. */
function readZip(zip: Buffer): Map<ByteString, ZipEntry> {
  const endAt = zip.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]));
  const entries = new Map<ByteString, ZipEntry>();
  let at = zip.readUInt32LE(endAt + 16);
  for (let i = 0; i < zip.readUInt16LE(endAt + 10); i++) {
    assert.equal(zip.readUInt32LE(at), 0x02014b50);
    const [nameBytes, extraBytes, commentBytes] = [zip.readUInt16LE(at + 28), zip.readUInt16LE(at + 30), zip.readUInt16LE(at + 32)];
    const name = zip.latin1Slice(at + 46, at + 46 + nameBytes);
    const localAt = zip.readUInt32LE(at + 42);
    assert.equal(zip.readUInt32LE(localAt), 0x04034b50);
    assert.equal(zip.latin1Slice(localAt + 30, localAt + 30 + zip.readUInt16LE(localAt + 26)), name);
    const contentAt = localAt + 30 + zip.readUInt16LE(localAt + 26) + zip.readUInt16LE(localAt + 28);
    const stored = zip.subarray(contentAt, contentAt + zip.readUInt32LE(at + 20));
    const content = zip.readUInt16LE(at + 10) === 8 ? inflateRawSync(stored) : stored;
    assert.equal(content.length, zip.readUInt32LE(at + 24));
    entries.set(name, { mode: zip.readUInt16LE(at + 40), isUtf8: (zip.readUInt16LE(at + 8) & 0x800) !== 0, content });
    at += 46 + nameBytes + extraBytes + commentBytes;
  }
  assert.equal(at, endAt);
  return entries;
}
