/**
 * The locks that are in a repository, whoever holds them: reading them, telling which stand in the way and which are stale, removing.
 *
 * ```
 *                 another's shared   another's exclusive
 *   shared        fine               conflict
 *   exclusive     conflict           conflict
 * ```
 *
 * A lock is stale after 30 minutes without refresh, or when its process is gone and was one of this machine; it stands in the way all
 * the same until somebody removes it, because the clock of another machine may be wrong. Files without content, which some stores show
 * while a lock is being written or after a crash, are no locks.
 *
 * @see restic design.rst, "Locks"
 */
import { hostname } from "node:os";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, isFailure, messageOf } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import type { LockId } from "../format/ids.ts";
import { type Lock, parseLock } from "../format/lock.ts";
import { type FileAccess, listFiles, loadFile, reportDamage } from "./files.ts";

/** After this long without refresh a lock is stale. */
export const staleAfterMs: number = 30 * 60_000;

/** A lock that is in the repository. */
export interface StoredLock extends Lock {
  readonly id: LockId;
}

/** How locks are read. */
export interface ListLocksOptions {
  /** Told of each that is damaged; it is left out. Without it, listing fails. */
  readonly onDamaged?: (id: LockId, failure: Failure) => void;
  /** Not to be read. */
  readonly except?: ReadonlySet<LockId>;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
}

/** A lock of another program may be seen while it is being written; it is read again so often, with this pause. */
const readAttempts = 3;
const readAgainMs = 100;

/**
 * Lists the locks, in any order; those that vanish meanwhile are left out.
 *
 * @throws LockInvalid, unless `onDamaged` takes it; StoreDenied, StoreUnavailable; Cancelled
 */
export async function listLocks(access: FileAccess, options: ListLocksOptions = {}): Promise<StoredLock[]> {
  const { onDamaged, except, signal } = options;
  const load = async ({ id, sizeBytes }: { readonly id: LockId; readonly sizeBytes: number }): Promise<StoredLock | undefined> => {
    if (sizeBytes === 0 || except?.has(id) === true) return undefined;
    try {
      return await loadLock(access, id, options);
    } catch (error) {
      reportDamage(error, onDamaged && ((failure) => onDamaged(id, failure)));
      return undefined;
    }
  };
  const locks: StoredLock[] = [];
  const limit = { limit: access.store.concurrency, ...(signal && { signal }) };
  for await (const lock of mapOrdered(listFiles(access.store, "lock", signal), limit, load)) if (lock !== undefined) locks.push(lock);
  return locks;
}

async function loadLock(access: FileAccess, id: LockId, options: ListLocksOptions): Promise<StoredLock | undefined> {
  const { clock = systemClock, signal } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      return { ...parseLock(await loadFile(access, { kind: "lock", id }, signal), id), id };
    } catch (error) {
      if (isFailure(error, "StoreFileNotFound")) return undefined;
      if (!isFailure(error) || error.kind !== "corrupt") throw error;
      if (attempt === readAttempts) {
        throw new Failure("LockInvalid", `Cannot read lock "${id}": ${reasonOf(error)}`, {
          details: { ...error.details, lockId: id },
          cause: error,
        });
      }
    }
    await clock.sleep(readAgainMs, signal);
  }
}

function reasonOf(error: Failure): string {
  return messageOf(error).replace(/^Cannot (?:read|load) lock "[0-9a-f]+": /, "");
}

/** Whether a lock's holder must have stopped, as far as can be told from here. */
export function isStale(lock: Lock, nowMs: number): boolean {
  if (nowMs - Number(lock.timeNs / 1_000_000n) > staleAfterMs) return true;
  return lock.hostname === hostname() && lock.pid > 0 && !isRunning(lock.pid);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Somebody else's process may not be signalled, but it is there.
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}

/** Fails when a lock of somebody else stands in the way. @throws RepositoryLocked; what {@link listLocks} throws */
export async function refuseConflict(
  access: FileAccess,
  wanted: { readonly exclusive: boolean },
  options: ListLocksOptions,
): Promise<void> {
  const { clock = systemClock } = options;
  const other = (await listLocks(access, options)).find(({ exclusive }) => wanted.exclusive || exclusive);
  if (other !== undefined) throw lockedBy(other, access.store.location, isStale(other, clock.nowMs()));
}

function lockedBy(lock: StoredLock, location: string, stale: boolean): Failure {
  const since = new Date(Number(lock.timeNs / 1_000_000n)).toISOString();
  const kind = lock.exclusive ? "exclusively " : "";
  const hint = stale ? "; that lock is stale" : "";
  return new Failure(
    "RepositoryLocked",
    `Cannot lock the repository at ${location}: process ${lock.pid} of ${lock.username} on ${lock.hostname} has locked it ${kind}since ${since}${hint}`,
    {
      details: {
        lockId: lock.id,
        hostname: lock.hostname,
        username: lock.username,
        pid: lock.pid,
        exclusive: lock.exclusive,
        since,
        stale,
      },
    },
  );
}

/**
 * Removes locks whose holders must have stopped. Damaged ones stay.
 *
 * @returns how many were removed
 * @throws StoreDenied, StoreUnavailable; Cancelled
 */
export async function removeStaleLocks(access: FileAccess, options: Pick<ListLocksOptions, "clock" | "signal"> = {}): Promise<number> {
  const { clock = systemClock, signal } = options;
  const locks = await listLocks(access, { ...options, onDamaged: () => undefined });
  const stale = locks.filter((lock) => isStale(lock, clock.nowMs()));
  for (const { id } of stale) await access.store.remove({ kind: "lock", name: id }, signal);
  return stale.length;
}

/**
 * Removes every lock, damaged ones and those of running processes too. Who holds one notices at its next refresh at the latest.
 *
 * @returns how many were removed
 * @throws StoreDenied, StoreUnavailable; Cancelled
 */
export async function removeAllLocks(access: FileAccess, signal?: AbortSignal): Promise<number> {
  const files = await Array.fromAsync(listFiles(access.store, "lock", signal));
  for (const { id } of files) await access.store.remove({ kind: "lock", name: id }, signal);
  return files.length;
}
