/** Runs the real command in a process of its own, in a folder of its own. */

import { type SpawnSyncReturns, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@granary/base/clock";

const main = join(import.meta.dirname, "../main.ts");

/** How the process is started: no variable of ours or restic's comes from outside. */
export function commandLine(...args: readonly string[]): [program: string, args: string[]] {
  return [process.execPath, ["--conditions=source", main, ...args]];
}

/** Compiled code is kept between runs, which makes each start in half the time. */
const compileCache = join(import.meta.dirname, "../../../../node_modules/.cache/granary-tests");

/** The environment for a process: PATH and HOME, and what is given. */
export function cleanEnv(env: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: process.env.PATH ?? "", HOME: tmpdir(), LANG: "C.UTF-8", NODE_COMPILE_CACHE: compileCache, ...env };
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
  /** The names of the files in a folder of the repository, without those that are being written. */
  list(folder: "locks" | "snapshots"): string[];
  /** Waits until something has locked the repository. */
  waitForLock(): Promise<void>;
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
  const list = (name: "locks" | "snapshots"): string[] => readdirSync(join(repository, name)).filter((file) => /^[0-9a-f]{64}$/.test(file));
  return {
    folder,
    repository,
    env,
    list,
    waitForLock: async () => {
      for (let i = 0; i < 400 && list("locks").length === 0; i++) await systemClock.sleep(50);
    },
    granaryWith,
    granary: (...args) => granaryWith({}, ...args),
    run: (program, ...args) => spawnSync(program, args, { cwd: folder, env: env(), encoding: "utf8", maxBuffer: 2 ** 28 }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** A running command. */
export interface RunningCli {
  readonly pid: number;
  /** Types into its standard input. */
  type(text: string): void;
  /** Resolves when standard error or output matches; rejects when the process ends before. */
  waitFor(pattern: RegExp): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  readonly ended: Promise<CliResult & { readonly signal: NodeJS.Signals | null }>;
}

/** Starts the command and lets it run, with a standard input that ends at once, stays open, or has zeros without end. */
export function startCli(args: readonly string[], options: StartOptions = {}): RunningCli {
  return start(commandLine(...args), options);
}

/** Starts the command on a terminal of its own. Needs `script`. */
export function startOnTerminal(args: readonly string[], options: CliOptions): RunningCli {
  const [program, words] = commandLine(...args);
  const command = [program, ...words].map((word) => `'${word}'`).join(" ");
  return start(["script", ["-qec", command, "/dev/null"]], { ...options, stdin: "pipe" });
}

type StartOptions = CliOptions & { readonly stdin?: "pipe" | "zeros" };

function start([program, args]: [string, string[]], options: StartOptions): RunningCli {
  const { stdin = "ignore" } = options;
  const zeros = openSync("/dev/zero", "r");
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: options.env,
    stdio: [stdin === "zeros" ? zeros : stdin, "pipe", "pipe"],
  });
  closeSync(zeros);
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
    type: (text) => void child.stdin?.write(text),
    kill: (signal) => void child.kill(signal),
    waitFor: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (!pattern.test(texts.stdout) && !pattern.test(texts.stderr)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
        void ended.then(({ exitCode, stderr }) =>
          reject(new Error(`ended with ${String(exitCode)} before ${String(pattern)} came: ${stderr}`)),
        );
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
