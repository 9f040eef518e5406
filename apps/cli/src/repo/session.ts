/**
 * An open repository for the length of one command: found, unlocked with its password, locked against others, and released at the end.
 */

import { Failure, isFailure } from "@granary/base/errors";
import type { Secret } from "@granary/base/secret";
import {
  type FileAccess,
  loadIndex,
  lockRepository,
  openRepository,
  openStore,
  type Repository,
  type RepositoryLock,
  type Store,
} from "@granary/engine";
import type { RepositoryAddress } from "../global-options.ts";
import { formatSpan } from "../format-amount.ts";
import { getPassword, mustAsk } from "../password.ts";
import { ProgressReporter } from "../progress.ts";
import { isInteractive } from "../prompt.ts";
import type { Run } from "../run.ts";

/** How often a password is asked for on a terminal. */
const passwordAttempts = 3;

/** An open repository; disposing of it releases its lock and closes its store. */
export interface Session extends AsyncDisposable {
  readonly repository: Repository;
  /** Aborted when the run is stopped, or the lock is lost. */
  readonly signal: AbortSignal;
  /** Reads the index; list snapshots first. */
  loadIndex(): Promise<void>;
}

export interface SessionOptions {
  /** What the command needs: `none` changes nothing that others could notice. `--no-lock` takes away what is not exclusive. */
  readonly lock: "none" | "shared" | "exclusive";
  /** Another repository than the one of -r. */
  readonly address?: RepositoryAddress;
  /** Standard input is needed for something else. */
  readonly isInputTaken?: boolean;
  /** `password for repository` when absent. */
  readonly what?: string;
  /** Time to prepare what comes after opening. */
  readonly onDeriving?: () => void;
}

/** Opens the store that the flags name. @throws RepositoryUnnamed, StoreInvalid */
export function openRunStore(run: Run, address: RepositoryAddress = run.options.repository): Store {
  if (address.location === undefined) throw new Failure("RepositoryUnnamed", "Cannot open a repository: nothing says where it is");
  const { ca } = run.options;
  return openStore(address.location, { env: process.env, ...(ca === undefined ? {} : { ca }) });
}

/** Opens the repository of a run. @throws what opening and locking throw */
export async function openSession(run: Run, options: SessionOptions): Promise<Session> {
  const address = options.address ?? run.options.repository;
  const store = openRunStore(run, address);
  try {
    const repository = await unlock(run, store, { address, options });
    const lock = await takeLock(run, repository, options.lock);
    const signal = lock === undefined ? run.signal : AbortSignal.any([run.signal, lock.signal]);
    return {
      repository,
      signal,
      loadIndex: () => loadWithProgress(run, repository, signal),
      async [Symbol.asyncDispose]() {
        await lock?.release();
        await store.close();
      },
    };
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function unlock(run: Run, store: Store, how: { address: RepositoryAddress; options: SessionOptions }): Promise<Repository> {
  const { password: source, keyHint } = how.address;
  const { signal } = run;
  // before a password is asked for in vain
  if (mustAsk(source)) await refuseAbsent(store, signal);
  const ask = {
    what: `${how.options.what ?? "password for repository"} ${store.location}`,
    isInputTaken: how.options.isInputTaken === true,
    signal,
  };
  const isAsked = mustAsk(source) && isInteractive();
  for (let attempt = 1; ; attempt++) {
    const password = await getPassword(source, ask);
    try {
      const onDamagedKey = (failure: Failure): void => run.output.note(`warning: ${failure.message}`);
      const onDeriving = attempt === 1 ? how.options.onDeriving : undefined;
      return await openRepository(store, {
        password,
        signal,
        onDamagedKey,
        ...(keyHint === undefined ? {} : { keyHint }),
        ...(onDeriving === undefined ? {} : { onDeriving }),
      });
    } catch (error) {
      if (!isAsked || attempt === passwordAttempts || !isFailure(error, "WrongPassword")) throw error;
      run.output.complain("wrong password, try again");
    }
  }
}

async function refuseAbsent(store: Store, signal: AbortSignal): Promise<void> {
  try {
    await store.stat({ kind: "config", name: "" }, signal);
  } catch (error) {
    if (!isFailure(error, "StoreFileNotFound")) throw error;
    const { location } = store;
    throw new Failure("RepositoryNotFound", `Cannot open a repository at ${location}: it has no config`, {
      details: { location },
      cause: error,
    });
  }
}

async function takeLock(run: Run, access: FileAccess, lock: SessionOptions["lock"]): Promise<RepositoryLock | undefined> {
  if (lock === "none" || (lock === "shared" && !run.options.isLocking)) return undefined;
  return lockRepository(access, {
    exclusive: lock === "exclusive",
    retryMs: run.options.retryLockMs,
    onWait: (failure, waitMs) => run.output.note(`${failure.message}; trying again in ${formatSpan(waitMs)}`),
    onTrouble: (failure) => run.output.note(`warning: ${failure.message}`),
    signal: run.signal,
  });
}

async function loadWithProgress(run: Run, repository: Repository, signal: AbortSignal): Promise<void> {
  using progress = new ProgressReporter(run.output, { title: "reading the index" });
  await loadIndex(repository, {
    onProgress: ({ filesDone, filesTotal, bytesDone, bytesTotal }) =>
      progress.update({ done: filesDone, total: filesTotal, noun: "index files", doneBytes: bytesDone, totalBytes: bytesTotal }),
    signal,
  });
}

/** A secret for people who must type it twice; see {@link getPassword}. */
export function getNewPassword(run: Run, source: RepositoryAddress["password"], what: string): Promise<Secret> {
  return getPassword(source, { what, isNew: true, signal: run.signal });
}
