import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { parseBlobId, parseSnapshotId, type SnapshotId } from "../format/ids.ts";
import type { Snapshot } from "../format/snapshot.ts";
import { createFaultyStore } from "../store/faulty.ts";
import type { Repository } from "./repository.ts";
import { createScratch, failsWith, flip, plant, spoil } from "./scratch.ts";
import {
  findParent,
  findSnapshot,
  loadSnapshot,
  loadSnapshots,
  matchesFilter,
  removeSnapshot,
  saveSnapshot,
  type SnapshotFilter,
  type StoredSnapshot,
} from "./snapshots.ts";

function make(seconds: number, more: Partial<Snapshot> = {}): Snapshot {
  return {
    timeNs: BigInt(seconds) * 1_000_000_000n,
    timeOffsetMinutes: 0,
    parent: null,
    tree: parseBlobId(createHash("sha256").update(String(seconds)).digest("hex")),
    paths: ["/home"],
    hostname: "alpha",
    username: "alice",
    uid: 1000,
    gid: 1000,
    excludes: [],
    tags: [],
    original: null,
    programVersion: "granary 0.1.0",
    summary: null,
    unknown: new Map(),
    ...more,
  };
}

function stored(seconds: number, more: Partial<Snapshot> = {}): StoredSnapshot {
  return {
    ...make(seconds, more),
    id: parseSnapshotId(
      createHash("sha256")
        .update(`${seconds}${JSON.stringify(more)}`)
        .digest("hex"),
    ),
  };
}

async function save(repository: Repository, ...snapshots: readonly Snapshot[]): Promise<SnapshotId[]> {
  const ids: SnapshotId[] = [];
  for (const snapshot of snapshots) ids.push(await saveSnapshot(repository, snapshot));
  return ids;
}

test("snapshots are loaded as they were saved, oldest first", async () => {
  const repository = await createScratch();
  const snapshots = [make(30, { tags: ["a", "b"], parent: parseSnapshotId("ab".repeat(32)) }), make(10), make(20, { hostname: "ß\u2028" })];
  const [late, early, middle] = await save(repository, ...snapshots);
  const loaded = await loadSnapshots(repository);
  assert.deepEqual(
    loaded.map(({ id }) => id),
    [early, middle, late],
  );
  assert.deepEqual(loaded[2], { ...snapshots[0], id: late });
  assert.deepEqual(loaded[1], { ...snapshots[2], id: middle });
  assert.deepEqual(await loadSnapshots(await createScratch()), []);
});

test("a damaged snapshot is named, and does not hide the others", async () => {
  const repository = await createScratch();
  const [good, bad] = await save(repository, make(1), make(2));
  assert.ok(bad !== undefined);
  await spoil(repository.store, { kind: "snapshot", name: bad }, flip);
  const { name } = await plant(repository.store, "snapshot", repository.sealer.seal(Buffer.from('{"time":"never"}')));
  await assert.rejects(loadSnapshots(repository));
  const damaged = new Map<string, string>();
  const loaded = await loadSnapshots(repository, { onDamaged: (id, failure) => damaged.set(id, failure.code) });
  assert.deepEqual(
    loaded.map(({ id }) => id),
    [good],
  );
  assert.deepEqual(
    damaged,
    new Map([...damaged.keys()].map((id) => [id, id === bad ? "NameMismatch" : id === name ? "SnapshotInvalid" : "?"])),
  );
  assert.equal(damaged.size, 2);
  await assert.rejects(loadSnapshot(repository, bad), failsWith("NameMismatch", new RegExp(bad)));
  await assert.rejects(findSnapshot(repository, bad.slice(0, 10)), failsWith("NameMismatch"));
  // an older one must not silently pass for the latest
  await assert.rejects(findSnapshot(repository, "latest"));
});

test("a store that goes away is not taken for damage", async () => {
  const repository = await createScratch();
  await save(repository, make(1));
  const store = createFaultyStore(repository.store, [{ operation: "load", mode: "before" }]);
  await assert.rejects(loadSnapshots({ ...repository, store }, { onDamaged: assert.fail }), failsWith("StoreUnavailable"));
});

test("findSnapshot() finds by the beginning of an id, with a path behind it", async () => {
  const repository = await createScratch();
  const [id] = await save(repository, make(1));
  assert.ok(id !== undefined);
  for (const name of [id, id.slice(0, 8), id.slice(0, 1)]) {
    const { snapshot, subpath } = await findSnapshot(repository, name);
    assert.deepEqual([snapshot.id, subpath], [id, ""]);
  }
  assert.equal((await findSnapshot(repository, `${id.slice(0, 8)}:/home/a:b`)).subpath, "/home/a:b");
  assert.equal((await findSnapshot(repository, `${id}:`)).subpath, "");
  // hosts and tags only matter for "latest"
  assert.equal((await findSnapshot(repository, id.slice(0, 8), { hosts: ["nobody"] })).snapshot.id, id);
});

