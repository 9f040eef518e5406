/** Runs the real command in a process of its own, in a folder of its own. */

import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const main = join(import.meta.dirname, "../main.ts");

/** How the process is started: no variable of ours or restic's comes from outside. */
export function commandLine(...args: readonly string[]): [program: string, args: string[]] {
  return [process.execPath, ["--conditions=source", main, ...args]];
}

/** The environment for a process: PATH and HOME, and what is given. */
export function cleanEnv(env: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: process.env.PATH ?? "", HOME: tmpdir(), LANG: "C.UTF-8", ...env };
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string | Uint8Array;
}

/** What came out of a run. */
export interface CliResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A temporary folder with the settings for one repository in it. */
export interface Bench extends Disposable {
  readonly folder: string;
  readonly repository: string;
  /** Runs `granary ARGS…`, with the repository and its password in the environment. */
  granary(...args: readonly string[]): CliResult;
  /** The same with other settings. */
  granaryWith(options: CliOptions, ...args: readonly string[]): CliResult;
  /** Runs another program there, with restic's variables. */
  run(program: string, ...args: readonly string[]): SpawnSyncReturns<string>;
  env(more?: Readonly<Record<string, string>>): Record<string, string>;
}

export const password = "correct horse battery";

/** Makes a {@link Bench}; disposing of it removes the folder. */
export function makeBench(): Bench {
  const folder = mkdtempSync(join(tmpdir(), "granary-cli-"));
  const repository = join(folder, "repository");
  const settings = {
    GRANARY_REPOSITORY: repository,
    GRANARY_PASSWORD: password,
    RESTIC_REPOSITORY: repository,
    RESTIC_PASSWORD: password,
    RESTIC_CACHE_DIR: join(folder, "cache"),
  };
  const env = (more: Readonly<Record<string, string>> = {}): Record<string, string> => cleanEnv({ ...settings, ...more });
  const granaryWith = (options: CliOptions, ...args: readonly string[]): CliResult => {
    const { input } = options;
    const run = spawnSync(...commandLine(...args), {
      cwd: options.cwd ?? folder,
      env: options.env ?? env(),
      encoding: "utf8",
      maxBuffer: 2 ** 28,
      ...(input === undefined ? { stdio: ["ignore", "pipe", "pipe"] as const } : { input }),
    });
    return { exitCode: run.status, stdout: run.stdout, stderr: run.stderr };
  };
  return {
    folder,
    repository,
    env,
    granaryWith,
    granary: (...args) => granaryWith({}, ...args),
    run: (program, ...args) => spawnSync(program, args, { cwd: folder, env: env(), encoding: "utf8", maxBuffer: 2 ** 28 }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** A running command. */
export interface RunningCli {
  readonly pid: number;
  /** Resolves when standard error or output has this text; rejects when the process ends before. */
  waitFor(text: string): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  readonly ended: Promise<CliResult & { readonly signal: NodeJS.Signals | null }>;
}

/** Starts the command and lets it run. */
export function startCli(args: readonly string[], options: CliOptions & { readonly stdin?: "pipe" } = {}): RunningCli {
  const child = spawn(...commandLine(...args), {
    cwd: options.cwd,
    env: options.env,
    stdio: [options.stdin ?? "ignore", "pipe", "pipe"],
  });
  const texts = { stdout: "", stderr: "" };
  const waiting = new Set<() => void>();
  const take = (name: "stdout" | "stderr") => (piece: Buffer) => {
    texts[name] += piece.toString();
    for (const look of waiting) look();
  };
  child.stdout?.on("data", take("stdout"));
  child.stderr?.on("data", take("stderr"));
  const ended = new Promise<CliResult & { signal: NodeJS.Signals | null }>((resolve) => {
    child.on("close", (exitCode, signal) => resolve({ exitCode, signal, ...texts }));
  });
  return {
    pid: child.pid ?? 0,
    ended,
    kill: (signal) => void child.kill(signal),
    waitFor: (text) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (!texts.stdout.includes(text) && !texts.stderr.includes(text)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
        void ended.then(({ exitCode, stderr }) => reject(new Error(`ended with ${String(exitCode)} before "${text}" came: ${stderr}`)));
      }),
  };
}

/** The JSON values on the lines of a text. */
export function parseLines(text: string): Record<string, unknown>[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
