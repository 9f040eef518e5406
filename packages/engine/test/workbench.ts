/** A repository in a temporary folder, with what tests of backups do to it again and again: our own backups, and runs of the real restic. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Secret } from "@granary/base/secret";
import { type BackupOptions, type BackupReport, runBackup } from "../src/backup/backup.ts";
import type { BackupTrouble } from "../src/backup/messages.ts";
import { type ByteString, fromUtf8 } from "../src/format/byte-string.ts";
import { loadIndex } from "../src/repository/index-load.ts";
import { lockRepository } from "../src/repository/lock.ts";
import { createRepository, openRepository, type Repository } from "../src/repository/repository.ts";
import { findParent, loadSnapshots, type StoredSnapshot } from "../src/repository/snapshots.ts";
import { openLocalStore } from "../src/store/local.ts";
import type { Store } from "../src/store/store.ts";

export const password = "correct horse battery staple";
/** Keys that open at once. */
export const cheapScrypt = { N: 1024, r: 8, p: 1 };

/** A store that does most things as another one does them. */
export function wrapStore(inner: Store, own: Partial<Store>): Store {
  const pathOf = inner.pathOf?.bind(inner);
  return {
    location: inner.location,
    concurrency: inner.concurrency,
    settleMs: inner.settleMs,
    create: () => inner.create(),
    save: (ref, data, signal) => inner.save(ref, data, signal),
    load: (ref, span, signal) => inner.load(ref, span, signal),
    stat: (ref, signal) => inner.stat(ref, signal),
    list: (kind, signal) => inner.list(kind, signal),
    remove: (ref, signal) => inner.remove(ref, signal),
    ...(pathOf === undefined ? {} : { pathOf }),
    close: () => inner.close(),
    ...own,
  };
}

/** What a test says of a backup; the rest has defaults that do not depend on this machine. */
export interface BackupRequest extends Partial<Omit<BackupOptions, "targets" | "onTrouble">> {
  readonly targets?: readonly ByteString[];
  /** Where the repository is, when not in the workbench's folder. */
  readonly store?: Store;
  /** Takes no lock, which saves time. */
  readonly isUnlocked?: boolean;
}

/** How a backup went. */
export interface BackupOutcome extends BackupReport {
  readonly troublesSeen: readonly BackupTrouble[];
}

/** The options of a backup whose outcome depends on nothing but the source. */
export function backupOptions(request: BackupRequest): BackupOptions {
  return { targets: [], hostname: "host", username: "user", workers: 2, ...request };
}

/** Opens a repository as a command does: locked, snapshots before the index, the newest one of the same host and paths as the parent. */
export async function backUp(store: Store, request: BackupRequest): Promise<BackupOutcome> {
  const repository = await openRepository(store, { password: new Secret(password) });
  await using lock = request.isUnlocked === true ? undefined : await lockRepository(repository, { exclusive: false, retryMs: 20_000 });
  const snapshots = await loadSnapshots(repository);
  await loadIndex(repository);
  const troublesSeen: BackupTrouble[] = [];
  const options = backupOptions(request);
  const parent = request.parent === undefined ? findParent(snapshots, parentQuery(options)) : request.parent;
  const signals = [lock?.signal, request.signal].filter((signal) => signal !== undefined);
  const report = await runBackup(repository, {
    ...options,
    ...(parent === undefined ? {} : { parent }),
    signal: AbortSignal.any(signals),
    onTrouble: (trouble) => troublesSeen.push(trouble),
  });
  return { ...report, troublesSeen };
}

function parentQuery({ hostname, targets, timeNs }: BackupOptions): { hosts: string[]; paths: string[]; timeNs: bigint } {
  const paths = targets.map((target) => Buffer.from(target, "latin1").toString());
  return { hosts: [hostname], paths: paths.filter((path) => path.startsWith("/")), timeNs: timeNs ?? 2n ** 62n };
}

interface ResticOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  readonly maxBuffer: number;
  readonly encoding: "utf8";
  readonly stdio: ["ignore", "pipe", "pipe"];
}

