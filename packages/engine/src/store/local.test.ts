import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readFile, readdir, rename, rm, rmdir, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, describe, test } from "node:test";
import { promisify } from "node:util";
import { isFailure } from "@granary/base/errors";
import { testStore } from "./conformance.ts";
import { fileKinds } from "./layout.ts";
import { openLocalStore } from "./local.ts";
import type { FileKind, FileRef, Store } from "./store.ts";

const run = promisify(execFile);
const fails = (code: string) => (error: unknown) => isFailure(error, code);

testStore("the local store", {
  open: async () => openLocalStore(join(await mkdtemp(join(tmpdir(), "granary-store-")), "deep", "repository")),
  openAgain: async (store) => openLocalStore(store.location),
  async close(store) {
    await store.close();
    await rm(join(store.location, "..", ".."), { recursive: true });
  },
});

function refOf(kind: FileKind, data: Uint8Array): FileRef {
  return { kind, name: createHash("sha256").update(data).digest("hex") };
}

async function makeFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "granary-store-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function findFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

describe("openLocalStore()", () => {
  test("lays files and modes out as restic does", async (t) => {
    const folder = await makeFolder(t);
    const store = openLocalStore(join(folder, "r"));
    await store.create();
    const data = Buffer.from("pack");
    const ref = refOf("pack", data);
    await store.save(ref, data);
    await store.save({ kind: "config", name: "" }, data);
    await store.save({ ...ref, kind: "lock" }, data);

    assert.deepEqual((await readdir(store.location)).sort(), ["config", "data", "index", "keys", "locks", "snapshots"]);
    assert.equal((await readdir(join(store.location, "data"))).length, 256);
    const path = join(store.location, "data", ref.name.slice(0, 2), ref.name);
    assert.equal(store.pathOf(ref), path);
    assert.deepEqual(await readFile(path), data);
    for (const file of await findFiles(store.location)) assert.equal((await stat(file)).mode & 0o777, 0o400, file);
    for (const name of ["", "data", "data/00", "locks"]) assert.equal((await stat(join(store.location, name))).mode & 0o777, 0o700, name);
  });

  test("gives the group what it has on the config, whatever the umask", async (t) => {
    const folder = await makeFolder(t);
    const first = openLocalStore(folder);
    await first.create();
    await first.save({ kind: "config", name: "" }, Buffer.from("config"));
    await chmod(join(folder, "config"), 0o440);
    const data = Buffer.from("pack");
    const ref = refOf("pack", data);
    await rmdir(join(folder, "data", ref.name.slice(0, 2)));
    const before = process.umask(0o077);
    try {
      await openLocalStore(folder).save(ref, data);
    } finally {
      process.umask(before);
    }
    assert.equal((await stat(first.pathOf(ref))).mode & 0o777, 0o440);
    assert.equal((await stat(join(first.pathOf(ref), ".."))).mode & 0o777, 0o750);
  });

  test("makes missing folders beside a config, and none without one", async (t) => {
    const folder = await makeFolder(t);
    const store = openLocalStore(folder);
    const data = Buffer.from("pack");
    for (const kind of ["pack", "index"] as const) {
      await assert.rejects(store.save(refOf(kind, data), data), /mount it/);
    }
    assert.deepEqual(await readdir(folder), []);
    await assert.rejects(openLocalStore(join(folder, "none")).save(refOf("index", data), data), fails("StoreUnavailable"));

    await writeFile(join(folder, "config"), "config");
    await store.save(refOf("pack", data), data);
    await store.save(refOf("index", data), data);
    assert.deepEqual((await readdir(folder)).sort(), ["config", "data", "index"]);
    assert.equal((await Array.fromAsync(store.list("pack"))).length, 1);
    assert.equal((await Array.fromAsync(store.list("snapshot"))).length, 0);
  });

  test("lists nothing but whole files of the layout", async (t) => {
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    const data = Buffer.from("pack");
    const ref = refOf("pack", data);
    await store.save(ref, data);
    const path = store.pathOf(ref);
    await writeFile(`${path}-tmp-0011223344`, "half");
    await writeFile(join(path, "..", "README"), "x");
    await mkdir(join(path, "..", "0".repeat(64)));
    await symlink("nowhere", join(path, "..", "1".repeat(64)));
    await writeFile(join(store.location, "data", "2".repeat(64)), "x");
    await writeFile(join(store.location, "data", "22", "3".repeat(64)), "wrong folder: cannot be loaded");
    assert.deepEqual(await Array.fromAsync(store.list("pack")), [{ name: ref.name, sizeBytes: 4 }]);
  });

  test("follows links to folders on other disks", async (t) => {
    const folder = await makeFolder(t);
    const store = openLocalStore(join(folder, "r"));
    await store.create();
    await rename(join(folder, "r", "data"), join(folder, "elsewhere"));
    await symlink(join(folder, "elsewhere"), join(folder, "r", "data"));
    const data = Buffer.from("pack");
    await store.save(refOf("pack", data), data);
    assert.equal((await Array.fromAsync(store.list("pack"))).length, 1);
  });

  test("makes a file durable that another program put there", async (t) => {
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    const data = randomBytes(3 << 20);
    const ref = refOf("pack", data);
    await writeFile(store.pathOf(ref), data);
    await store.save(ref, data);
    assert.equal((await findFiles(store.location)).length, 1);
  });

  test("never replaces a shorter, longer or empty file of the name", async (t) => {
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    const data = randomBytes(2_000_000);
    for (const present of [
      Buffer.alloc(0),
      data.subarray(0, 1_999_999),
      Buffer.concat([data, Buffer.from("x")]),
      Buffer.concat([data.subarray(0, 1_999_999), Buffer.from([(data[1_999_999] ?? 0) ^ 1])]),
    ]) {
      const ref = refOf("pack", data);
      await writeFile(store.pathOf(ref), present);
      await assert.rejects(store.save(ref, data), fails("StoreFileExists"));
      assert.deepEqual(await readFile(store.pathOf(ref)), present);
      await rm(store.pathOf(ref));
    }
  });

  test("of saves of different content under one name at once, one wins and the others fail", async (t) => {
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    for (let round = 0; round < 20; round++) {
      const ref = refOf("lock", Buffer.from([round]));
      const contents = Array.from({ length: 6 }, () => randomBytes(1000));
      const results = await Promise.allSettled(contents.map((data) => store.save(ref, data)));
      const winners = results.flatMap((result, i) => (result.status === "fulfilled" ? [i] : []));
      assert.equal(winners.length, 1);
      assert.deepEqual(Buffer.from(await store.load(ref)), contents[winners[0] ?? 0]);
      for (const result of results) if (result.status === "rejected") assert.ok(isFailure(result.reason, "StoreFileExists"));
    }
    assert.equal((await findFiles(store.location)).length, 20);
  });

  test("quarantine() keeps every generation of a file, with its bytes", async (t) => {
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    const ref = refOf("pack", Buffer.from("name"));
    for (const text of ["first", "second", "third"]) {
      await store.save(ref, Buffer.from(text));
      await store.quarantine(ref);
    }
    const folder = join(store.location, "quarantine", "pack");
    assert.deepEqual((await readdir(folder)).sort(), [ref.name, `${ref.name}.1`, `${ref.name}.2`]);
    assert.equal(await readFile(join(folder, `${ref.name}.1`), "utf8"), "second");
    assert.deepEqual(await Array.fromAsync(store.list("pack")), []);
  });

  test("removeLeftovers() removes old temporary files of every folder, and nothing else", async (t) => {
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    const data = Buffer.from("data");
    const ref = refOf("pack", data);
    await store.save(ref, data);
    await store.save({ kind: "config", name: "" }, data);
    const old = [
      `${store.pathOf(ref)}-tmp-0a1b2c`,
      join(store.location, "config-tmp-99"),
      `${store.pathOf({ ...ref, kind: "index" })}-tmp-123456789`,
    ];
    const others = [`${store.pathOf(ref)}-tmp-fresh0`.replace("fresh0", "ffffff"), join(store.location, "index", "notes.txt")];
    for (const path of [...old, ...others]) await writeFile(path, "x");
    for (const path of [...old, others[1] ?? "", store.pathOf(ref)]) await utimes(path, 1_000_000, 1_000_000);
    assert.equal(await store.removeLeftovers(1_000_000_001), 3);
    assert.deepEqual((await findFiles(store.location)).sort(), [...others, store.pathOf(ref), join(store.location, "config")].sort());
    assert.equal(await openLocalStore(join(store.location, "none")).removeLeftovers(Infinity), 0);
  });

  test("says which file, where and why when the system fails", async (t) => {
    if (process.platform !== "linux") return t.skip("needs /proc/self/mem to read an I/O error from");
    const store = openLocalStore(await makeFolder(t));
    await store.create();
    const ref = refOf("index", Buffer.from("x"));
    await symlink("/proc/self/mem", store.pathOf(ref));
    await assert.rejects(store.load(ref, { offsetBytes: 0, lengthBytes: 10 }), (error) => {
      assert.ok(isFailure(error, "StoreUnavailable"));
      assert.match(error.message, /Cannot load index "[0-9a-f]{64}" in .*EIO/);
      assert.equal(error.details["system"], "EIO");
      return true;
    });
  });
});

