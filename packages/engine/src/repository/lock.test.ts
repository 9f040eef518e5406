import assert from "node:assert/strict";
import { hostname, userInfo } from "node:os";
import { test } from "node:test";
import type { Clock } from "@granary/base/clock";
import type { Failure } from "@granary/base/errors";
import { type FakeClock, fakeClock } from "@granary/base/testing";
import { encodeLock, type Lock } from "../format/lock.ts";
import { type FaultRule, createFaultyStore } from "../store/faulty.ts";
import { type FileAccess, saveFile } from "./files.ts";
import { lockAndPrepare, type LockOptions, lockRepository, type RepositoryLock } from "./lock.ts";
import { isStale, listLocks, removeAllLocks, removeStaleLocks } from "./lock-list.ts";
import { createScratch, deadPid, failsWith, flip, listNames, plant, spoil } from "./scratch.ts";

const minuteMs = 60_000;

/** Acquires under a fake clock, letting the 200 ms pass. */
async function acquire(access: FileAccess, clock: FakeClock, options: Partial<LockOptions> = {}): Promise<RepositoryLock> {
  const locking = lockRepository(access, { exclusive: false, clock, ...options });
  locking.catch(() => undefined);
  await clock.advance(200);
  return locking;
}

function locksOf(access: FileAccess): Promise<string[]> {
  return listNames(access.store, "lock");
}

/** A lock of somebody else. */
async function plantLock(access: FileAccess, clock: Clock, more: Partial<Lock> = {}): Promise<string> {
  const timeNs = BigInt(clock.nowMs()) * 1_000_000n;
  const lock: Lock = { timeNs, exclusive: false, hostname: "elsewhere", username: "bob", pid: 4711, uid: 0, gid: 0, ...more };
  return saveFile(access, { kind: "lock", json: encodeLock(lock) });
}

test("a lock says who holds it, and is gone when it is released", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  const startMs = clock.nowMs();
  const lock = await acquire(repository, clock, { exclusive: true });
  const [found] = await listLocks(repository);
  const { uid, gid, username } = userInfo();
  assert.deepEqual(found, {
    id: (await locksOf(repository))[0],
    timeNs: BigInt(startMs) * 1_000_000n,
    exclusive: true,
    hostname: hostname(),
    username,
    pid: process.pid,
    uid,
    gid,
  });
  await lock.release();
  await lock.release();
  assert.deepEqual(await locksOf(repository), []);
  assert.equal(clock.pendingCount, 0, "no timer is left");
});

test("await using releases a lock, also when the work fails", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  await assert.rejects(async () => {
    await using lock = await acquire(repository, clock);
    assert.equal(lock.signal.aborted, false);
    throw new TypeError("the work failed");
  }, /the work failed/);
  assert.deepEqual(await locksOf(repository), []);
});

test("shared locks go together, exclusive ones with nothing", async () => {
  const cases = [
    [false, false, true],
    [false, true, false],
    [true, false, false],
    [true, true, false],
  ] as const;
  for (const [held, wanted, isGranted] of cases) {
    const repository = await createScratch();
    const clock = fakeClock();
    await using _ = await acquire(repository, clock, { exclusive: held });
    const second = acquire(repository, clock, { exclusive: wanted });
    if (isGranted) await (await second).release();
    else
      await assert.rejects(
        second,
        failsWith("RepositoryLocked", new RegExp(`process ${process.pid} of .* on ${hostname()} has locked it`)),
      );
    assert.equal((await locksOf(repository)).length, 1);
  }
});

test("a lock of somebody else is respected, and named, stale or not", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  await plantLock(repository, clock, { exclusive: true });
  await assert.rejects(
    acquire(repository, clock),
    failsWith("RepositoryLocked", /process 4711 of bob on elsewhere has locked it exclusively since 2026/),
  );
  await clock.advance(31 * minuteMs);
  await assert.rejects(acquire(repository, clock), failsWith("RepositoryLocked", /that lock is stale/));
  assert.equal((await locksOf(repository)).length, 1, "ours is not left behind");
});

test("a lock that appears while ours settles wins", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  const locking = lockRepository(repository, { exclusive: true, clock });
  await clock.advance(100);
  assert.equal((await locksOf(repository)).length, 1);
  const theirs = await plantLock(repository, clock);
  await Promise.all([assert.rejects(locking, failsWith("RepositoryLocked")), clock.advance(100)]);
  assert.deepEqual(await locksOf(repository), [theirs]);
});

