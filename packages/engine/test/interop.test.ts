/**
 * One repository, two programs: ours and the real restic fill it in turn and at once, forget in it and prune it; after each stage both find
 * it whole to the last byte, and both restore every snapshot that is left as the source was.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { skipWithout } from "@granary/base/testing";
import {
  bytesOfId,
  changeTags,
  checkRepository,
  copySnapshots,
  countStats,
  createRepository,
  createTreeLoader,
  emptyPolicy,
  fromUtf8,
  groupByHostAndPaths,
  lockRepository,
  openLocalStore,
  planForget,
  planPrune,
  restoreSnapshot,
  runForget,
  runPrune,
} from "../src/index.ts";
import { compareTrees } from "../src/testing.ts";
import { fillBytes, isRoot, makeSampleTree, makeSparse, setTimes } from "./sample-tree.ts";
import { cheapScrypt, password, Workbench } from "./workbench.ts";

const needsTools = skipWithout("restic", "setfattr", "setfacl");
const copyTree = (from: string, to: string): void => void execFileSync("cp", ["-a", "--sparse=always", from, to]);

/** The sample tree without what restic 0.14 itself does not restore: sockets, links with several names, targets that are no text. */
function makeSharedTree(folder: string): void {
  makeSampleTree(folder);
  for (const name of ["socket", "hard/fifo again", "hard/dangling again", "links/not UTF-8"]) rmSync(join(folder, name));
}

/** Something happens to an entry of every type: content, length, names, kinds, modes, owners, times and attributes. */
function changeTree(folder: string, round: number): void {
  const at = (name: string): string => join(folder, name);
  appendFileSync(at("small"), `of round ${round}`); // both of its names
  writeFileSync(at(`new ${round}`), fillBytes(3_000_000, `new ${round}`));
  const large = readFileSync(at("large"));
  writeFileSync(
    at("large"),
    Buffer.concat([large.subarray(0, round * 1_000_000), Buffer.from("inserted"), large.subarray(round * 1_000_000)]),
  );
  truncateSync(at("compressible"), 2_000_000 - round * 100_000);
  makeSparse(at("holes between"), (30 << 20) + round, [[round << 20, 100_000]]);
  mkdirSync(at(`folder ${round}`), { mode: 0o700 + round });
  symlinkSync(`../target ${round}`, at(`folder ${round}/link`));
  linkSync(at("large"), at(`folder ${round}/large`));
  renameSync(at("links/dangling"), at("links/moved"));
  symlinkSync(`nowhere ${round}`, at("links/dangling"));
  rmSync(at("links/moved"));
  chmodSync(at("modes/file 777"), 0o640 + round);
  chmodSync(at("fifo"), 0o600 + round);
  execFileSync("setfattr", ["-n", "user.plain", "-v", `round ${round}`, at("attributes")]);
  execFileSync("setfacl", ["-m", `u:${100 + round}:r--`, at("attributes folder")]);
  if (isRoot) {
    rmSync(at("zero"));
    execFileSync("mknod", [at("zero"), "c", "1", String(round)]);
    execFileSync("chown", ["-h", `${round}:${round + 1}`, at("owned link"), at("owned")]);
  }
  // from a file to a folder, and back
  rmSync(at("one byte"), { recursive: true });
  if (round % 2 === 1) mkdirSync(at("one byte"));
  else writeFileSync(at("one byte"), "y");
  setTimes(at("times/link"), 1_000_000 * round, 999_999_999 - round);
  setTimes(at("empty"), -round, round);
}

/** A workbench that remembers what each snapshot is a snapshot of. */
class SharedBench extends Workbench {
  /** By the id of the snapshot: the folder that was backed up, and a copy of it as it was then. */
  readonly states = new Map<string, { source: string; copy: string }>();
  #stages = 0;

  constructor() {
    super("interop");
  }

  remember(id: string, source: string, copy: string): void {
    this.states.set(id, { source, copy });
  }

  copySource(name: string): string {
    const copy = join(this.folder, `state ${name}`);
    copyTree(this.source, copy);
    return copy;
  }

