/**
 * Whether the programs did what they were timed for. A backup that stores nothing and a check that reads nothing would be fast. Restores
 * are compared each time, in number and size; what takes longer is done once for each program and data set and noted in the results.
 */

import { spawnSync } from "node:child_process";
import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "./measured-run.ts";
import type { Place, Program } from "./programs.ts";
import { compareTrees, countTree } from "./tree-compare.ts";

/** Runs `proof` unless its text is among those proven, then notes it. @throws Error when the proof fails */
export type Prove = (text: string, proof: () => void) => void;

/** Proves a restore: the copy is what was backed up. */
export function proveRestore(place: Place, prove: Prove): void {
  const copy = join(place.target, place.source);
  const [wanted, found] = [countTree(place.source), countTree(copy)];
  if (JSON.stringify(wanted) !== JSON.stringify(found))
    throw new Error(`Restored ${JSON.stringify(found)} where ${JSON.stringify(wanted)} was backed up`);
  prove("restored every byte, name, mode, owner and time (ns) of what was backed up", () => compareTrees(place.source, copy));
}

/** Proves that the repository holds as many snapshots as it should. */
export function proveCount(program: Program, place: Place, { expected, prove }: { expected: number; prove: Prove }): void {
  prove(`${expected} snapshot${expected === 1 ? "" : "s"} listed ${expected === 1 ? "after" : "before"} pruning`, () => {
    const { stdout } = runQuietly(program.list(place));
    const listed = stdout.startsWith("[")
      ? (JSON.parse(stdout) as unknown[]).length
      : stdout.split("\n").filter((line) => line !== "").length;
    if (listed !== expected) throw new Error(`The repository lists ${listed} snapshots where ${expected} are expected`);
  });
}

/** Proves our repository by the program whose format it has, and our check by damage. */
export function proveOurs(program: Program, { place, foreignCheck, prove }: { place: Place; foreignCheck: Command; prove: Prove }): void {
  prove("restic check --read-data passes on the pruned repository", () => void runQuietly(foreignCheck));
  prove("check finds a flipped byte", () => {
    flipByte(findLargestFile(join(place.repository, "data")));
    for (const command of program.commands("check", place)) {
      const { status } = spawnQuietly(command);
      if (status === 0 || status === null) throw new Error(`"${command.words.join(" ")}" passes a repository with a flipped byte`);
    }
  });
}

function spawnQuietly({ words, folder, environment }: Command): { status: number | null; stdout: string; stderr: string } {
  const [program = "", ...args] = words;
  return spawnSync(program, args, { cwd: folder, env: environment, encoding: "utf8", maxBuffer: 2 ** 28 });
}

function runQuietly(command: Command): { stdout: string } {
  const run = spawnQuietly(command);
  if (run.status !== 0) throw new Error(`"${command.words.join(" ")}" ended with ${run.status ?? "a signal"}: ${run.stderr}`);
  return run;
}

function findLargestFile(folder: string): string {
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const largest = paths.reduce((best, path) => (best === "" || statSync(path).size > statSync(best).size ? path : best), "");
  if (largest === "") throw new Error(`There is no pack in ${folder}`);
  return largest;
}

/** Flips the lowest bit of the byte in the middle; on purpose for good: the repository is removed next. */
function flipByte(path: string): void {
  const middle = Math.floor(statSync(path).size / 2);
  const byte = Buffer.alloc(1);
  const file = openSync(path, "r+");
  readSync(file, byte, 0, 1, middle);
  byte.writeUInt8(byte.readUInt8() ^ 1);
  writeSync(file, byte, 0, 1, middle);
  closeSync(file);
}
