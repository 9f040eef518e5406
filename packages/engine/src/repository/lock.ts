/**
 * Holding a lock on a repository, by the rules of restic, so that both can work on one.
 *
 * Acquire: look for locks in the way; write ours; wait 200 ms; look again, and give up if one appeared meanwhile. Of two that try at the
 * same time at least one sees the other; perhaps each does, and then neither wins.
 *
 * Hold: every 5 minutes a new lock file is written and then the old one removed, because files never change. A lock that was not
 * refreshed for 30 minutes may be removed by anyone, so a holder who has not succeeded for 22.5 minutes is told to stop, through
 * {@link RepositoryLock.signal}. Time is taken from the monotonic clock, which nobody can set; where the wall clock has moved differently,
 * because somebody set it or because the machine slept, the time in our lock misleads others, so it is refreshed at once, and with care:
 * if our old lock was removed meanwhile, and another is in its place, ours is lost.
 *
 * To learn whether the holder of a lock is alive, restic sends it SIGHUP, which ends processes that do not expect it. So a process that has
 * held a lock ignores SIGHUP from then on, as restic does itself; whoever wants to react to it can listen to it all the same.
 */
import { hostname, userInfo } from "node:os";
import { throwIfCancelled } from "@granary/base/cancel";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, isFailure, messageOf, toFailure } from "@granary/base/errors";
import "../errors.ts";
import type { LockId } from "../format/ids.ts";
import { encodeLock, type Lock } from "../format/lock.ts";
import type { Store } from "../store/store.ts";
import { type FileAccess, sealFile } from "./files.ts";
import { type ListLocksOptions, refuseConflict, staleAfterMs } from "./lock-list.ts";

/** How a repository is locked. */
export interface LockOptions {
  /** Nobody else may hold a lock of any kind: for whoever removes what others may need. */
  readonly exclusive: boolean;
  /** How long to wait for others; 0 when absent: fail at once. */
  readonly retryMs?: number;
  /** Told before each wait; must not throw. */
  readonly onWait?: (failure: Failure, waitMs: number) => void;
  /** Told of a refresh that failed and will be tried again, and of lock files that could not be removed; must not throw. */
  readonly onTrouble?: (failure: Failure) => void;
  readonly clock?: Clock;
  /** A number in [0, 1); `Math.random` when absent. */
  readonly random?: () => number;
  /** Ends the waiting for the lock; once it is held, it is only released. */
  readonly signal?: AbortSignal;
}

/** A lock that is held, until it is released. */
export interface RepositoryLock extends AsyncDisposable {
  /** Aborted, with the failure `LockLost`, when the lock cannot be relied on any more: all work that needs it must stop at once. */
  readonly signal: AbortSignal;
  /** Removes the lock. Idempotent; does not fail, since what was done under the lock is done. */
  release(): Promise<void>;
}

const refreshEveryMs = 5 * 60_000;
/** A refresh may come one and a half periods late, and the lock must not have become stale by then. */
const lostAfterMs = staleAfterMs - 1.5 * refreshEveryMs;
const watchEveryMs = 5000;
/** After a refresh that failed. */
const tryAgainMs = 30_000;
/** Wall and monotonic clock drift apart by less than this between two refreshes, unless something happened. */
const jumpMs = 60_000;
const firstWaitMs = 5000;
const longestWaitMs = 60_000;
const releaseWithinMs = 20_000;

/** Locks a repository. @throws RepositoryLocked, LockInvalid for a lock that cannot be read; StoreDenied, StoreUnavailable; Cancelled */
export async function lockRepository(access: FileAccess, options: LockOptions): Promise<RepositoryLock> {
  return (await lockAndPrepare(access, options, () => Promise.resolve(undefined))).lock;
}

/**
 * Locks a repository, and begins to read while it waits whether others object. What is read after our lock is written nobody may take
 * away, so it can be kept when the lock is granted; otherwise it is thrown away.
 *
 * @param prepare only reads; may be called again, after its signal was aborted, when the lock has to be waited for
 * @throws as {@link lockRepository}; what `prepare` throws, with the lock released
 */