describe("a local store on a small file system", () => {
  test("that is full fails saves with StoreFull, loses nothing, and goes on once there is room", async (t) => {
    const folder = await mountSmall(t, "4m");
    if (folder === undefined) return;
    const store = openLocalStore(join(folder, "r"));
    await store.create();
    await store.save({ kind: "config", name: "" }, Buffer.from("config"));
    const kept = new Map<string, Buffer>();
    let isFull = false;
    for (let i = 0; i < 40 && !isFull; i++) {
      const data = randomBytes(300_000);
      const ref = refOf("pack", data);
      try {
        await store.save(ref, data);
        kept.set(ref.name, data);
      } catch (error) {
        assert.ok(isFailure(error, "StoreFull"), String(error));
        assert.match(error.message, /Cannot save pack "[0-9a-f]{64}" in .*ENOSPC/);
        isFull = true;
      }
    }
    assert.ok(isFull && kept.size > 5);
    assert.equal((await findFiles(join(folder, "r"))).length, kept.size + 1, "no temporary file is left");

    // Room for a few small files only, then for none: each save is whole or absent.
    for (let i = 0; i < 400; i++) {
      const data = randomBytes(4000);
      const ref = refOf("lock", data);
      await store.save(ref, data).then(
        () => kept.set(ref.name, data),
        (error: unknown) => assert.ok(isFailure(error, "StoreFull"), String(error)),
      );
    }
    for (const kind of fileKinds)
      for await (const entry of store.list(kind))
        if (kind !== "config") assert.deepEqual(Buffer.from(await store.load({ kind, name: entry.name })), kept.get(entry.name));
    const large = [...kept].find(([, data]) => data.length === 300_000);
    assert.ok(large !== undefined);
    await store.remove({ kind: "pack", name: large[0] });
    await store.save({ kind: "pack", name: large[0] }, large[1]);
    assert.deepEqual(Buffer.from(await store.load({ kind: "pack", name: large[0] })), large[1]);
  });

  test("that has no inodes left fails saves and create() with StoreFull", async (t) => {
    const folder = await mountSmall(t, "4m,nr_inodes=300");
    if (folder === undefined) return;
    const store = openLocalStore(join(folder, "r"));
    await store.create();
    for (let i = 0; ; i++) {
      const data = Buffer.from(`${i}`);
      const outcome: unknown = await store.save(refOf("lock", data), data).catch((error: unknown) => error);
      if (outcome === undefined) continue;
      assert.ok(isFailure(outcome, "StoreFull"));
      break;
    }
    await assert.rejects(openLocalStore(join(folder, "another")).create(), fails("StoreFull"));
  });

  test("that is read-only fails saves, removal and quarantine with StoreDenied and still loads", async (t) => {
    const folder = await mountSmall(t, "4m");
    if (folder === undefined) return;
    const store = openLocalStore(folder);
    await store.create();
    const data = Buffer.from("data");
    const ref = refOf("pack", data);
    await store.save(ref, data);
    await run("mount", ["-o", "remount,ro", folder]);
    await assert.rejects(store.save(refOf("lock", data), data), fails("StoreDenied"));
    await assert.rejects(store.remove(ref), fails("StoreDenied"));
    await assert.rejects(store.quarantine(ref), fails("StoreDenied"));
    assert.deepEqual(Buffer.from(await store.load(ref)), data);
  });
});

