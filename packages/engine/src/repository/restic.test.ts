/** Repositories are shared with the real restic: what either makes, the other uses, and each respects the other's locks. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync, type SpawnSyncReturns } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "@granary/base/clock";
import { Secret } from "@granary/base/secret";
import { skipWithout } from "@granary/base/testing";
import { fromUtf8 } from "../format/byte-string.ts";
import { hexOf, ID_BYTES, parseBlobId, parseSnapshotId } from "../format/ids.ts";
import { encodeLock } from "../format/lock.ts";
import type { TreeNode } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";
import { openLocalStore } from "../store/local.ts";
import { createTreeLoader, loadBlob } from "./blob-load.ts";
import { saveFile } from "./files.ts";
import { loadIndex } from "./index-load.ts";
import { addKey, changePassword, listKeys } from "./keys.ts";
import { lockRepository } from "./lock.ts";
import { isStale, listLocks, removeStaleLocks } from "./lock-list.ts";
import { openRepository, type Repository } from "./repository.ts";
import { createScratch, deadPid, failsWith, insecureScryptCost, listNames, scratchPassword } from "./scratch.ts";
import { findSnapshot, loadSnapshots, saveSnapshot } from "./snapshots.ts";

const needsRestic = { skip: skipWithout("restic") };

/** A temporary folder with a repository for both, and files to back up. */
class Shared {
  readonly folder: string = mkdtempSync(join(tmpdir(), "granary-repository-"));
  readonly location: string = join(this.folder, "repository");
  readonly source: string = join(this.folder, "source");
  readonly #env: NodeJS.ProcessEnv = {
    ...process.env,
    RESTIC_REPOSITORY: this.location,
    RESTIC_PASSWORD: scratchPassword.reveal(),
    RESTIC_CACHE_DIR: join(this.folder, "cache"),
  };

  create(): Promise<Repository> {
    return createScratch(openLocalStore(this.location));
  }

  open(password: Secret = scratchPassword): Promise<Repository> {
    return openRepository(openLocalStore(this.location), { password });
  }

  tryRestic(args: readonly string[], env: NodeJS.ProcessEnv = {}): SpawnSyncReturns<string> {
    return spawnSync("restic", args, { env: { ...this.#env, ...env }, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  restic(...args: readonly string[]): string {
    const { status, stdout, stderr } = this.tryRestic(args);
    assert.equal(status, 0, `restic ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  startRestic(...args: readonly string[]): ChildProcess {
    return spawn("restic", args, { env: this.#env, stdio: ["pipe", "ignore", "ignore"] });
  }

  /** Some directories and files, from empty to large enough for several chunks. @returns contents by path below the source */
  makeFiles(): Map<string, Buffer> {
    const files = new Map<string, Buffer>([
      ["empty", Buffer.alloc(0)],
      ["hello.txt", Buffer.from("hello\n".repeat(1000))],
      ["deep/er/still/naïve ☃", Buffer.from("snow")],
      ["deep/same", Buffer.from("hello\n".repeat(1000))],
      ["large", Buffer.alloc(5_000_000)],
    ]);
    for (let i = 0; i < 5_000_000; i += 4) files.get("large")?.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
    for (const [path, content] of files) {
      mkdirSync(join(this.source, path, ".."), { recursive: true });
      writeFileSync(join(this.source, path), content);
    }
    return files;
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Every file below a tree, with its content, read blob by blob. */
async function readTree(repository: Repository, root: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  const loadTree = createTreeLoader(repository);
  const walk = async (id: Uint8Array, above: string): Promise<void> => {
    const bytes = await loadTree(id);
    const nodes: TreeNode[] = [];
    scanTree(bytes, (_, start, end) => nodes.push(parseNode(bytes, start, end)));
    for (const node of nodes) {
      const path = `${above}${node.name}`;
      if (node.subtree !== null) await walk(node.subtree, `${path}/`);
      if (node.content === null) continue;
      const blobs: Uint8Array[] = [];
      for (let at = 0; at < node.content.length; at += ID_BYTES)
        blobs.push(await loadBlob(repository, parseBlobId(hexOf(node.content, at))));
      files.set(path, Buffer.concat(blobs));
    }
  };
  await walk(Buffer.from(root, "hex"), "");
  return files;
}

function expected(shared: Shared, files: ReadonlyMap<string, Buffer>): Map<string, Buffer> {
  return new Map([...files].map(([path, content]) => [fromUtf8(join(shared.source, path).slice(1)), content]));
}

for (const version of ["1", "2"]) {
  test(`a repository of version ${version} that restic made is opened, and every blob of its snapshots is read`, needsRestic, async () => {
    using shared = new Shared();
    const files = shared.makeFiles();
    shared.restic("init", "--repository-version", version);
    // restic's key opens; one that costs nothing takes its place, so that what follows is quick
    await changePassword(await shared.open(), scratchPassword, { insecureScryptCost });
    shared.restic("backup", "--tag", "one,two", "--host", "alpha", shared.source);
    writeFileSync(join(shared.source, "later"), "later");
    shared.restic("backup", "--host", "alpha", shared.source);
    const repository = await shared.open();
    assert.equal(repository.config.version, Number(version));
    const snapshots = await loadSnapshots(repository);
    assert.deepEqual(
      snapshots.map(({ hostname, tags, paths }) => ({ hostname, tags, paths })),
      [
        { hostname: "alpha", tags: ["one", "two"], paths: [shared.source] },
        { hostname: "alpha", tags: [], paths: [shared.source] },
      ],
    );
    const [first, second] = snapshots;
    assert.ok(first !== undefined && second !== undefined);
    assert.equal(second.parent, first.id);
    await loadIndex(repository);
    const want = expected(shared, files);
    assert.deepEqual(await readTree(repository, first.tree), want);
    assert.equal((await readTree(repository, second.tree)).size, want.size + 1);
    assert.equal((await findSnapshot(repository, "latest", { tags: [["two"]] })).snapshot.id, first.id);
    // and back: a snapshot that we save, restic lists and restores
    const saved = await saveSnapshot(repository, { ...first, hostname: "ours", original: parseSnapshotId(first.id), parent: null });
    assert.match(shared.restic("snapshots", "--host", "ours", "--json"), new RegExp(saved));
    shared.restic("check", "--read-data");
    shared.restic("restore", saved, "--target", join(shared.folder, "restored"));
    assert.deepEqual(readFileSync(join(shared.folder, "restored", shared.source, "large")), files.get("large"));
  });
}

test("a repository that we made is used by restic, and what it saves there is read by us", needsRestic, async () => {
  using shared = new Shared();
  const files = shared.makeFiles();
  await shared.create();
  assert.match(shared.restic("snapshots", "--json"), /^(?:null|\[\])/);
  shared.restic("check");
  assert.match(shared.restic("cat", "config"), /"version": 2/);
  shared.restic("backup", shared.source);
  shared.restic("check", "--read-data");
  const repository = await shared.open();
  await loadIndex(repository);
  const { snapshot } = await findSnapshot(repository, "latest");
  assert.deepEqual(await readTree(repository, snapshot.tree), expected(shared, files));
});

test("with the cost that is calibrated restic opens our keys too", needsRestic, async () => {
  using shared = new Shared();
  const { createRepository } = await import("./repository.ts");
  await createRepository(openLocalStore(shared.location), { password: scratchPassword });
  shared.restic("cat", "config");
});

test("keys that either adds open for the other, and passwords that either changes no longer do", needsRestic, async () => {
  using shared = new Shared();
  const repository = await shared.create();
  const passwordFile = join(shared.folder, "password");
  writeFileSync(passwordFile, "restic's own password\n");
  shared.restic("key", "add", "--new-password-file", passwordFile);
  const byRestic = await shared.open(new Secret("restic's own password"));
  assert.deepEqual(byRestic.key, repository.key);
  const [, added] = await listKeys(repository);
  assert.equal(added?.id, byRestic.keyId);

  const ours = await addKey(repository, new Secret("our second pässword"), { username: "zoë", hostname: "beta", insecureScryptCost });
  assert.equal(shared.tryRestic(["cat", "config"], { RESTIC_PASSWORD: "our second pässword" }).status, 0);
  const listed = JSON.parse(shared.restic("key", "list", "--json")) as { userName: string; hostName: string }[];
  assert.equal(listed.length, 3);
  assert.ok(listed.some(({ userName, hostName }) => userName === "zoë" && hostName === "beta"));
  shared.restic("key", "remove", ours);
  await assert.rejects(shared.open(new Secret("our second pässword")), failsWith("WrongPassword"));

  await changePassword(repository, new Secret("changed by us"), { insecureScryptCost });
  assert.notEqual(shared.tryRestic(["cat", "config"]).status, 0);
  assert.equal(shared.tryRestic(["cat", "config"], { RESTIC_PASSWORD: "changed by us" }).status, 0);
});

test("restic can use what is left when our creation was interrupted and run again", needsRestic, async () => {
  using shared = new Shared();
  const store = openLocalStore(shared.location);
  await createScratch(store);
  await store.remove({ kind: "config", name: "" });
  await shared.create();
  assert.equal((await listNames(store, "key")).length, 1);
  shared.restic("check");
});

/** A restic that holds a shared lock until its input ends. */
async function holdByRestic(shared: Shared): Promise<ChildProcess> {
  const child = shared.startRestic("backup", "--stdin");
  const locks = join(shared.location, "locks");
  for (let i = 0; readdirSync(locks).length === 0; i++) {
    assert.ok(i < 300, "restic took no lock within 30 s");
    await sleep(100);
  }
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

test("a lock that restic holds is seen by us, and stale once restic is dead", needsRestic, async () => {
  using shared = new Shared();
  const repository = await shared.create();
  const child = await holdByRestic(shared);
  try {
    const [lock] = await listLocks(repository);
    assert.equal(lock?.pid, child.pid);
    assert.equal(lock?.exclusive, false);
    assert.ok(lock !== undefined && !isStale(lock, systemClock.nowMs()));
    await assert.rejects(
      lockRepository(repository, { exclusive: true }),
      failsWith("RepositoryLocked", new RegExp(`process ${child.pid} of .* has locked it since`)),
    );
    await using _ = await lockRepository(repository, { exclusive: false });
  } finally {
    await end(child);
  }
  const [left] = await listLocks(repository);
  assert.ok(left !== undefined && isStale(left, systemClock.nowMs()));
  assert.equal(await removeStaleLocks(repository), 1);
  await using _ = await lockRepository(repository, { exclusive: true });
});

test("an exclusive lock that restic waits behind is ours", needsRestic, async () => {
  using shared = new Shared();
  shared.makeFiles();
  const repository = await shared.create();
  {
    await using _ = await lockRepository(repository, { exclusive: true });
    for (const args of [["backup", shared.source], ["prune"], ["snapshots"]]) {
      const { status, stderr } = shared.tryRestic(args);
      assert.notEqual(status, 0, args.join(" "));
      assert.match(stderr, new RegExp(`already locked exclusively by PID ${process.pid}`));
    }
  }
  shared.restic("backup", shared.source);
  shared.restic("prune");
});

test("under our shared lock restic backs up, and neither prunes nor forgets", needsRestic, async () => {
  using shared = new Shared();
  shared.makeFiles();
  const repository = await shared.create();
  await using lock = await lockRepository(repository, { exclusive: false });
  shared.restic("backup", shared.source);
  shared.restic("snapshots");
  for (const args of [["prune"], ["forget", "--keep-last", "1"]]) {
    const { status, stderr } = shared.tryRestic(args);
    assert.notEqual(status, 0, args.join(" "));
    assert.match(stderr, new RegExp(`already locked by PID ${process.pid}`));
  }
  // ours is alive, so restic leaves it; it finds out by a signal that would end who does not expect it
  shared.restic("unlock");
  assert.equal((await listLocks(repository)).length, 1);
  await lock.release();
  shared.restic("forget", "--keep-last", "1", "--prune");
});

test("restic removes our locks that are stale, by time and by a dead process", needsRestic, async () => {
  using shared = new Shared();
  const repository = await shared.create();
  const held = await lockRepository(repository, { exclusive: false });
  const [mine] = await listLocks(repository);
  await held.release();
  assert.ok(mine !== undefined);
  const hourNs = 3_600_000_000_000n;
  for (const change of [{ pid: deadPid() }, { timeNs: mine.timeNs - hourNs, hostname: "elsewhere" }]) {
    await saveFile(repository, { kind: "lock", json: encodeLock({ ...mine, exclusive: true, ...change }) });
  }
  assert.equal((await listLocks(repository)).length, 2);
  shared.restic("unlock");
  assert.deepEqual(await listLocks(repository), []);
});