test("of many that try at once never two get an exclusive lock", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  let holders = 0;
  let most = 0;
  let rounds = 0;
  const work = async (seed: number): Promise<void> => {
    let state = seed;
    const random = (): number => (state = (state * 16807) % 2147483647) / 2147483647;
    const lock = await lockRepository(repository, { exclusive: true, clock, retryMs: 3600_000, random });
    most = Math.max(most, ++holders);
    await clock.sleep(1000);
    holders--;
    rounds++;
    await lock.release();
  };
  const all = Promise.all([11, 222, 3333, 44444, 555555].map(work));
  for (let i = 0; i < 3600 && rounds < 5; i++) await clock.advance(1000);
  await all;
  assert.equal(most, 1);
  assert.equal(rounds, 5);
  assert.deepEqual(await locksOf(repository), []);
});

test("waiting ends when the other lets go, when time is up, and when it is cancelled", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  const other = await acquire(repository, clock, { exclusive: true });
  const waits: number[] = [];
  const onWait = (_: Failure, waitMs: number): void => void waits.push(waitMs);
  const options = { exclusive: false, clock, retryMs: 10 * minuteMs, onWait, random: () => 0.5 };

  const waiting = lockRepository(repository, options);
  await clock.advance(60_000);
  await other.release();
  await clock.advance(60_000);
  await (await waiting).release();
  assert.deepEqual(waits, [3750, 7500, 15_000, 30_000, 45_000]);

  await using _ = await acquire(repository, clock, { exclusive: true });
  waits.length = 0;
  const inVain = assert.rejects(lockRepository(repository, { ...options, retryMs: 20_000 }), failsWith("RepositoryLocked"));
  await clock.advance(20_000);
  await inVain;
  assert.deepEqual(waits, [3750, 7500, 8750], "the last look is when time is up");

  const stop = new AbortController();
  const cancelled = assert.rejects(lockRepository(repository, { ...options, signal: stop.signal }), failsWith("Cancelled"));
  await clock.advance(100);
  stop.abort();
  await cancelled;
});

test("cancelled while it settles, a lock leaves nothing", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  const stop = new AbortController();
  const locking = assert.rejects(lockRepository(repository, { exclusive: true, clock, signal: stop.signal }), failsWith("Cancelled"));
  await clock.advance(100);
  assert.equal((await locksOf(repository)).length, 1);
  stop.abort();
  await locking;
  assert.deepEqual(await locksOf(repository), []);
  assert.equal(clock.pendingCount, 0);
});

test("a lock whose answer was lost is removed again", async () => {
  const { store, ...rest } = await createScratch();
  const clock = fakeClock();
  const faulty = createFaultyStore(store, [{ operation: "save", mode: "after" }]);
  await assert.rejects(acquire({ store: faulty, ...rest }, clock), failsWith("StoreUnavailable"));
  assert.deepEqual(await listNames(store, "lock"), []);
  assert.equal(clock.pendingCount, 0);
});

test("what is prepared while the lock settles is given with it, or thrown away", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  let seen = -1;
  const preparing = lockAndPrepare(repository, { exclusive: false, clock }, async () => {
    seen = (await locksOf(repository)).length;
    return "prepared";
  });
  await clock.advance(0);
  assert.equal(seen, 1, "it begins when our lock is there");
  await clock.advance(200);
  const { lock, prepared } = await preparing;
  assert.equal(prepared, "prepared");
  await lock.release();

  const failing = lockAndPrepare(repository, { exclusive: false, clock }, () => Promise.reject(new TypeError("cannot prepare")));
  await Promise.all([assert.rejects(failing, /cannot prepare/), clock.advance(200)]);
  assert.deepEqual(await locksOf(repository), []);

  let stopped: AbortSignal | undefined;
  const refused = lockAndPrepare(repository, { exclusive: true, clock }, (signal) => {
    stopped = signal;
    return clock.sleep(minuteMs, signal);
  });
  await clock.advance(100);
  await plantLock(repository, clock);
  await Promise.all([assert.rejects(refused, failsWith("RepositoryLocked")), clock.advance(100)]);
  assert.equal(stopped?.aborted, true);
});

test("a lock is refreshed every five minutes: first the new file, then the old one goes", async () => {
  const { store, ...rest } = await createScratch();
  const faulty = createFaultyStore(store);
  const repository = { store: faulty, ...rest };
  const clock = fakeClock();
  await using lock = await acquire(repository, clock);
  let names = await locksOf(repository);
  for (let i = 0; i < 12; i++) {
    await clock.advance(5 * minuteMs + 5000);
    const next = await locksOf(repository);
    assert.equal(next.length, 1);
    assert.notDeepEqual(next, names);
    names = next;
    const [found] = await listLocks(repository);
    const ageMs = clock.nowMs() - Number((found?.timeNs ?? 0n) / 1_000_000n);
    assert.ok(ageMs < 5 * minuteMs + 5000, `never older than a period and a look, found ${ageMs} ms`);
  }
  assert.equal(lock.signal.aborted, false);
  const changes = faulty.calls.filter(({ operation }) => operation === "save" || operation === "remove").map(({ operation }) => operation);
  assert.deepEqual(changes.slice(1, 5), ["save", "remove", "save", "remove"]);
});