  /** restic's backup. @returns the whole id of the snapshot */
  async backUpByRestic(source: string): Promise<string> {
    const text = await this.resticAsync("backup", "--json", "--host", "host", source);
    const { snapshot_id: id } = JSON.parse(text.trim().split("\n").at(-1) ?? "") as { snapshot_id: string }; // restic's last line
    const found = (await this.snapshots()).filter((snapshot) => snapshot.id.startsWith(id));
    assert.equal(found.length, 1, `one snapshot is ${id}`);
    return found[0]?.id ?? "";
  }

  async backUpByUs(source: string): Promise<string> {
    const { snapshotId, troublesSeen } = await this.backUp({ targets: [fromUtf8(source)] });
    assert.deepEqual(troublesSeen, []);
    assert.ok(snapshotId !== undefined);
    return snapshotId;
  }

  /** Both find the repository whole. */
  async expectWhole(): Promise<void> {
    const repository = await this.open();
    const { errors, contentVerifiedMs } = await checkRepository(repository, { readData: { kind: "all" }, workers: 2 });
    assert.deepEqual(errors, []);
    assert.notEqual(contentVerifiedMs, null);
    this.check();
    assert.equal(this.countFiles("locks"), 0);
  }

  /** Every snapshot that was not forgotten is there, and both restore it as its source was. */
  async expectAllRestored(): Promise<void> {
    const stage = this.makeFolder(`stage ${this.#stages++}`);
    const repository = await this.open();
    const snapshots = await this.snapshots();
    assert.deepEqual(snapshots.map(({ id }) => id).sort(), [...this.states.keys()].sort());
    for (const { id, tree } of snapshots) {
      const state = this.states.get(id);
      assert.ok(state !== undefined);
      const ours = join(stage, `${id} by us`);
      await restoreSnapshot(repository, {
        tree: bytesOfId(tree),
        target: fromUtf8(ours),
        workers: 2,
        onTrouble: (trouble) => assert.fail(JSON.stringify(trouble)),
      });
      assert.deepEqual(await compareTrees(state.copy, join(ours, state.source)), [], `${id} by us`);
      const theirs = join(stage, `${id} by restic`);
      this.restic("restore", id, "--target", theirs);
      assert.deepEqual(await compareTrees(state.copy, join(theirs, state.source)), [], `${id} by restic`);
      for (const folder of [ours, theirs]) rmSync(folder, { recursive: true });
    }
  }

  /** Forgets all but the newest `last` of each source. @returns how many are gone */
  async forgetByUs(last: number): Promise<number> {
    const repository = await this.open();
    await using lock = await lockRepository(repository, { exclusive: true });
    const options = {
      groupBy: groupByHostAndPaths,
      nowNs: BigInt(Date.now()) * 1_000_000n,
      timeZone: "UTC",
      allowRemoveAll: false,
      isFiltered: false,
    };
    const plan = planForget(await this.snapshots(), { ...emptyPolicy, last }, options);
    const { failed } = await runForget(repository.store, plan, { signal: lock.signal });
    assert.deepEqual(failed, []);
    for (const { id } of plan.remove) assert.ok(this.states.delete(id));
    return plan.remove.length;
  }

  async forgetByRestic(id: string): Promise<void> {
    await this.resticAsync("forget", id);
    assert.ok(this.states.delete(id));
  }

  /** Removes everything that is not needed. @returns how many packs went, or were written anew */
  async pruneByUs(): Promise<number> {
    const repository = await this.open();
    await using lock = await lockRepository(repository, { exclusive: true });
    const plan = await planPrune(repository, { maxUnused: { kind: "size", sizeBytes: 0 }, signal: lock.signal });
    const { packsRemoved, packsRepacked } = await runPrune(repository, plan, { workers: 2, signal: lock.signal });
    return packsRemoved + packsRepacked;
  }
}

