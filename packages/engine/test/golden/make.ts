/**
 * Makes the golden repositories anew, with the real restic, from data that a seed decides: `node --conditions=source make.ts`.
 *
 * They are committed, so that readers are tested against bytes that restic 0.14 wrote, whatever restic the machine has. Keys and seals are
 * random, so each run gives other files. The password is in the tests, and protects nothing.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenFolder, goldenPassword } from "./golden.ts";

const seed = 20261;

/** Numbers in [0, 1) that only the seed decides (Mulberry32). */
function random(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const draw = random(seed);

function noise(bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, () => Math.floor(draw() * 256));
}

function write(folder: string, name: string, content: Uint8Array | string): void {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, content, { mode: 0o640 });
}

/** Three states of one folder, each backed up in turn. */
function makeState(folder: string, state: number): void {
  if (state === 1) {
    for (let i = 0; i < 12; i++) write(folder, `documents/report-${i}.txt`, `Report ${i}\n${"All is well. ".repeat(20 + i * 7)}\n`);
    for (let i = 0; i < 5; i++) write(folder, `pictures/holiday/image-${i}.jpg`, noise(3000 + i * 500));
    write(folder, "pictures/empty", "");
    write(folder, "common/deep/er/same.txt", "the same in all\n".repeat(50));
    symlinkSync("documents/report-1.txt", join(folder, "latest"));
  }
  if (state === 2) {
    for (let i = 0; i < 3; i++) write(folder, `documents/report-${i}.txt`, `Report ${i}, revised\n${"All is better. ".repeat(30)}\n`);
    write(folder, "music/song.ogg", noise(20_000));
    rmSync(join(folder, "pictures/holiday/image-0.jpg"));
  }
  if (state === 3) {
    rmSync(join(folder, "music"), { recursive: true });
    write(folder, "music/other.ogg", noise(9000));
    write(folder, 'odd/na"me <&> \u00e9', "a name with everything\n");
  }
}

function make(name: string, version: "1" | "2"): void {
  const work = mkdtempSync(join(tmpdir(), "granary-golden-"));
  const source = join(work, "home");
  const repository = join(work, "repository");
  mkdirSync(source);
  const restic = (...args: string[]): void => {
    execFileSync("restic", ["--no-cache", "--quiet", ...args], {
      cwd: work,
      env: { ...process.env, RESTIC_REPOSITORY: repository, RESTIC_PASSWORD: goldenPassword, TZ: "UTC" },
      stdio: ["ignore", "inherit", "inherit"],
    });
  };
  restic("init", "--repository-version", version);
  for (const state of [1, 2, 3]) {
    makeState(source, state);
    utimesSync(source, state * 1000, state * 1000);
    restic("backup", "--host", "golden", "--time", `2026-01-0${state} 12:00:00`, "home");
  }
  const target = join(goldenFolder, name);
  rmSync(target, { recursive: true, force: true });
  cpSync(repository, target, { recursive: true });
  for (const fan of readdirSync(join(target, "data"))) {
    const folder = join(target, "data", fan);
    if (readdirSync(folder).length === 0) rmSync(folder, { recursive: true });
  }
  rmSync(work, { recursive: true });
}

make("healthy", "2");
make("healthy-v1", "1");
