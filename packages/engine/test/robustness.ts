/**
 * One repository, to which everything happens that can: backups of changing folders, by us and by restic, alone and at once, some of them
 * killed; restores, forgets, prunes, some killed, and checks, by both. An oracle keeps what each snapshot must hold, recorded from the folder
 * itself; whatever is read back is compared with it, and at the end all of it is.
 *
 * What happens is drawn by lot from a seed, which is printed; when kills strike depends on the machine too.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fromUtf8 } from "../src/format/byte-string.ts";
import { bytesOfId } from "../src/format/ids.ts";
import { checkRepository } from "../src/maintain/check.ts";
import { groupByHostAndPaths, planForget, runForget } from "../src/maintain/forget.ts";
import { emptyPolicy } from "../src/maintain/keep-policy.ts";
import { planPrune, runPrune } from "../src/maintain/prune.ts";
import { lockRepository } from "../src/repository/lock.ts";
import { removeStaleLocks } from "../src/repository/lock-list.ts";
import type { Repository } from "../src/repository/repository.ts";
import { restoreSnapshot } from "../src/restore/restore.ts";
import { RandomNumbers, RandomTree } from "./random-tree.ts";
import { diffRecords, recordFolder, recordSnapshot, type TreeRecord } from "./tree-record.ts";
import { password, Workbench } from "./workbench.ts";

export interface RobustnessOptions {
  readonly seed: number;
  readonly durationMs: number;
  /** Told of each thing that is done. */
  readonly log: (line: string) => void;
}

/** What a snapshot must hold. */
interface Expected {
  readonly folder: string;
  readonly record: TreeRecord;
}

const backupScript = join(import.meta.dirname, "backup-in-child.ts");
const pruneScript = join(import.meta.dirname, "../src/maintain/prune-in-child.ts");
const mostSnapshots = 25;

/** Runs until the time is up, and then compares all there is. @throws AssertionError with what was lost or wrong */
export async function runRobustness(options: RobustnessOptions): Promise<Readonly<Record<string, number>>> {
  using run = new RobustnessRun(options);
  return await run.run();
}

class RobustnessRun {
  readonly #options: RobustnessOptions;
  readonly #random: RandomNumbers;
  readonly #bench = new Workbench("robustness");
  readonly #folders: readonly string[];
  readonly #trees: readonly RandomTree[];
  readonly #oracle = new Map<string, Expected>();
  readonly #counts: Record<string, number> = {};

  constructor(options: RobustnessOptions) {
    this.#options = options;
    this.#random = new RandomNumbers(options.seed);
    this.#folders = [this.#bench.makeFolder("one"), this.#bench.makeFolder("two")];
    this.#trees = this.#folders.map((folder) => new RandomTree(folder, this.#random));
  }

  [Symbol.dispose](): void {
    this.#bench[Symbol.dispose]();
  }

