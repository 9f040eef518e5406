/**
 * A long random life of one repository: a source changes, both programs back it up, forget, prune, check and restore, ours is killed at any
 * moment; and an oracle knows for each snapshot what the source was, and which snapshots must be there. Whatever does not agree throws.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Lot } from "./lot.ts";
import { diffManifests, type Manifest, readManifest } from "./manifest.ts";
import { type Program, Programs, type RunOptions, type RunResult } from "./programs.ts";
import { SourceTree } from "./source-tree.ts";

type Action = () => Promise<void>;

const programs = ["granary", "restic"] as const;
/** With more snapshots, as many go as come. */
const manySnapshots = 14;

export class RobustnessRun {
  /** How often each thing was done. */
  readonly counts: Map<string, number> = new Map();
  readonly #lot: Lot;
  readonly #folder: string;
  readonly #programs: Programs;
  readonly #source: SourceTree;
  readonly #say: (line: string) => void;
  /** What the source was at each snapshot that was acknowledged, and not forgotten. */
  readonly #oracle = new Map<string, Manifest>();
  /** The longest run of each verb: kills come within it. */
  readonly #longestMs = new Map<string, number>();
  #restores = 0;

  /** @param say is given a line for each action */
  constructor(folder: string, lot: Lot, say: (line: string) => void) {
    this.#folder = folder;
    this.#lot = lot;
    this.#say = say;
    this.#programs = new Programs(folder);
    this.#source = new SourceTree(join(folder, "source"), lot);
  }

  async begin(): Promise<void> {
    await this.#run("granary", ["init"]);
    await this.#backUp("granary");
  }