describe("a local store on a file system without hard links", () => {
  test("saves, refuses, lists and quarantines as everywhere", async (t) => {
    const folder = await mountWithoutLinks(t);
    if (folder === undefined) return;
    const store = openLocalStore(join(folder, "r"));
    await store.create();
    const data = randomBytes(200_000);
    await store.save({ kind: "config", name: "" }, data);
    for (const kind of ["pack", "lock"] as const) {
      const ref = refOf(kind, data);
      await store.save(ref, data);
      await store.save(ref, data);
      await assert.rejects(store.save(ref, data.subarray(1)), fails("StoreFileExists"));
      assert.deepEqual(Buffer.from(await store.load(ref)), data);
      assert.deepEqual(await Array.fromAsync(store.list(kind)), [{ name: ref.name, sizeBytes: 200_000 }]);
      await store.quarantine(ref);
      assert.deepEqual(await Array.fromAsync(store.list(kind)), []);
    }
    assert.equal((await findFiles(store.location)).length, 3);
  });
});

describe("a process that saves and is killed at any moment", () => {
  test("leaves only whole files, and everything it was told is saved", async (t) => {
    const folder = await makeFolder(t);
    const store = openLocalStore(folder);
    await store.create();
    const acknowledged = new Set<string>();
    for (let round = 0; round < 12; round++) await saveUntilKilled(folder, 15 + ((round * 37) % 90), acknowledged);
    assert.ok(acknowledged.size >= 12, `${acknowledged.size} files were saved`);

    let wholeCount = 0;
    for (const kind of fileKinds) {
      for await (const { name, sizeBytes } of store.list(kind)) {
        const data = await store.load({ kind, name });
        assert.equal(data.length, sizeBytes);
        assert.equal(createHash("sha256").update(data).digest("hex"), name);
        acknowledged.delete(`${kind} ${name}`);
        wholeCount++;
      }
    }
    assert.deepEqual([...acknowledged], []);
    const leftoverCount = (await findFiles(folder)).length - wholeCount;
    assert.equal(await store.removeLeftovers(Infinity), leftoverCount);
    assert.equal((await findFiles(folder)).length, wholeCount);
    t.diagnostic(`${wholeCount} whole files, ${leftoverCount} unfinished`);
  });
});