test("findSnapshot() refuses what names none, and what names several", async () => {
  const repository = await createScratch();
  const ids = await save(repository, ...Array.from({ length: 17 }, (_, i) => make(i)));
  const missing = "0".repeat(64);
  for (const name of ["", ":", "xyz", "ABC", missing, `${missing.slice(0, 30)}`, "lates"]) {
    await assert.rejects(findSnapshot(repository, name), failsWith("SnapshotNotFound"), name);
  }
  const twice = ids.find((id, i) => ids.some((other, j) => i !== j && other[0] === id[0]));
  await assert.rejects(findSnapshot(repository, (twice ?? "").slice(0, 1)), failsWith("SnapshotAmbiguous", /\d+ ids begin so/));
});

test("latest is the newest that the filter lets through", async () => {
  const repository = await createScratch();
  await assert.rejects(findSnapshot(repository, "latest"), failsWith("SnapshotNotFound"));
  const [a, b, c] = await save(
    repository,
    make(10, { hostname: "alpha", tags: ["weekly"] }),
    make(30, { hostname: "beta", paths: ["/etc", "/home"] }),
    make(20, { hostname: "alpha", tags: ["daily", "x"] }),
  );
  const latest = async (filter: SnapshotFilter): Promise<SnapshotId> => (await findSnapshot(repository, "latest:sub", filter)).snapshot.id;
  assert.equal(await latest({}), b);
  assert.equal(await latest({ hosts: ["alpha"] }), c);
  assert.equal(await latest({ hosts: ["alpha", "beta"] }), b);
  assert.equal(await latest({ paths: ["/etc"] }), b);
  assert.equal(await latest({ tags: [["weekly"]] }), a);
  assert.equal(await latest({ tags: [["weekly"], ["daily", "x"]] }), c);
  await assert.rejects(latest({ tags: [["weekly", "x"]] }), failsWith("SnapshotNotFound"));
});

test("filters mean what they mean in restic", () => {
  const snapshot = make(1, { hostname: "h", paths: ["/a", "/b"], tags: ["x", "y"] });
  const cases: readonly (readonly [filter: SnapshotFilter, matches: boolean])[] = [
    [{}, true],
    [{ hosts: [], paths: [], tags: [] }, true],
    [{ hosts: ["i", "h"] }, true],
    [{ hosts: ["i"] }, false],
    [{ paths: ["/a"] }, true],
    [{ paths: ["/b", "/a"] }, true],
    [{ paths: ["/a", "/c"] }, false],
    [{ tags: [["x"]] }, true],
    [{ tags: [["x", "y"]] }, true],
    [{ tags: [["x", "z"]] }, false],
    [{ tags: [["z"], ["y"]] }, true],
    [{ tags: [[""]] }, false],
    [{ hosts: ["h"], tags: [["z"]] }, false],
  ];
  for (const [filter, matches] of cases) assert.equal(matchesFilter(snapshot, filter), matches, JSON.stringify(filter));
  assert.equal(matchesFilter(make(1), { tags: [[""]] }), true);
});

test("the parent is the newest of the host that has all the paths and is not later", () => {
  const old = stored(10);
  const wide = stored(20, { paths: ["/etc", "/home"] });
  const late = stored(40);
  const foreign = stored(30, { hostname: "beta" });
  const other = stored(35, { paths: ["/srv"] });
  const all = [late, old, foreign, wide, other];
  const at = (seconds: number): bigint => BigInt(seconds) * 1_000_000_000n;
  const query = { hosts: ["alpha"], paths: ["/home"] };
  assert.equal(findParent(all, { ...query, timeNs: at(50) }), late);
  assert.equal(findParent(all, { ...query, timeNs: at(40) }), late);
  assert.equal(findParent(all, { ...query, timeNs: at(40) - 1n }), wide);
  assert.equal(findParent(all, { ...query, timeNs: at(19) }), old);
  assert.equal(findParent(all, { ...query, timeNs: at(9) }), undefined);
  assert.equal(findParent(all, { hosts: ["alpha"], paths: ["/etc", "/srv"], timeNs: at(50) }), undefined);
  assert.equal(findParent(all, { ...query, tags: [["x"]], timeNs: at(50) }), undefined);
  assert.equal(findParent([], { timeNs: 0n }), undefined);
});

test("removeSnapshot() removes one, and may run twice", async () => {
  const repository = await createScratch();
  const [a, b] = await save(repository, make(1), make(2));
  assert.ok(a !== undefined);
  await removeSnapshot(repository, a);
  await removeSnapshot(repository, a);
  assert.deepEqual(
    (await loadSnapshots(repository)).map(({ id }) => id),
    [b],
  );
  await assert.rejects(loadSnapshot(repository, a), failsWith("SnapshotNotFound"));
});
