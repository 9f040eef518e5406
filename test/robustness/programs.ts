/** The two programs that share the repository, as processes: ours through its command line, and the real restic. */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, watch } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const main = join(import.meta.dirname, "../../apps/cli/src/main.ts");
const compileCache = join(import.meta.dirname, "../../node_modules/.cache/granary-tests");
const password = "correct horse battery";

export type Program = "granary" | "restic";

export interface RunOptions {
  /** When it is killed, unless it ends before: after a time, or when so many things have happened in the repository's folder. */
  readonly killAfter?: { readonly ms: number } | { readonly changes: number };
}

/** How a run ended. */
export interface RunResult {
  /** `null` when it was killed. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** One repository and both programs. */
export class Programs {
  readonly repository: string;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = join(folder, "work");
    mkdirSync(this.#folder);
    this.repository = join(folder, "repository");
  }

  run(program: Program, args: readonly string[], { killAfter }: RunOptions = {}): Promise<RunResult> {
    const [file, words]: [string, string[]] =
      program === "restic" ? ["restic", [...args]] : [process.execPath, ["--conditions=source", main, "repo", ...args]];
    const begin = performance.now();
    const child = spawn(file, words, { cwd: this.#folder, env: this.#environment(), stdio: ["ignore", "pipe", "pipe"] });
    const texts = { stdout: "", stderr: "" };
    child.stdout.on("data", (piece: Buffer) => (texts.stdout += piece.toString()));
    child.stderr.on("data", (piece: Buffer) => (texts.stderr += piece.toString()));
    const ending = new AbortController();
    const kill = (): void => void child.kill("SIGKILL");
    if (killAfter !== undefined && "ms" in killAfter) {
      const timer = setTimeout(kill, killAfter.ms);
      ending.signal.addEventListener("abort", () => clearTimeout(timer));
    } else if (killAfter !== undefined) {
      let left = killAfter.changes;
      const count = (): void => {
        if (--left === 0) kill();
      };
      for (const watched of this.#listFolders()) watch(watched, { signal: ending.signal }, count);
    }
    return new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (exitCode) => {
        ending.abort();
        resolve({ exitCode, ...texts, durationMs: performance.now() - begin });
      });
    });
  }

  /** The ids of what the repository's folder has of a kind, sorted. */
  list(kind: "snapshots" | "locks"): string[] {
    return readdirSync(join(this.repository, kind))
      .filter((name) => /^[0-9a-f]{64}$/.test(name))
      .sort();
  }

  /** Where files come and go. */
  #listFolders(): string[] {
    const folders = readdirSync(join(this.repository, "data")).map((name) => join("data", name));
    return ["locks", "index", "snapshots", ...folders].map((name) => join(this.repository, name));
  }

  #environment(): NodeJS.ProcessEnv {
    return {
      PATH: process.env.PATH,
      HOME: tmpdir(),
      LANG: "C.UTF-8",
      NODE_COMPILE_CACHE: compileCache,
      GRANARY_REPOSITORY: this.repository,
      GRANARY_PASSWORD: password,
      RESTIC_REPOSITORY: this.repository,
      RESTIC_PASSWORD: password,
      // what restic remembers of a repository must stay true whoever changes it
      RESTIC_CACHE_DIR: join(this.#folder, "cache"),
    };
  }
}
