/** For tests: a repository in a temporary folder, open here and at hand for the real restic. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Secret } from "@granary/base/secret";
import { loadIndex } from "../repository/index-load.ts";
import { createRepository, openRepository, type Repository } from "../repository/repository.ts";
import { openLocalStore } from "../store/local.ts";

const password = "correct horse battery staple";

export class ResticRunner {
  /** Holds everything; removed at the end. */
  readonly folder: string;
  /** Where the repository is. */
  readonly location: string;
  readonly #timeZone: string;
  readonly #isOwnFolder: boolean;

  /** @param options.beside another runner, in whose folder this one's repository lies, under a name of its own */
  constructor(options: { readonly timeZone?: string; readonly beside?: ResticRunner; readonly name?: string } = {}) {
    this.#isOwnFolder = options.beside === undefined;
    this.folder = options.beside?.folder ?? mkdtempSync(join(tmpdir(), "granary-maintain-"));
    this.location = join(this.folder, options.name ?? "repository");
    this.#timeZone = options.timeZone ?? "UTC";
  }

  /** Makes the repository with our own code, with keys that are cheap to open. */
  create(): Promise<Repository> {
    return createRepository(openLocalStore(this.location), {
      password: new Secret(password),
      insecureScryptCost: { N: 1024, r: 8, p: 1 },
    });
  }

  /** Opens it as it is now, with its index. */
  async open(): Promise<Repository> {
    const repository = await openRepository(openLocalStore(this.location), { password: new Secret(password) });
    await loadIndex(repository);
    return repository;
  }

  /** Runs restic on it. @returns what it prints, as bytes of Latin-1 so that nothing is lost */
  run(...args: readonly string[]): string {
    return execFileSync("restic", ["--no-cache", ...args], {
      env: { ...this.environment(), TZ: this.#timeZone },
      cwd: this.folder,
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 2 ** 28,
      encoding: "latin1",
    });
  }

  /** As {@link run}, for what only reads: without the lock, for which restic waits. */
  read(...args: readonly string[]): string {
    return this.run("--no-lock", ...args);
  }

  environment(): NodeJS.ProcessEnv {
    return { ...process.env, RESTIC_REPOSITORY: this.location, RESTIC_PASSWORD: password, RESTIC_FROM_PASSWORD: password };
  }

  /** A folder beside the repository. */
  makeFolder(name: string): string {
    const path = join(this.folder, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  [Symbol.dispose](): void {
    if (this.#isOwnFolder) rmSync(this.folder, { recursive: true, force: true });
  }
}