export class Workbench {
  /** Holds everything; removed at the end. */
  readonly folder: string;
  /** Where the repository is. */
  readonly location: string;
  /** An empty folder to be backed up. */
  readonly source: string;
  readonly #children = new Set<ChildProcess>();

  constructor(name = "backup") {
    this.folder = mkdtempSync(join(tmpdir(), `granary-${name}-`));
    this.location = join(this.folder, "repository");
    this.source = join(this.folder, "source");
    mkdirSync(this.source);
    chmodSync(this.folder, 0o755);
  }

  /** Makes the repository with our own code. */
  async create(store: Store = openLocalStore(this.location)): Promise<void> {
    await createRepository(store, { password: new Secret(password), insecureScryptCost: cheapScrypt });
  }

  /** Opens the repository as it is now, with its index. */
  async open(store: Store = openLocalStore(this.location)): Promise<Repository> {
    const repository = await openRepository(store, { password: new Secret(password) });
    await loadIndex(repository);
    return repository;
  }

  backUp(request: BackupRequest = {}): Promise<BackupOutcome> {
    const { store = openLocalStore(this.location), ...rest } = request;
    return backUp(store, { targets: [fromUtf8(this.source)], ...rest });
  }

  async snapshots(): Promise<StoredSnapshot[]> {
    return loadSnapshots(await openRepository(openLocalStore(this.location), { password: new Secret(password) }));
  }

  /** Runs restic on the repository. A last argument sets environment variables. @returns what it prints */
  restic(...args: readonly (string | NodeJS.ProcessEnv)[]): string {
    const { words, options } = this.#resticCall(args);
    return execFileSync("restic", words, options);
  }

  /** As {@link restic}, without blocking. */
  async resticAsync(...args: readonly (string | NodeJS.ProcessEnv)[]): Promise<string> {
    const { words, options } = this.#resticCall(args);
    return (await promisify(execFile)("restic", words, options)).stdout;
  }

  #resticCall(args: readonly (string | NodeJS.ProcessEnv)[]): { words: string[]; options: ResticOptions } {
    const words = args.filter((arg) => typeof arg === "string");
    const env = Object.assign(this.resticEnvironment(), ...args.filter((arg) => typeof arg !== "string")) as NodeJS.ProcessEnv; // of such parts
    const options: ResticOptions = { env, cwd: this.folder, maxBuffer: 2 ** 28, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] };
    return { words: ["--no-cache", ...words], options };
  }

  /** What tells restic where the repository is and how it is opened. */
  resticEnvironment(): NodeJS.ProcessEnv {
    return { ...process.env, TZ: "UTC", RESTIC_REPOSITORY: this.location, RESTIC_PASSWORD: password };
  }

  /** Has restic check everything, every byte. */
  check(...args: readonly string[]): void {
    const answer = this.restic("check", "--read-data", ...args);
    assert.match(answer, /no errors were found/);
  }

  /** Has restic restore a snapshot. @returns the folder that has what was in `folder` of it */
  restore(snapshot: string, folder: string = this.source): string {
    const target = this.makeFolder(`restored ${readdirSync(this.folder).length}`);
    this.restic("restore", snapshot, "--target", target);
    return join(target, folder);
  }

  /** A new folder beside the repository. */
  makeFolder(name: string): string {
    const path = join(this.folder, name);
    mkdirSync(path);
    return path;
  }

  /** Starts another program, which is ended with the workbench. */
  start(program: string, args: readonly string[], options: Parameters<typeof spawn>[2] = {}): ChildProcess {
    const child = spawn(program, args, { stdio: "ignore", ...options });
    this.#children.add(child);
    child.on("exit", () => this.#children.delete(child));
    return child;
  }

  /** How many files of a kind the repository's folder holds. */
  countFiles(folder: "data" | "index" | "snapshots" | "locks"): number {
    const path = join(this.location, folder);
    if (!existsSync(path)) return 0;
    return readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length;
  }

  [Symbol.dispose](): void {
    for (const child of this.#children) child.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
