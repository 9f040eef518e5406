/** The programs that are measured and the commands each operation takes: their own defaults, encrypted repositories in a local folder. */

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "./measured-run.ts";
import type { Operation, ProgramName } from "./vocabulary.ts";

/** Where a program works on one data set: everything it writes is under one folder. */
export interface Place {
  readonly repository: string;
  readonly cache: string;
  /** What is backed up. */
  readonly source: string;
  /** Where it is restored to: an empty folder. The copy is at `target/source`. */
  readonly target: string;
  /** The backup made last; borg's archives have names. */
  readonly latest?: Operation;
}

/** A program under measurement. */
export interface Program {
  readonly name: ProgramName;
  readonly version: string;
  /** Makes an empty repository. */
  create(place: Place): Command[];
  commands(operation: Operation, place: Place): Command[];
  /** Lists the snapshots: as restic's JSON, or a line each. Ours are listed by restic. */
  list(place: Place): Command;
  /** restic's check of our repositories. */
  readonly foreignCheck?: (place: Place) => Command;
}

const password = "correct horse battery staple";

/** The environment of every program: nothing of this process's, so that no setting of the user's or of npm's changes a figure. */
function makeEnvironment(place: Pick<Place, "cache">, home: string): Record<string, string> {
  return {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: home,
    TMPDIR: join(home, "tmp"),
    LANG: "C.UTF-8",
    GRANARY_PASSWORD: password,
    RESTIC_PASSWORD: password,
    RESTIC_CACHE_DIR: join(place.cache, "restic"),
    BORG_PASSPHRASE: password,
    BORG_BASE_DIR: join(place.cache, "borg"),
  };
}

/** A program with restic's verbs: restic, and ours. */
function resticLike({
  name,
  words,
  version,
  home,
}: {
  name: ProgramName;
  words: readonly string[];
  version: string;
  home: string;
}): Program {
  const command = (place: Place, ...args: readonly string[]): Command => ({
    words: [...words, "-r", place.repository, ...args],
    folder: home,
    environment: makeEnvironment(place, home),
  });
  const restic = (place: Place, ...args: readonly string[]): Command => ({
    ...command(place),
    words: ["restic", "-r", place.repository, "--no-cache", ...args],
  });
  const verbs: Readonly<Record<Operation, (place: Place) => readonly string[]>> = {
    "first-part": (place) => ["backup", place.source],
    "first-backup": (place) => ["backup", place.source],
    "no-change": (place) => ["backup", place.source],
    "one-percent": (place) => ["backup", place.source],
    restore: (place) => ["restore", "latest", "--target", place.target],
    check: () => ["check", "--read-data"],
    prune: () => ["forget", "--keep-last", "1", "--prune"],
  };
  return {
    name,
    version,
    create: (place) => [command(place, "init")],
    commands: (operation, place) => [command(place, ...verbs[operation](place))],
    list: (place) => restic(place, "snapshots", "--json"),
    ...(name === "granary" ? { foreignCheck: (place) => restic(place, "check", "--read-data") } : {}),
  };
}

/** Borg; its chunker, its cache and the rest as they come, the compression named. */
function borg({ name, compression, home }: { name: ProgramName; compression: string; home: string }): Program {
  const command = (place: Place, folder: string, ...args: readonly string[]): Command => ({
    words: ["borg", ...args],
    folder,
    environment: makeEnvironment(place, home),
  });
  const create = (place: Place, archive: string): Command[] => [
    command(place, home, "create", "--compression", compression, `${place.repository}::${archive}`, place.source),
  ];
  return {
    name,
    version: readVersion("borg", "--version"),
    create: (place) => [command(place, home, "init", "--encryption", "repokey", place.repository)],
    list: (place) => command(place, home, "list", "--short", place.repository),
    commands(operation, place) {
      switch (operation) {
        case "first-part":
        case "first-backup":
        case "no-change":
        case "one-percent":
          return create(place, operation);
        case "restore":
          return [command(place, place.target, "extract", `${place.repository}::${place.latest ?? ""}`)];
        case "check":
          return [command(place, home, "check", "--verify-data", place.repository)];
        case "prune":
          return [command(place, home, "prune", "--keep-last", "1", place.repository), command(place, home, "compact", place.repository)];
      }
    },
  };
}

function readVersion(...words: readonly string[]): string {
  const [program = "", ...args] = words;
  const run = spawnSync(program, args, { encoding: "utf8" });
  const version = /\d+\.\d+\.\d+/.exec(run.stdout ?? "")?.[0];
  if (version === undefined) throw new Error(`Cannot find the version of ${program}: ${run.error?.message ?? run.stderr}`);
  return version;
}

/**
 * Opens a program. Ours is packed and installed under `workFolder` as a user would install it; with `isResumed` what an earlier run
 * installed there is measured on, whatever the checkout holds by now.
 */
export function openProgram(name: ProgramName, workFolder: string, isResumed: boolean): Program {
  const home = join(workFolder, "home", name);
  mkdirSync(join(home, "tmp"), { recursive: true });
  switch (name) {
    case "granary": {
      const { path, version } = install(workFolder, isResumed);
      return resticLike({ name, words: [path, "repo"], version, home });
    }
    case "restic":
      return resticLike({ name, words: ["restic"], version: readVersion("restic", "version"), home });
    case "borg-lz4":
      return borg({ name, compression: "lz4", home });
    case "borg-zstd":
      return borg({ name, compression: "zstd", home });
  }
}

const root = join(import.meta.dirname, "../..");

/** Packs this checkout and installs the package into a folder; answers the command. */
function install(workFolder: string, isResumed: boolean): { path: string; version: string } {
  const prefix = join(workFolder, "installed");
  const path = join(prefix, "bin/granary");
  const tarball = `granary-${(JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string }).version}.tgz`;
  if (isResumed && existsSync(path)) return { path, version: readVersion(path, "--version") };
  console.log("bench: packing and installing granary");
  npm("pack", "--silent", "--pack-destination", workFolder);
  npm(
    "install",
    "--global",
    "--prefix",
    prefix,
    "--ignore-scripts",
    "--prefer-offline",
    "--no-audit",
    "--no-fund",
    join(workFolder, tarball),
  );
  return { path, version: `${readVersion(path, "--version")}${findCommit()}` };
}

/** The commit that is measured, and whether the checkout differs from it; empty outside a checkout. */
function findCommit(): string {
  const run = spawnSync("git", ["describe", "--always", "--dirty", "--exclude", "*"], { cwd: root, encoding: "utf8" });
  return run.status === 0 ? ` (${run.stdout.trim()})` : "";
}

/** Runs the npm that runs us, or the one on the PATH. */
function npm(...args: readonly string[]): void {
  const path = process.env.npm_execpath;
  const words = path === undefined ? ["npm", ...args] : [process.execPath, path, ...args];
  const environment = { ...process.env, npm_config_loglevel: "error" };
  const run = spawnSync(words[0] ?? "", words.slice(1), { cwd: root, encoding: "utf8", env: environment });
  if (run.status !== 0) throw new Error(`npm ${args.join(" ")} failed: ${run.error?.message ?? ""}${run.stderr}${run.stdout}`);
}