/** A repository whose store fails by plan from the moment the lock is held. */
async function heldWithFaults(
  plan: readonly FaultRule[],
): Promise<{ lock: RepositoryLock; clock: FakeClock; access: FileAccess; troubles: string[] }> {
  const repository = await createScratch();
  const clock = fakeClock();
  const troubles: string[] = [];
  const faulty = createFaultyStore(repository.store, plan);
  const lock = await acquire({ ...repository, store: faulty }, clock, { onTrouble: ({ code }) => troubles.push(code) });
  return { lock, clock, access: repository, troubles };
}

test("a holder who cannot refresh for 22.5 minutes is told to stop, before anyone may take the lock for stale", async () => {
  for (const mode of ["before", "hang"] as const) {
    // the first save is the lock itself
    const { lock, clock, troubles, access } = await heldWithFaults([{ operation: "save", from: 2, mode }]);
    await clock.advance(22 * minuteMs);
    assert.equal(lock.signal.aborted, false);
    if (mode === "before") assert.ok(troubles.length > 10 && troubles.every((code) => code === "StoreUnavailable"));
    const [found] = await listLocks(access);
    assert.ok(found !== undefined);
    await clock.advance(minuteMs);
    assert.equal(lock.signal.aborted, true);
    assert.ok(failsWith("LockLost", /could not be refreshed for 2[23] minutes/)(lock.signal.reason));
    assert.equal(isStale({ ...found, hostname: "elsewhere" }, clock.nowMs()), false);
    await lock.release();
    assert.equal(clock.pendingCount, 0);
  }
});

test("a refresh that fails is tried again, and a file that could not be removed goes with the next one", async () => {
  const { lock, clock, access, troubles } = await heldWithFaults([
    { operation: "save", nth: 2, mode: "before" },
    { operation: "save", nth: 3, mode: "after" },
    { operation: "remove", nth: 1, mode: "before" },
  ]);
  await clock.advance(5 * minuteMs + 2000);
  assert.deepEqual(troubles, ["StoreUnavailable"]);
  await clock.advance(31_000);
  assert.equal((await locksOf(access)).length, 2, "the answer of the second attempt was lost");
  await clock.advance(5 * minuteMs + 31_000);
  assert.equal(lock.signal.aborted, false);
  await clock.advance(10 * minuteMs);
  assert.equal((await locksOf(access)).length, 1);
  await lock.release();
  assert.deepEqual(await locksOf(access), []);
});

test("when our lock was removed and nobody else has one, it is taken again; when somebody has, it is lost", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  await using kept = await acquire(repository, clock);
  await removeAllLocks(repository);
  await clock.advance(6 * minuteMs);
  assert.equal(kept.signal.aborted, false);
  assert.equal((await locksOf(repository)).length, 1);

  await removeAllLocks(repository);
  await plantLock(repository, clock, { exclusive: true });
  await clock.advance(6 * minuteMs);
  assert.equal(kept.signal.aborted, true);
  assert.ok(failsWith("LockLost", /somebody removed it, and then: .*process 4711/)(kept.signal.reason));
});

test("while our lock is there, somebody who tries to lock does not make us lose it", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  await using lock = await acquire(repository, clock);
  for (let i = 0; i < 4; i++) {
    // such a lock exists for the moment in which its owner finds ours
    const theirs = await plantLock(repository, clock, { exclusive: true });
    await clock.advance(5 * minuteMs + 5000);
    await repository.store.remove({ kind: "lock", name: theirs });
  }
  assert.equal(lock.signal.aborted, false);
});

test("a wall clock that is set on or back makes us refresh, so that others see the right time, and loses nothing", async () => {
  for (const jumpMs of [3 * 3600_000, -3 * 3600_000, 25 * minuteMs, 2 * minuteMs]) {
    const repository = await createScratch();
    const clock = fakeClock();
    await using lock = await acquire(repository, clock);
    await clock.advance(minuteMs);
    clock.jump(jumpMs);
    await clock.advance(6000);
    const [found] = await listLocks(repository);
    assert.ok(found !== undefined);
    assert.ok(Math.abs(clock.nowMs() - Number(found.timeNs / 1_000_000n)) < 10_000, "refreshed within seconds");
    assert.equal(isStale({ ...found, hostname: "elsewhere" }, clock.nowMs()), false);
    await clock.advance(60 * minuteMs);
    assert.equal(lock.signal.aborted, false);
    assert.equal((await locksOf(repository)).length, 1);
  }
});

