/** Flags that every `granary repo` command has, where their values come from when they are not given, and what they mean. */

import { availableParallelism } from "node:os";
import { readFileSync } from "node:fs";
import { type Command, Option } from "commander";
import { Failure, messageOf } from "@granary/base/errors";
import { type Environment, findPasswordSource, type PasswordSource } from "./password.ts";
import type { Verbosity } from "./output.ts";
import { parseCount } from "./parse-size.ts";
import { parseSpanMs } from "./parse-time.ts";

/** As commander leaves them: absent when not given. */
interface GlobalFlags {
  readonly repo?: string;
  readonly repositoryFile?: string;
  readonly passwordFile?: string;
  readonly passwordCommand?: string;
  readonly keyHint?: string;
  readonly lock?: boolean;
  readonly retryLock?: string;
  readonly compression?: string;
  readonly packSize?: string;
  readonly readConcurrency?: string;
  readonly cacert?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: number;
}

/** Where a repository is and what opens it. */
export interface RepositoryAddress {
  /** Absent when nobody said it. */
  readonly location: string | undefined;
  readonly password: PasswordSource;
  readonly keyHint: string | undefined;
}

/** What the flags and the environment of a run say, complete. */
export interface GlobalOptions {
  readonly repository: RepositoryAddress;
  readonly isLocking: boolean;
  readonly retryLockMs: number;
  /** zstd level, 0 for none. */
  readonly compressionLevel: number;
  readonly packBytes: number;
  readonly workers: number;
  /** Certificates in PEM. */
  readonly ca: string | undefined;
  readonly isJson: boolean;
  readonly verbosity: Verbosity;
}

const defaultPackMiB = 16;
const levels: Readonly<Record<string, number>> = { off: 0, auto: 1, max: 19 };
/** More threads than this do not help: what they share, the disk above all, is slower. */
const mostWorkers = 8;

const group = "Options of every command:";

/** Adds the flags. Without defaults, so that it can be told what was given where. */
export function addGlobalOptions(command: Command): void {
  const options = [
    new Option(
      "-r, --repo <repository>",
      "where the repository is: a folder, or rest:https://host:8000/path/ (default: $GRANARY_REPOSITORY)",
    ),
    new Option("--repository-file <file>", "file to read that from (default: $GRANARY_REPOSITORY_FILE)"),
    new Option("-p, --password-file <file>", "file to read the password from (default: $GRANARY_PASSWORD_FILE)"),
    new Option("--password-command <command>", "command that prints the password (default: $GRANARY_PASSWORD_COMMAND)"),
    new Option("--key-hint <id>", "the key to try first (default: $GRANARY_KEY_HINT)"),
    new Option("--no-lock", "do not lock the repository: for reading from one that cannot be written"),
    new Option("--retry-lock <time>", "when it is locked, try for so long, such as 5m or 2h (default: 0)"),
    new Option("--compression <mode>", "auto, off or max (default: $GRANARY_COMPRESSION, else auto)"),
    new Option("--pack-size <MiB>", `size of pack files, 4 to 128 (default: $GRANARY_PACK_SIZE, else ${defaultPackMiB})`),
    new Option("--read-concurrency <n>", "threads that read and pack (default: $GRANARY_READ_CONCURRENCY, else one a processor)"),
    new Option("--cacert <file>", "PEM file with the certificates to trust for rest:https (default: $GRANARY_CACERT)"),
    new Option("--json", "write results as JSON"),
    new Option("-q, --quiet", "say nothing but warnings and errors"),
    new Option("-v, --verbose", "say more; twice for even more").argParser<number>((_, count) => (count ?? 0) + 1),
    new Option("--cache-dir <directory>", "accepted and ignored: there is no cache").hideHelp(),
    new Option("--no-cache", "accepted and ignored: there is no cache").hideHelp(),
    new Option("--cleanup-cache", "accepted and ignored: there is no cache").hideHelp(),
  ];
  for (const option of options) command.addOption(option.helpGroup(group));
}

/** Adds the flags that name a second repository, to copy from. */
export function addFromOptions(command: Command): void {
  command
    .option("--from-repo <repository>", "where the repository to copy from is (default: $GRANARY_FROM_REPOSITORY)")
    .option("--from-repository-file <file>", "file to read that from (default: $GRANARY_FROM_REPOSITORY_FILE)")
    .option("--from-password-file <file>", "file to read its password from (default: $GRANARY_FROM_PASSWORD_FILE)")
    .option("--from-password-command <command>", "command that prints its password (default: $GRANARY_FROM_PASSWORD_COMMAND)")
    .option("--from-key-hint <id>", "the key to try first (default: $GRANARY_FROM_KEY_HINT)");
}