export async function lockAndPrepare<T>(
  access: FileAccess,
  options: LockOptions,
  prepare: (signal: AbortSignal) => Promise<T>,
): Promise<{ readonly lock: RepositoryLock; readonly prepared: T }> {
  const { retryMs = 0, clock = systemClock, random = Math.random, onWait, signal } = options;
  const deadlineMs = clock.monotonicMs() + retryMs;
  for (let longestMs = firstWaitMs; ; longestMs = Math.min(longestWaitMs, longestMs * 2)) {
    throwIfCancelled(signal);
    try {
      return await tryLock(access, options, prepare);
    } catch (error) {
      const leftMs = deadlineMs - clock.monotonicMs();
      if (!isFailure(error, "RepositoryLocked") || leftMs <= 0) throw error;
      // Never all at the same moment, and once more at the very end.
      const waitMs = Math.min(leftMs, longestMs * (0.5 + random() / 2));
      onWait?.(error, waitMs);
      await clock.sleep(waitMs, signal);
    }
  }
}

async function tryLock<T>(
  access: FileAccess,
  options: LockOptions,
  prepare: (signal: AbortSignal) => Promise<T>,
): Promise<{ readonly lock: RepositoryLock; readonly prepared: T }> {
  const { clock = systemClock, signal } = options;
  const look = { clock, ...(signal && { signal }) };
  await refuseConflict(access, options, look);
  const held = await HeldLock.place(access, options);
  const stop = new AbortController();
  const stopSignal = AbortSignal.any([stop.signal, held.signal, ...(signal === undefined ? [] : [signal])]);
  const preparing = prepare(stopSignal);
  preparing.catch(() => undefined); // its failure counts below
  try {
    await settle(access.store, clock, signal);
    await refuseConflict(access, options, { ...look, except: held.ids });
    return { lock: held, prepared: await preparing };
  } catch (error) {
    stop.abort(error);
    await preparing.catch(() => undefined);
    await held.release();
    throw error;
  }
}

/**
 * Between writing a lock and looking for others: time for theirs to become visible. Where a list shows at once what was saved, none is needed:
 * of two who lock at the same moment, the later one at least sees the earlier one's lock.
 */
async function settle(store: Store, clock: Clock, signal: AbortSignal | undefined): Promise<void> {
  if (store.settleMs > 0) await clock.sleep(store.settleMs, signal);
}

class HeldLock implements RepositoryLock {
  readonly #access: FileAccess;
  readonly #options: LockOptions;
  readonly #clock: Clock;
  readonly #loss = new AbortController();
  readonly #ending = new AbortController();
  /** Our lock files that may be in the store: the one that counts, one that is being written, and those that could not be removed yet. */
  readonly #ids = new Set<LockId>();
  #placed: LockFile;
  #nextTryMs = 0;
  #refreshing: Promise<void> | undefined;
  #released: Promise<void> | undefined;
  readonly #stopWatching: () => void;

  private constructor(access: FileAccess, options: LockOptions, placed: LockFile) {
    ignoreHangups();
    this.#access = access;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#placed = placed;
    this.#ids.add(placed.id);
    this.#stopWatching = this.#clock.every(watchEveryMs, () => this.#watch());
  }

  /** Writes a lock, and refreshes it from now on. When that fails, no lock is left, unless the store is gone. */
  static async place(access: FileAccess, options: LockOptions): Promise<HeldLock> {
    const lock = new HeldLock(access, options, makeLockFile(access, options));
    try {
      await lock.#save(lock.#placed, options.signal);
    } catch (error) {
      await lock.release(); // it may be there although its answer was lost
      throw error;
    }
    return lock;
  }

  get signal(): AbortSignal {
    return this.#loss.signal;
  }

  get ids(): ReadonlySet<LockId> {
    return this.#ids;
  }

