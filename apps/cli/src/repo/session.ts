/**
 * An open repository for the length of one command: found, unlocked with its password, locked against others, and released at the end.
 */

import { Failure, isFailure } from "@granary/base/errors";
import type { Secret } from "@granary/base/secret";
import {
  BlobIndex,
  endWarmWorkers,
  loadIndex,
  lockAndPrepare,
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
export interface Session<T = undefined> extends AsyncDisposable {
  readonly repository: Repository;
  /** Aborted when the run is stopped, or the lock is lost. */
  readonly signal: AbortSignal;
  /** What `prepare` found. */
  readonly prepared: T;
}

export interface SessionOptions<T = undefined> {
  /** What the command needs: `none` changes nothing that others could notice. `--no-lock` takes away what is not exclusive. */
  readonly lock: "none" | "shared" | "exclusive";
  /** Another repository than the one of -r. */
  readonly address?: RepositoryAddress;
  /** Standard input is needed for something else. */
  readonly isInputTaken?: boolean;
  /** `password for repository` when absent. */
  readonly what?: string;
  /** Time to start the threads that the command needs; those that it does not come to use end with the session. */
  readonly onDeriving?: () => void;
  /**
   * Reads what the command needs, snapshots before the index, while it is still being seen to that nobody else has locked the repository.
   * Called again, with another repository whose index is empty, when the lock has to be waited for.
   */
  readonly prepare: (repository: Repository, signal: AbortSignal) => Promise<T>;
}

/** Opens the store that the flags name. @throws RepositoryUnnamed, StoreInvalid */
export function openRunStore(run: Run, address: RepositoryAddress = run.options.repository): Store {
  if (address.location === undefined) throw new Failure("RepositoryUnnamed", "Cannot open a repository: nothing says where it is");
  const { ca } = run.options;
  return openStore(address.location, { env: process.env, ...(ca === undefined ? {} : { ca }) });
}

/** Opens the repository of a run. @throws what opening, locking and `prepare` throw */
export async function openSession<T>(run: Run, options: SessionOptions<T>): Promise<Session<T>> {
  const address = options.address ?? run.options.repository;
  const store = openRunStore(run, address);
  try {
    const opened = await unlock(run, store, { address, options });
    const prepare = async (signal: AbortSignal): Promise<{ repository: Repository; prepared: T }> => {
      const repository = { ...opened, index: new BlobIndex() };
      return { repository, prepared: await options.prepare(repository, signal) };
    };
    const isLocking = options.lock === "exclusive" || (options.lock === "shared" && run.options.isLocking);
    if (!isLocking) return makeSession({ ...(await prepare(run.signal)), store, lock: undefined, signal: run.signal });
    const { lock, prepared } = await lockAndPrepare(
      opened,
      {
        exclusive: options.lock === "exclusive",
        retryMs: run.options.retryLockMs,
        onWait: (failure, waitMs) => run.output.note(`${failure.message}; trying again in ${formatSpan(waitMs)}`),
        onTrouble: (failure) => run.output.note(`warning: ${failure.message}`),
        signal: run.signal,
      },
      prepare,
    );
    return makeSession({ ...prepared, store, lock, signal: AbortSignal.any([run.signal, lock.signal]) });
  } catch (error) {
    await endWarmWorkers();
    await store.close();
    throw error;
  }
}

function makeSession<T>(parts: {
  repository: Repository;
  prepared: T;
  store: Store;
  lock: RepositoryLock | undefined;
  signal: AbortSignal;
}): Session<T> {
  const { repository, prepared, store, lock, signal } = parts;
  return {
    repository,
    prepared,
    signal,
    async [Symbol.asyncDispose]() {
      await lock?.release();
      await endWarmWorkers();
      await store.close();
    },
  };
}

/** For {@link SessionOptions.prepare}: the command reads what it needs itself, or nothing. */
export function prepareNothing(): Promise<undefined> {
  return Promise.resolve(undefined);
}

async function unlock(run: Run, store: Store, how: { address: RepositoryAddress; options: SessionOptions<unknown> }): Promise<Repository> {
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

/** Reads the index of a repository, and shows how far it is; list snapshots before. */
export async function loadRunIndex(run: Run, repository: Repository, signal: AbortSignal): Promise<void> {
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