/** What the environment says under a name: GRANARY_… before RESTIC_…; empty counts as absent. */
export function findVariable(env: Environment, name: string): string | undefined {
  return env[`GRANARY_${name}`] || env[`RESTIC_${name}`] || undefined;
}

/**
 * Reads the flags of a command and of those above it, of which the nearest counts, and the environment.
 *
 * @throws InvalidArgument; InputUnreadable when a file that a flag names cannot be read
 */
export function readGlobalOptions(command: Command, env: Environment): GlobalOptions {
  const flags = mergeFlags(command);
  const verbosity = flags.quiet === true ? 0 : Math.min(3, 1 + (flags.verbose ?? 0));
  const cacert = flags.cacert ?? findVariable(env, "CACERT");
  return {
    repository: {
      location: findLocation({ repo: flags.repo, file: flags.repositoryFile }, env),
      password: findPasswordSource({ command: flags.passwordCommand, file: flags.passwordFile }, env),
      keyHint: flags.keyHint ?? findVariable(env, "KEY_HINT"),
    },
    isLocking: flags.lock !== false,
    retryLockMs: flags.retryLock === undefined ? 0 : parseSpanMs(flags.retryLock, "--retry-lock"),
    compressionLevel: parseCompression(flags.compression ?? findVariable(env, "COMPRESSION") ?? "auto"),
    packBytes: parsePackSize(flags.packSize ?? findVariable(env, "PACK_SIZE")),
    workers: parseWorkers(flags.readConcurrency ?? findVariable(env, "READ_CONCURRENCY")),
    ca: cacert === undefined ? undefined : readText(cacert, "certificates"),
    isJson: flags.json === true,
    verbosity: verbosity === 0 || verbosity === 1 || verbosity === 2 ? verbosity : 3,
  };
}

/** The repository to copy from. @throws as {@link readGlobalOptions} */
export function readFromAddress(command: Command, env: Environment): RepositoryAddress {
  const flags = command.opts<{
    fromRepo?: string;
    fromRepositoryFile?: string;
    fromPasswordFile?: string;
    fromPasswordCommand?: string;
    fromKeyHint?: string;
  }>();
  return {
    location: findLocation({ repo: flags.fromRepo, file: flags.fromRepositoryFile }, env, "FROM_"),
    password: findPasswordSource({ command: flags.fromPasswordCommand, file: flags.fromPasswordFile }, env, "FROM_"),
    keyHint: flags.fromKeyHint ?? findVariable(env, "FROM_KEY_HINT"),
  };
}

function mergeFlags(command: Command): GlobalFlags {
  const above = command.parent === null ? {} : mergeFlags(command.parent);
  const own = command.opts<GlobalFlags>();
  const given = Object.fromEntries(Object.entries(own).filter(([name]) => command.getOptionValueSource(name) === "cli"));
  const verbose = (above.verbose ?? 0) + (own.verbose ?? 0);
  return { ...above, ...given, ...(verbose === 0 ? {} : { verbose }) };
}

function findLocation(flags: { repo: string | undefined; file: string | undefined }, env: Environment, infix = ""): string | undefined {
  if (flags.repo !== undefined && flags.file !== undefined) {
    throw new Failure("InvalidArgument", "Cannot use --repo and --repository-file together: one of them is needed");
  }
  if (flags.repo !== undefined) return flags.repo;
  if (flags.file !== undefined) return readText(flags.file, "repository's location").trim();
  for (const prefix of [`GRANARY_${infix}`, `RESTIC_${infix}`]) {
    const [location, file] = [env[`${prefix}REPOSITORY`] || undefined, env[`${prefix}REPOSITORY_FILE`] || undefined];
    if (location !== undefined) return location;
    if (file !== undefined) return readText(file, "repository's location").trim();
  }
  return undefined;
}

function readText(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new Failure("InputUnreadable", `Cannot read the ${what} from "${path}": ${messageOf(cause)}`, { details: { path }, cause });
  }
}

function parseCompression(mode: string): number {
  const level = levels[mode];
  if (level !== undefined) return level;
  throw new Failure("InvalidArgument", `Cannot use --compression "${mode}": auto, off or max is needed`);
}

function parsePackSize(text: string | undefined): number {
  const sizeMiB = text === undefined ? defaultPackMiB : parseCount(text, "--pack-size");
  if (sizeMiB >= 4 && sizeMiB <= 128) return sizeMiB * 2 ** 20;
  throw new Failure("InvalidArgument", `Cannot use --pack-size "${text ?? ""}": a whole number of MiB from 4 to 128 is needed`);
}

function parseWorkers(text: string | undefined): number {
  if (text === undefined) return Math.min(mostWorkers, availableParallelism());
  return Math.min(64, parseCount(text, "--read-concurrency", 1));
}