describe("one repository for restic and us", { skip: needsTools }, () => {
  test("filled, forgotten in and pruned in turn, it stays whole for both, and both restore every snapshot", async () => {
    using bench = new SharedBench();
    await bench.create();
    makeSharedTree(bench.source);
    for (let round = 1; round <= 4; round++) {
      const copy = bench.copySource(`${round}`);
      const id = await (round % 2 === 1 ? bench.backUpByUs(bench.source) : bench.backUpByRestic(bench.source));
      bench.remember(id, bench.source, copy);
      await bench.expectWhole();
      changeTree(bench.source, round);
    }
    await bench.expectAllRestored();

    const [oldest] = (await bench.snapshots()).toSorted((a, b) => (a.timeNs < b.timeNs ? -1 : 1));
    await bench.forgetByRestic(oldest?.id ?? "");
    assert.ok((await bench.pruneByUs()) > 0);
    await bench.expectWhole();
    await bench.expectAllRestored();

    const copy = bench.copySource("5");
    bench.remember(await bench.backUpByUs(bench.source), bench.source, copy);
    assert.equal(await bench.forgetByUs(2), 2);
    const packs = bench.countFiles("data");
    bench.restic("prune", "--max-unused", "0");
    assert.notEqual(bench.countFiles("data"), packs);
    await bench.expectWhole();
    bench.remember(await bench.backUpByRestic(bench.source), bench.source, copy);
    await bench.expectWhole();
    await bench.expectAllRestored();
  });

  test("filled by both at once, it stays whole for both, and loses nothing", async () => {
    using bench = new SharedBench();
    await bench.create();
    const theirs = bench.makeFolder("theirs");
    for (let round = 1; round <= 4; round++) {
      // half of it is in both, new to both
      for (const folder of [bench.source, theirs]) {
        for (let file = 0; file < 40; file++) writeFileSync(join(folder, `both ${file}`), fillBytes(300_000, `${round} ${file % 20}`));
        for (let file = 0; file < 20; file++) writeFileSync(join(folder, `own ${file}`), fillBytes(300_000, `${folder} ${round} ${file}`));
      }
      const copies = [bench.copySource(`ours ${round}`), join(bench.folder, `state theirs ${round}`)] as const;
      copyTree(theirs, copies[1]);
      let isRunning = true;
      const restic = bench.backUpByRestic(theirs).finally(() => (isRunning = false));
      do bench.remember(await bench.backUpByUs(bench.source), bench.source, copies[0]);
      while (isRunning);
      bench.remember(await restic, theirs, copies[1]);
      await bench.expectWhole();
    }
    await bench.forgetByUs(2);
    assert.ok((await bench.pruneByUs()) > 0);
    await bench.expectWhole();
    await bench.expectAllRestored();
  });

  test("neither removes anything while the other backs up", async () => {
    using bench = new SharedBench();
    await bench.create();
    writeFileSync(join(bench.source, "file"), fillBytes(100_000, "file"));
    bench.remember(await bench.backUpByUs(bench.source), bench.source, bench.copySource("1"));
    const restic: ChildProcess = bench.start("restic", ["--no-cache", "backup", "--stdin"], {
      env: bench.resticEnvironment(),
      stdio: ["pipe", "ignore", "ignore"],
    });
    while (bench.countFiles("locks") === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    await assert.rejects(bench.pruneByUs(), (error) => isFailure(error, "RepositoryLocked"));
    const ended = once(restic, "exit");
    restic.stdin?.end("what restic read meanwhile");
    assert.equal((await ended)[0], 0);
    {
      await using _lock = await lockRepository(await bench.open(), { exclusive: false });
      assert.throws(() => bench.restic("prune"), /already locked|unable to create lock/);
    }
    await bench.expectWhole();
    assert.equal((await bench.snapshots()).length, 2);
    assert.equal(bench.restic("dump", "latest", "/stdin"), "what restic read meanwhile");
  });

  test("restic's copy, tag, diff, dump and stats work on what we made, and we read what they leave (rewrite too, from restic 0.15)", async () => {
    using bench = new SharedBench();
    await bench.create();
    makeSharedTree(bench.source);
    const first = { id: await bench.backUpByUs(bench.source), copy: bench.copySource("1") };
    changeTree(bench.source, 1);
    const second = { id: await bench.backUpByUs(bench.source), copy: bench.copySource("2") };

    const diff = bench.restic("diff", first.id, second.id);
    const paths = (sign: string): string[] =>
      [...diff.matchAll(/^(\S)\s+(\/.*)$/gm)]
        .filter(([, found]) => found === sign)
        .map(([, , path]) => (path ?? "").slice(bench.source.length));
    assert.deepEqual(paths("+").sort(), ["/folder 1/", "/folder 1/large", "/folder 1/link", "/new 1"]);
    assert.deepEqual(paths("-"), []);
    for (const changed of ["/small", "/hard/small again", "/large", "/compressible", "/holes between"])
      assert.ok(paths("M").includes(changed), changed);

    for (const name of ["large", "empty", "holes between"])
      assert.deepEqual(dumpByRestic(bench, second.id, join(bench.source, name)), readFileSync(join(second.copy, name)), name);
    const unpacked = bench.makeFolder("unpacked");
    execFileSync("tar", ["-xpf", "-", "-C", unpacked], { input: dumpByRestic(bench, second.id, join(bench.source, "modes")) });
    assert.deepEqual(await compareTrees(join(second.copy, "modes"), join(unpacked, bench.source, "modes"), { times: false }), []);

    await expectSameStats(bench);

    // copied there by restic, and on to a third by us, each is what it was
    const target = new Workbench("interop-target");
    using _target = target;
    await target.create();
    target.restic("copy", "--from-repo", bench.location, { RESTIC_FROM_PASSWORD: password });
    target.check();
    await expectCopied(bench, target, [first, second]);
    const third = await createRepository(openLocalStore(join(bench.folder, "third")), {
      password: new Secret(password),
      insecureScryptCost: cheapScrypt,
    });
    await copySnapshots(await target.open(), third, { snapshots: await target.snapshots(), existing: [], workers: 2 });
    bench.restic("check", "--read-data", { RESTIC_REPOSITORY: join(bench.folder, "third") });

    // a tag of each
    bench.restic("tag", "--add", "theirs", second.id);
    const all = await bench.snapshots();
    await changeTags(await bench.open(), { chosen: all, all, change: { kind: "edit", add: ["ours"], remove: [] } });
    const tags = (await bench.snapshots()).map((snapshot) => snapshot.tags.join(","));
    assert.deepEqual(tags.sort(), ["ours", "theirs,ours"]);
    const listed = JSON.parse(bench.restic("snapshots", "--json", "--tag", "ours")) as { original?: string }[]; // restic's list
    assert.deepEqual(listed.map(({ original }) => original ?? "").sort(), [first.id, second.id].sort());
    if (hasRewrite()) {
      bench.restic("rewrite", "--forget", "--exclude", join(bench.source, "large"), "--tag", "theirs");
      assert.throws(() => bench.restic("dump", "--tag", "theirs", "latest", join(bench.source, "large")));
    }
    await bench.expectWhole();
  });
});

function hasRewrite(): boolean {
  const version = /restic 0\.(\d+)/.exec(execFileSync("restic", ["version"], { encoding: "utf8" }));
  return Number(version?.[1]) >= 15;
}

function dumpByRestic(bench: Workbench, id: string, path: string): Buffer {
  return execFileSync("restic", ["--no-cache", "dump", id, path], { env: bench.resticEnvironment(), maxBuffer: 2 ** 28 });
}

/** Where both count the same things. */
async function expectSameStats(bench: Workbench): Promise<void> {
  const repository = await bench.open();
  const source = { load: createTreeLoader(repository), index: repository.index };
  const trees = (await bench.snapshots()).map(({ tree }) => tree);
  for (const mode of ["restore-size", "files-by-contents", "blobs-per-file", "raw-data"] as const) {
    const theirs = JSON.parse(bench.restic("stats", "--json", "--mode", mode)) as Record<string, number | undefined>; // restic's figures
    const ours = await countStats(source, trees, { mode });
    assert.ok((theirs.total_size ?? 0) > statSync(join(bench.source, "large")).size, mode);
    assert.equal(ours.sizeBytes, theirs.total_size, mode);
    if (mode !== "raw-data") assert.equal(ours.fileCount, theirs.total_file_count, mode);
  }
}

/** Both snapshots of a workbench are in another one, as what they were. */
async function expectCopied(bench: Workbench, target: Workbench, originals: readonly { id: string; copy: string }[]): Promise<void> {
  const repository = await target.open();
  const snapshots = await target.snapshots();
  assert.equal(snapshots.length, originals.length);
  for (const { id, copy } of originals) {
    const copied = snapshots.find((snapshot) => snapshot.original === id);
    assert.ok(copied !== undefined, id);
    const restored = join(bench.folder, `copied ${id}`);
    await restoreSnapshot(repository, { tree: bytesOfId(copied.tree), target: fromUtf8(restored), workers: 2 });
    assert.deepEqual(await compareTrees(copy, join(restored, bench.source)), []);
    rmSync(restored, { recursive: true });
  }
}