  /** Does one thing by lot, and looks whether every snapshot is there that must be, and no other. */
  async step(): Promise<void> {
    const many = this.#oracle.size > manySnapshots;
    await this.#lot.pickWeighted<Action>([
      [30, () => this.#write()],
      [14, () => this.#backUp("granary")],
      [10, () => this.#backUp("restic")],
      [3, () => this.#backUpTogether()],
      [9, () => this.#killBackup()],
      [7, () => this.#restoreOne(this.#lot.pick(programs))],
      [4, () => this.#killRestore()],
      [many ? 12 : 3, () => this.#forgetOne(this.#lot.pick(programs))],
      [many ? 8 : 1, () => this.#forgetOld(this.#lot.pick(programs))],
      [2, () => this.#killForgetAndPrune()],
      [4, () => this.#prune("granary")],
      [3, () => this.#prune("restic")],
      [7, () => this.#killPrune()],
      [3, () => this.#check("granary", this.#lot.isHeads(0.4))],
      [2, () => this.#check("restic", this.#lot.isHeads(0.4))],
    ])();
    this.#expectSnapshots();
  }

  /** Everything that is left is whole and is what it was, for both. */
  async end(): Promise<void> {
    this.#expectSnapshots();
    for (const program of programs) await this.#check(program, true);
    for (const id of this.#oracle.keys()) for (const program of programs) await this.#restore(program, id);
    await this.#run("granary", ["prune", "--max-unused", "0"]);
    for (const program of programs) await this.#check(program, true);
    this.#expectSnapshots();
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** Runs a program that must succeed, unless it is killed. */
  async #run(program: Program, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const { killAfter } = options;
    const shown = `${program} ${args.join(" ")}`;
    const result = await this.#programs.run(program, args, options);
    const isKilled = killAfter !== undefined && result.exitCode === null;
    const end = isKilled ? `killed (${JSON.stringify(killAfter)})` : `exit code ${result.exitCode}`;
    this.#say(`${shown}: ${end}, ${result.durationMs.toFixed(0)} ms`);
    const verb = `${program} ${args[0]}`;
    if (!isKilled) {
      assert.equal(result.exitCode, 0, `${shown} fails:\n${result.stdout.slice(-3000)}\n${result.stderr.slice(-3000)}`);
      this.#longestMs.set(verb, Math.max(result.durationMs, 0.9 * (this.#longestMs.get(verb) ?? 0)));
    }
    this.#count(isKilled ? `${verb}, killed` : verb);
    return result;
  }

  /** Kills ours at a moment by lot, and unlocks as a user would. */
  async #kill(args: readonly string[]): Promise<RunResult> {
    const longestMs = this.#longestMs.get(`granary ${args[0]}`) ?? 1500;
    // the first third is starting up and asking for the lock
    const ms = Math.round((this.#lot.isHeads(0.8) ? 0.3 + this.#lot.draw() * 0.8 : this.#lot.draw()) * longestMs);
    const isAtChange = args[0] !== "restore" && this.#lot.isHeads();
    const killAfter = isAtChange ? { changes: this.#lot.count(1, this.#lot.pick([6, 20, 60])) } : { ms };
    const result = await this.#run("granary", args, { killAfter });
    if (this.#programs.list("locks").length > 0) await this.#run(this.#lot.isHeads(0.7) ? "granary" : "restic", ["unlock"]);
    assert.deepEqual(this.#programs.list("locks"), [], "locks of a killed process are removed");
    return result;
  }

  #write(): Promise<void> {
    for (let left = this.#lot.count(1, 25); left > 0; left--) {
      this.#say(this.#source.change());
      this.#count("changes of the source");
    }
    return Promise.resolve();
  }

  /** Snapshots that the oracle does not know yet are of the source as it is now. @returns how many there were */
  #adopt(): number {
    const unknown = this.#programs.list("snapshots").filter((id) => !this.#oracle.has(id));
    if (unknown.length > 0) {
      const manifest = readManifest(this.#source.folder);
      for (const id of unknown) this.#oracle.set(id, manifest);
    }
    return unknown.length;
  }

  #backupArguments(program: Program): string[] {
    const chosen = ["backup", this.#source.folder];
    if (this.#lot.isHeads(0.4)) chosen.push("--pack-size", "4");
    if (this.#lot.isHeads(0.15)) chosen.push("--force");
    if (program === "granary" && this.#lot.isHeads(0.3)) chosen.push("--chunker", "rabin");
    return chosen;
  }

  async #backUp(program: Program): Promise<void> {
    await this.#run(program, this.#backupArguments(program));
    assert.equal(this.#adopt(), 1, "a backup makes one snapshot");
  }

  async #backUpTogether(): Promise<void> {
    await Promise.all(programs.map((program) => this.#run(program, this.#backupArguments(program))));
    assert.equal(this.#adopt(), 2, "two backups make two snapshots");
  }

  async #killBackup(): Promise<void> {
    const { exitCode } = await this.#kill(this.#backupArguments("granary"));
    // the snapshot may have been written, though nobody was told: then it must be whole
    const count = this.#adopt();
    if (exitCode === 0) assert.equal(count, 1, "a backup makes one snapshot");
    else assert.ok(count <= 1, `a killed backup left ${count} snapshots`);
  }

  #restoreArguments(program: Program, id: string, target: string): string[] {
    const args = ["restore", id, "--target", target];
    if (program === "granary" && this.#lot.isHeads(0.3)) args.push("--sparse");
    if (program === "granary" && this.#lot.isHeads(0.2)) args.push("--verify");
    return args;
  }

  #expectRestored(program: Program, id: string, target: string): void {
    const differences = diffManifests(this.#oracle.get(id) ?? new Map(), readManifest(join(target, this.#source.folder)));
    assert.deepEqual(differences.slice(0, 20), [], `${program} restores ${id} as its source was; ${differences.length} entries differ`);
    rmSync(target, { recursive: true });
  }

  async #restore(program: Program, id: string): Promise<void> {
    const target = join(this.#folder, `restored ${this.#restores++}`);
    await this.#run(program, this.#restoreArguments(program, id, target));
    this.#expectRestored(program, id, target);
  }

  async #restoreOne(program: Program): Promise<void> {
    if (this.#oracle.size > 0) await this.#restore(program, this.#lot.pick([...this.#oracle.keys()]));
  }

  /** A restore goes on where it was killed. */
  async #killRestore(): Promise<void> {
    if (this.#oracle.size === 0) return;
    const id = this.#lot.pick([...this.#oracle.keys()]);
    const target = join(this.#folder, `restored ${this.#restores++}`);
    for (let kills = this.#lot.count(1, 3); kills > 0; kills--) await this.#kill(this.#restoreArguments("granary", id, target));
    await this.#run("granary", this.#restoreArguments("granary", id, target));
    this.#expectRestored("granary", id, target);
  }

  async #forgetOne(program: Program): Promise<void> {
    if (this.#oracle.size < 2) return;
    const id = this.#lot.pick([...this.#oracle.keys()]);
    await this.#run(program, ["forget", id, ...this.#lot.pick([[], [], ["--prune"]])]);
    this.#oracle.delete(id);
  }

  /** The ids of all snapshots but the newest `last`. */
  async #listOld(last: number): Promise<string[]> {
    const { stdout } = await this.#run(this.#lot.pick(programs), ["snapshots", "--json"]);
    const snapshots = JSON.parse(stdout) as { id: string; time: string }[]; // both write it so
    const nanos = ({ time }: { time: string }): bigint =>
      BigInt(Date.parse(time.replace(/\.\d+/, ""))) * 1_000_000n + BigInt((/\.(\d+)/.exec(time)?.[1] ?? "").padEnd(9, "0"));
    const newestFirst = snapshots.toSorted((a, b) => (nanos(a) > nanos(b) ? -1 : 1));
    return newestFirst.slice(last).map(({ id }) => id);
  }

  async #forgetOld(program: Program): Promise<void> {
    const last = this.#lot.count(2, 10);
    const old = await this.#listOld(last);
    await this.#run(program, ["forget", "--keep-last", String(last), ...this.#lot.pick([[], [], ["--prune"]])]);
    for (const id of old) this.#oracle.delete(id);
  }

  async #killForgetAndPrune(): Promise<void> {
    const last = this.#lot.count(4, 12);
    const old = await this.#listOld(last);
    const { exitCode } = await this.#kill(["forget", "--keep-last", String(last), "--prune", "--max-unused", "0"]);
    const left = new Set(this.#programs.list("snapshots"));
    for (const id of old) if (exitCode === 0 || !left.has(id)) this.#oracle.delete(id);
  }

  #pruneArguments(): string[] {
    return ["prune", ...this.#lot.pick([[], ["--max-unused", "0"], ["--max-unused", "0"], ["--max-repack-size", "20M"]])];
  }

  async #prune(program: Program): Promise<void> {
    await this.#run(program, this.#pruneArguments());
  }

  async #killPrune(): Promise<void> {
    await this.#kill(this.#pruneArguments());
    if (this.#lot.isHeads(0.5)) await this.#check(this.#lot.pick(programs), this.#lot.isHeads(0.3));
  }

  async #check(program: Program, isReadingData: boolean): Promise<void> {
    await this.#run(program, ["check", ...(isReadingData ? ["--read-data"] : [])]);
  }

  #expectSnapshots(): void {
    assert.deepEqual(
      this.#programs.list("snapshots"),
      [...this.#oracle.keys()].sort(),
      "every snapshot is there that must be, and no other",
    );
    assert.deepEqual(this.#programs.list("locks"), [], "nobody leaves a lock");
  }
}