test("a machine that slept while somebody removed its lock and took another one finds its lock lost", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  await using lock = await acquire(repository, clock);
  clock.jump(2 * 3600_000); // the monotonic clock stands still while the machine sleeps
  assert.equal(await removeStaleLocks(repository, { clock }), 1);
  await plantLock(repository, clock, { exclusive: true });
  await clock.advance(6000);
  assert.equal(lock.signal.aborted, true);
});

test("a machine that slept long and cannot refresh when it wakes stops at once", async () => {
  const { lock, clock } = await heldWithFaults([{ operation: "save", from: 2, mode: "before" }]);
  clock.jump(2 * 3600_000);
  await clock.advance(6000);
  assert.ok(failsWith("LockLost", /after 120 minutes it could not be refreshed/)(lock.signal.reason));
  await lock.release();
});

test("releasing does not wait for ever for a store that is gone", async () => {
  const { lock, clock, troubles } = await heldWithFaults([{ operation: "remove", mode: "hang" }]);
  const releasing = lock.release();
  await clock.advance(20_000);
  await releasing;
  assert.deepEqual(troubles, ["StoreUnavailable"]);
  assert.equal(clock.pendingCount, 0);
});

test("a release during a refresh leaves no lock", async () => {
  for (const at of [0, 50, 150]) {
    const { store, ...rest } = await createScratch();
    const clock = fakeClock();
    const slow = createFaultyStore(store, [{ operation: "save", from: 2, mode: "slow", delayMs: 100 }], { clock });
    const lock = await acquire({ store: slow, ...rest }, clock);
    await clock.advance(5 * minuteMs - 200 + at);
    const releasing = lock.release();
    await clock.advance(1000);
    await releasing;
    assert.deepEqual(await listNames(store, "lock"), []);
  }
});

test("files without content are no locks, and a damaged lock is named", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  await plant(repository.store, "lock", new Uint8Array(0));
  await (await acquire(repository, clock, { exclusive: true })).release();
  const bad = await plantLock(repository, clock);
  await spoil(repository.store, { kind: "lock", name: bad }, flip);
  await assert.rejects(
    Promise.all([acquire(repository, clock, { exclusive: true }), clock.advance(500)]),
    failsWith("LockInvalid", new RegExp(`Cannot read lock "${bad}": its \\d+ bytes have the hash`)),
  );
  const damaged: string[] = [];
  const listing = listLocks(repository, { clock, onDamaged: (id) => damaged.push(id) });
  await clock.advance(500);
  assert.deepEqual([await listing, damaged], [[], [bad]]);
});

test("a lock that is read while it is being written is read again", async () => {
  const repository = await createScratch();
  const clock = fakeClock();
  const name = await plantLock(repository, clock);
  const store = createFaultyStore(repository.store, [{ operation: "load", nth: 1, mode: "flip" }]);
  const listing = listLocks({ ...repository, store }, { clock });
  await clock.advance(200);
  assert.deepEqual(
    (await listing).map(({ id }) => id),
    [name],
  );
});

test("stale is what was not refreshed for 30 minutes, and what belonged to a dead process of this machine", () => {
  const nowMs = Date.UTC(2026, 5, 1);
  const lock: Lock = {
    timeNs: BigInt(nowMs) * 1_000_000n,
    exclusive: false,
    hostname: hostname(),
    username: "",
    pid: process.pid,
    uid: 0,
    gid: 0,
  };
  const dead = deadPid();
  assert.equal(isStale(lock, nowMs), false);
  assert.equal(isStale({ ...lock, pid: dead }, nowMs), true);
  assert.equal(isStale({ ...lock, pid: dead, hostname: "elsewhere" }, nowMs), false);
  assert.equal(isStale({ ...lock, pid: 1 }, nowMs), false, "a process that may not be signalled is there");
  assert.equal(isStale({ ...lock, pid: 0 }, nowMs), false);
  assert.equal(isStale(lock, nowMs + 30 * minuteMs), false);
  assert.equal(isStale(lock, nowMs + 30 * minuteMs + 1), true);
  assert.equal(isStale(lock, nowMs - 3600_000), false, "a clock that is behind makes nothing stale");
});

test("removeStaleLocks() removes those, and removeAllLocks() everything", async () => {
  const repository = await createScratch();
  const clock = fakeClock(Date.now());
  const fresh = await plantLock(repository, clock);
  await plantLock(repository, clock, { hostname: hostname(), pid: deadPid() });
  await plantLock(repository, clock, { timeNs: BigInt(clock.nowMs() - 31 * minuteMs) * 1_000_000n });
  const damaged = (await plant(repository.store, "lock", Buffer.from("damaged"))).name;
  const removing = removeStaleLocks(repository, { clock });
  await clock.advance(500);
  assert.equal(await removing, 2);
  assert.deepEqual(await locksOf(repository), [fresh, damaged].sort());
  assert.equal(await removeAllLocks(repository), 2);
  assert.deepEqual(await locksOf(repository), []);
});