describe("restic on a repository that went through the local store", () => {
  test("checks and restores it, with temporary files and a quarantine beside its own", async (t) => {
    if (!(await hasProgram("restic"))) return t.skip("RESTIC IS MISSING: not tested against it");
    const folder = await makeFolder(t);
    const environment = { env: { ...process.env, RESTIC_PASSWORD: "secret", RESTIC_CACHE_DIR: join(folder, "cache") } };
    const theirs = join(folder, "theirs");
    const ours = join(folder, "ours");
    await mkdir(join(folder, "files"));
    for (let i = 0; i < 20; i++) await writeFile(join(folder, "files", `${i}`), randomBytes(100_000));
    await run("restic", ["-r", theirs, "init", "--repository-version", "2"], environment);
    await run("restic", ["-r", theirs, "backup", join(folder, "files")], environment);

    const target = openLocalStore(ours);
    await target.create();
    await copyStore(openLocalStore(theirs), target);
    const stray = randomBytes(5000);
    await target.save(refOf("pack", stray), stray);
    await target.quarantine(refOf("pack", stray));
    await cp(join(folder, "files", "1"), `${target.pathOf(refOf("pack", stray))}-tmp-abcdef012345`);
    await cp(join(folder, "files", "1"), `${target.pathOf(refOf("index", stray))}-tmp-abcdef012345`);

    const check = await run("restic", ["-r", ours, "check", "--read-data"], environment);
    assert.match(check.stdout, /no errors were found/);
    await run("restic", ["-r", ours, "backup", join(folder, "files")], environment);
    await run("restic", ["-r", ours, "forget", "--keep-last", "1", "--prune"], environment);
    await run("restic", ["-r", ours, "restore", "latest", "--target", join(folder, "restored")], environment);
    for (let i = 0; i < 20; i++) {
      assert.deepEqual(await readFile(join(folder, "restored", folder, "files", `${i}`)), await readFile(join(folder, "files", `${i}`)));
    }
    assert.equal((await readdir(join(ours, "quarantine", "pack"))).length, 1);
  });
});