  async run(): Promise<Readonly<Record<string, number>>> {
    const endMs = performance.now() + this.#options.durationMs;
    await this.#bench.create();
    while (performance.now() < endMs) {
      const [name, act] = this.#random.weigh(this.#actions);
      this.#counts[name] = (this.#counts[name] ?? 0) + 1;
      const startedMs = performance.now();
      const what = await act();
      this.#options.log(`${name}${what === undefined ? "" : `: ${what}`} (${Math.round(performance.now() - startedMs)} ms)`);
      if (name !== "write") await this.#expectSnapshots();
    }
    await this.#expectEverything();
    return { ...this.#counts, snapshotsAtTheEnd: this.#oracle.size };
  }

  readonly #actions: readonly (readonly [number, readonly [string, () => Promise<string | undefined> | string | undefined]])[] = [
    [30, ["write", () => this.#write()]],
    [8, ["backup", () => this.#backUp()]],
    [4, ["backup by restic", () => this.#backUpByRestic()]],
    [4, ["backups at once", () => this.#backUpAtOnce()]],
    [6, ["killed backup", () => this.#killBackup()]],
    [5, ["restore", () => this.#restore()]],
    [2, ["restore by restic", () => this.#restoreByRestic()]],
    [4, ["read", () => this.#read()]],
    [3, ["forget", () => this.#forget()]],
    [2, ["forget by restic", () => this.#forgetByRestic()]],
    [3, ["prune", () => this.#prune()]],
    [2, ["prune by restic", () => this.#pruneByRestic()]],
    [3, ["killed prune", () => this.#killPrune()]],
    [2, ["check", () => this.#check()]],
    [1, ["check by restic", () => this.#checkByRestic()]],
  ];

  #write(): string {
    const tree = this.#random.pick(this.#trees);
    const done = Array.from({ length: 1 + this.#random.below(25) }, () => tree.change());
    return done.join(", ");
  }

  /** The folder as it is, remembered as what a snapshot must hold. */
  #look(folder: string): Expected {
    return { folder, record: recordFolder(folder) };
  }

  async #backUp(): Promise<string> {
    const random = this.#random;
    const folder = random.pick(this.#folders);
    const expected = this.#look(folder);
    const request = {
      workers: 1 + random.below(4),
      level: random.pick([0, 1, 1, 3]),
      packBytes: random.pick([1 << 18, 1 << 20, 4 << 20, 16 << 20]),
      cut: random.pick(["gear", "gear", "rabin"] as const),
      ...(random.next() < 0.2 ? { parent: null } : {}),
    };
    const report = await this.#bench.backUp({ targets: [fromUtf8(folder)], allowShrink: true, ...request });
    assert.deepEqual(report.troublesSeen, []);
    assert.ok(report.snapshotId !== undefined);
    this.#oracle.set(report.snapshotId, expected);
    const { filesNew, filesChanged, filesUnmodified, dataBlobs } = report.counts;
    return `${filesNew} new, ${filesChanged} changed, ${filesUnmodified} unchanged, ${dataBlobs} blobs, ${JSON.stringify(request)}`;
  }

  async #backUpByRestic(folder: string = this.#random.pick(this.#folders)): Promise<string> {
    const expected = this.#look(folder);
    const text = await this.#bench.resticAsync("backup", "--json", "--host", "host", folder);
    const { snapshot_id: id } = JSON.parse(text.trim().split("\n").at(-1) ?? "") as { snapshot_id: string }; // restic's last line
    const found = (await this.#bench.snapshots()).find((snapshot) => snapshot.id.startsWith(id));
    assert.ok(found !== undefined, `restic's snapshot ${id} is there`);
    this.#oracle.set(found.id, expected);
    return id;
  }

  async #backUpAtOnce(): Promise<string> {
    const [one = "", two = ""] = this.#folders;
    const expected = this.#look(one);
    const [report, id] = await Promise.all([
      this.#bench.backUp({ targets: [fromUtf8(one)], allowShrink: true, packBytes: 1 << 19 }),
      this.#backUpByRestic(two),
    ]);
    assert.ok(report.snapshotId !== undefined);
    this.#oracle.set(report.snapshotId, expected);
    return `${report.snapshotId.slice(0, 8)} and ${id}`;
  }

  async #killBackup(): Promise<string> {
    const random = this.#random;
    const folder = random.pick(this.#folders);
    const expected = this.#look(folder);
    const args = ["--conditions=source", backupScript, this.#bench.location, folder];
    const isPlanned = random.next() < 0.4;
    if (isPlanned)
      args.push(random.pick(["pack", "pack", "index", "snapshot"]), `${1 + random.below(3)}`, random.pick(["before", "midway", "after"]));
    const child = this.#bench.start(process.execPath, args, { stdio: ["ignore", "pipe", "ignore"] });
    const ended = once(child, "exit");
    let text = "";
    child.stdout?.on("data", (piece) => (text += String(piece)));
    const delayMs = 150 + random.below(500);
    if (!isPlanned) {
      await Promise.race([new Promise((resolve) => setTimeout(resolve, delayMs)), ended]);
      child.kill("SIGKILL");
    }
    await ended;
    const id = /^[0-9a-f]{64}$/m.exec(text)?.[0];
    if (id !== undefined) this.#oracle.set(id, expected);
    // It may have been killed between the commit and telling of it.
    for (const snapshot of await this.#bench.snapshots()) if (!this.#oracle.has(snapshot.id)) this.#oracle.set(snapshot.id, expected);
    await this.#unlock();
    return isPlanned ? args.slice(4).join(" ") : `after ${delayMs} ms${id === undefined ? "" : ", too late"}`;
  }

  async #unlock(): Promise<void> {
    if (this.#random.next() < 0.5) await removeStaleLocks(await this.#bench.open());
    else this.#bench.restic("unlock");
    assert.equal(this.#bench.countFiles("locks"), 0);
  }

  #pickSnapshot(): [string, Expected] | undefined {
    return this.#oracle.size === 0 ? undefined : this.#random.pick([...this.#oracle]);
  }

  async #restore(): Promise<string | undefined> {
    const picked = this.#pickSnapshot();
    if (picked === undefined) return undefined;
    const [id, expected] = picked;
    const snapshot = (await this.#bench.snapshots()).find((each) => each.id === id);
    assert.ok(snapshot !== undefined);
    const target = this.#bench.makeFolder(`restored ${readdirSync(this.#bench.folder).length}`);
    await restoreSnapshot(await this.#bench.open(), {
      tree: bytesOfId(snapshot.tree),
      target: fromUtf8(target),
      workers: 1 + this.#random.below(3),
      onTrouble: (trouble) => assert.fail(JSON.stringify(trouble)),
    });
    this.#expectRestored(join(target, expected.folder), picked);
    rmSync(target, { recursive: true });
    return id.slice(0, 8);
  }

  #restoreByRestic(): string | undefined {
    const picked = this.#pickSnapshot();
    if (picked === undefined) return undefined;
    const restored = this.#bench.restore(picked[0], picked[1].folder);
    this.#expectRestored(restored, picked);
    rmSync(restored.slice(0, -picked[1].folder.length), { recursive: true });
    return picked[0].slice(0, 8);
  }

  #expectRestored(folder: string, [id, expected]: readonly [string, Expected]): void {
    assert.deepEqual(diffRecords(expected.record, recordFolder(folder)).slice(0, 20), [], `snapshot ${id} restored`);
  }

  async #read(): Promise<string | undefined> {
    const picked = this.#pickSnapshot();
    if (picked === undefined) return undefined;
    await this.#expectReadable(await this.#bench.open(), picked);
    return picked[0].slice(0, 8);
  }

  async #expectReadable(repository: Repository, [id, expected]: readonly [string, Expected]): Promise<void> {
    const snapshot = (await this.#bench.snapshots()).find((each) => each.id === id);
    assert.ok(snapshot !== undefined, `snapshot ${id} is there`);
    const found = await recordSnapshot(repository, snapshot.tree, fromUtf8(expected.folder));
    assert.deepEqual(diffRecords(expected.record, found).slice(0, 20), [], `snapshot ${id} read`);
  }

  async #forget(): Promise<string> {
    const repository = await this.#bench.open();
    await using lock = await lockRepository(repository, { exclusive: true });
    const last = 1 + this.#random.below(8);
    const options = { groupBy: groupByHostAndPaths, nowNs: 2n ** 62n, timeZone: "UTC", allowRemoveAll: false, isFiltered: false };
    const plan = planForget(await this.#bench.snapshots(), { ...emptyPolicy, last }, options);
    const { failed, removed } = await runForget(repository.store, plan, { signal: lock.signal });
    assert.deepEqual(failed, []);
    for (const id of removed) assert.ok(this.#oracle.delete(id));
    return `${removed.length}, the last ${last} stay`;
  }

  async #forgetByRestic(): Promise<string> {
    const ids = [...this.#oracle.keys()].filter(() => this.#random.next() < (this.#oracle.size > mostSnapshots ? 0.7 : 0.2));
    if (ids.length > 0) await this.#bench.resticAsync("forget", ...ids);
    for (const id of ids) this.#oracle.delete(id);
    return `${ids.length}`;
  }

  async #prune(): Promise<string> {
    const repository = await this.#bench.open();
    await using lock = await lockRepository(repository, { exclusive: true });
    const random = this.#random;
    const plan = await planPrune(repository, {
      maxUnused: random.pick([{ kind: "size", sizeBytes: 0 }, { kind: "percent", percent: 10 }, { kind: "unlimited" }] as const),
      ...(random.next() < 0.3 ? { maxRepackBytes: 2_000_000 } : {}),
      repackSmall: random.next() < 0.3,
      packBytes: random.pick([1 << 20, 16 << 20]),
      signal: lock.signal,
    });
    const report = await runPrune(repository, plan, { workers: 1 + random.below(3), signal: lock.signal });
    return JSON.stringify(report);
  }

  async #pruneByRestic(): Promise<string> {
    const most = this.#random.pick(["0", "10%", "unlimited"]);
    await this.#bench.resticAsync("prune", "--max-unused", most);
    return `at most ${most} unused`;
  }

  async #killPrune(): Promise<string> {
    const args = [`${1 + this.#random.below(15)}`, this.#random.pick(["before", "midway", "after"])];
    const child = this.#bench.start(process.execPath, ["--conditions=source", pruneScript, this.#bench.location, ...args, password]);
    const [code, signal] = (await once(child, "exit")) as [number | null, string | null]; // of "exit"
    assert.ok(code === 0 || signal === "SIGKILL", `prune ended with ${code}`);
    await this.#unlock();
    return `${args.join(" ")}${signal === null ? ", too late" : ""}`;
  }

  async #check(): Promise<string> {
    const { errors, notes } = await checkRepository(await this.#bench.open(), { readData: { kind: "all" }, workers: 2 });
    assert.deepEqual(errors, []);
    return `${notes.length} notes`;
  }

  async #checkByRestic(): Promise<undefined> {
    await this.#bench.resticAsync("check", "--read-data");
    return undefined;
  }

  /** The snapshots are those of the oracle, no more and no less. */
  async #expectSnapshots(): Promise<void> {
    const ids = (await this.#bench.snapshots()).map(({ id }) => id);
    assert.deepEqual(ids.toSorted(), [...this.#oracle.keys()].sort());
  }

  async #expectEverything(): Promise<void> {
    await this.#expectSnapshots();
    await this.#check();
    await this.#checkByRestic();
    const repository = await this.#bench.open();
    for (const picked of this.#oracle) await this.#expectReadable(repository, picked);
  }
}