  release(): Promise<void> {
    this.#released ??= this.#end();
    return this.#released;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  #watch(): void {
    const monotonicMs = this.#clock.monotonicMs();
    const ageMs = monotonicMs - this.#placed.monotonicMs;
    if (ageMs > lostAfterMs) {
      this.#lose(`it could not be refreshed for ${Math.round(ageMs / 60_000)} minutes`);
      return;
    }
    const wallAgeMs = this.#clock.nowMs() - this.#placed.wallMs;
    const hasJumped = Math.abs(wallAgeMs - ageMs) > jumpMs;
    if ((ageMs < refreshEveryMs && !hasJumped) || monotonicMs < this.#nextTryMs || this.#refreshing !== undefined) return;
    this.#refreshing = this.#refresh(hasJumped).finally(() => {
      this.#refreshing = undefined;
    });
  }

  async #refresh(hasJumped: boolean): Promise<void> {
    try {
      await this.#replace(hasJumped);
    } catch (error) {
      if (this.#ending.signal.aborted) return;
      const wallAgeMs = this.#clock.nowMs() - this.#placed.wallMs;
      if (isFailure(error, "RepositoryLocked")) this.#lose(`somebody removed it, and then: ${error.message}`);
      else if (wallAgeMs > lostAfterMs)
        this.#lose(`after ${Math.round(wallAgeMs / 60_000)} minutes it could not be refreshed: ${messageOf(error)}`);
      else {
        this.#nextTryMs = this.#clock.monotonicMs() + tryAgainMs;
        this.#options.onTrouble?.(toFailure(error));
      }
    }
  }

  /** Writes the next lock file and removes the last one. @throws RepositoryLocked when ours had been removed, and another is there */
  async #replace(hasJumped: boolean): Promise<void> {
    const { signal } = this.#ending;
    let wasThere = await this.#isThere(signal);
    const next = makeLockFile(this.#access, this.#options);
    this.#ids.add(next.id);
    await this.#save(next, signal);
    if (hasJumped || !wasThere) {
      await settle(this.#access.store, this.#clock, signal);
      wasThere &&= await this.#isThere(signal);
      const look: ListLocksOptions = { clock: this.#clock, except: this.#ids, signal };
      if (!wasThere) await refuseConflict(this.#access, this.#options, look);
    }
    this.#placed = next;
    await this.#removeAllBut(next.id, signal);
  }

  async #save(file: LockFile, signal: AbortSignal | undefined): Promise<void> {
    await this.#access.store.save({ kind: "lock", name: file.id }, file.sealed, signal);
  }

  async #isThere(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#access.store.stat({ kind: "lock", name: this.#placed.id }, signal);
      return true;
    } catch (error) {
      if (isFailure(error, "StoreFileNotFound")) return false;
      throw error;
    }
  }

  #lose(reason: string): void {
    this.#stopWatching();
    const { location } = this.#access.store;
    this.#loss.abort(
      new Failure("LockLost", `The lock on the repository at ${location} is lost: ${reason}`, {
        details: { location, lockId: this.#placed.id },
      }),
    );
  }

  async #end(): Promise<void> {
    this.#stopWatching();
    this.#ending.abort();
    await this.#refreshing;
    // A store that is gone must not keep the process for as long as a store may be waited for.
    const limit = new AbortController();
    const done = new AbortController();
    const timer = this.#clock.sleep(releaseWithinMs, done.signal).then(
      () => limit.abort(new Failure("StoreUnavailable", `The store did not answer within ${releaseWithinMs / 1000} seconds`)),
      () => undefined,
    );
    await this.#removeAllBut(undefined, limit.signal);
    done.abort();
    await timer;
  }

  async #removeAllBut(kept: LockId | undefined, signal: AbortSignal): Promise<void> {
    for (const id of this.#ids) {
      if (id === kept) continue;
      try {
        await this.#access.store.remove({ kind: "lock", name: id }, signal);
        this.#ids.delete(id);
      } catch (error) {
        if (!this.#ending.signal.aborted || kept === undefined) this.#options.onTrouble?.(toFailure(error));
      }
    }
  }
}

let isIgnoringHangups = false;

function ignoreHangups(): void {
  if (isIgnoringHangups) return;
  isIgnoringHangups = true;
  process.on("SIGHUP", () => undefined);
}

/** A lock file, and when it was made, by both clocks. */
interface LockFile {
  readonly id: LockId;
  readonly sealed: Uint8Array;
  readonly monotonicMs: number;
  readonly wallMs: number;
}

function makeLockFile(access: FileAccess, options: LockOptions): LockFile {
  const { clock = systemClock, exclusive } = options;
  const wallMs = clock.nowMs();
  const timeNs = BigInt(Math.trunc(wallMs)) * 1_000_000n;
  const lock: Lock = { timeNs, exclusive, hostname: hostname(), pid: process.pid, ...findUser() };
  return { ...sealFile(access, { kind: "lock", json: encodeLock(lock) }), monotonicMs: clock.monotonicMs(), wallMs };
}

/** Whose process this is, for locks and snapshots; without a name where the system knows none for its user id. */
export function findUser(): { username: string; uid: number; gid: number } {
  try {
    const { username, uid, gid } = userInfo();
    return { username, uid: Math.max(0, uid), gid: Math.max(0, gid) }; // -1 on Windows
  } catch {
    return { username: "", uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }; // a user id without a name
  }
}