async function copyStore(from: Store, to: Store): Promise<void> {
  for (const kind of fileKinds)
    for await (const { name } of from.list(kind)) await to.save({ kind, name }, await from.load({ kind, name }));
}

async function hasProgram(name: string): Promise<boolean> {
  return run(name, ["version"]).then(
    () => true,
    () => false,
  );
}

/** Mounts a file system in memory; undefined, with the test skipped, where that is not allowed. */
async function mountSmall(t: TestContext, options: string): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "granary-mount-"));
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${options}`, "tmpfs", folder]);
  } catch {
    await rmdir(folder);
    t.skip("MOUNTING NEEDS ROOT: a full disk was not tested");
    return undefined;
  }
  t.after(async () => {
    await run("umount", [folder]);
    await rmdir(folder);
  });
  return folder;
}

/** Mounts an empty folder through rclone, whose mounts know no links; undefined, with the test skipped, where that is not possible. */
async function mountWithoutLinks(t: TestContext): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "granary-mount-"));
  const mounted = join(folder, "mounted");
  for (const name of ["files", "mounted", "cache"]) await mkdir(join(folder, name));
  const flags = ["--daemon", "--vfs-cache-mode", "writes", "--cache-dir", join(folder, "cache"), "--config", "/dev/null"];
  try {
    await run("rclone", ["mount", join(folder, "files"), mounted, ...flags], { timeout: 30_000 });
  } catch {
    await rm(folder, { recursive: true });
    t.skip("RCLONE OR FUSE IS MISSING: a file system without hard links was not tested");
    return undefined;
  }
  t.after(async () => {
    await run("fusermount", ["-u", mounted]); // ends the mount's process, too
    await rm(folder, { recursive: true });
  });
  return mounted;
}

/** Runs a process that saves and reports each save, and kills it `aliveMs` after its first report. */
async function saveUntilKilled(folder: string, aliveMs: number, acknowledged: Set<string>): Promise<void> {
  const program = `
    import { createHash, randomBytes } from "node:crypto";
    import { writeSync } from "node:fs";
    import { openLocalStore } from ${JSON.stringify(new URL("./local.ts", import.meta.url).href)};
    const store = openLocalStore(${JSON.stringify(folder)});
    const sizes = [300, 50_000, 4 << 20];
    await Promise.all(["lock", "index", "pack", "pack"].map(async (kind, worker) => {
      for (let i = worker; ; i++) {
        const data = randomBytes(sizes[i % sizes.length]);
        const name = createHash("sha256").update(data).digest("hex");
        await store.save({ kind, name }, data);
        writeSync(1, kind + " " + name + "\\n");
      }
    }));
  `;
  const child = spawn(process.execPath, ["--conditions=source", "--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  let timer: NodeJS.Timeout | undefined;
  for await (const line of createInterface(child.stdout)) {
    // A line that the kill cut short was not read by anyone who could act on it.
    if (/^[a-z]+ [0-9a-f]{64}$/.test(line)) acknowledged.add(line);
    timer ??= setTimeout(() => child.kill("SIGKILL"), aliveMs);
  }
  clearTimeout(timer);
  assert.deepEqual(await exited, [null, "SIGKILL"]);
}
