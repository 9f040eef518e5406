/**
 * What every adapter of the Store port must do, as tests. Durability itself cannot be seen from here; an adapter's own tests kill
 * processes and fill disks.
 */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { isFailure, listCodes } from "@granary/base/errors";
import type { FileEntry, FileKind, FileRef, Store } from "./store.ts";

/** How to reach the adapter under test, and what it is allowed to differ in. */
export interface StoreSubject {
  /** A store on a new, empty place of its own; `create` has not been called. */
  open(): Promise<Store>;
  /** Another client of the same place; the clauses about other clients are left out when absent. */
  openAgain?(store: Store): Promise<Store>;
  /** Closes a store and removes what it left. */
  close(store: Store): Promise<void>;
  /** The store refuses to remove anything but locks. */
  readonly isAppendOnly?: boolean;
  /** The store may replace a damaged file by one whose content fits the name (a server without write-once); config never. */
  readonly replacesNamed?: boolean;
  /** The server shows a file while it is still uploaded (rclone); restic and we live with that, since every file is checked when read. */
  readonly showsUnfinished?: boolean;
}

const namedKinds: readonly FileKind[] = ["key", "lock", "snapshot", "index", "pack"];
const config: FileRef = { kind: "config", name: "" };

/** Registers a `describe` block with every clause of the port. */
export function testStore(name: string, subject: StoreSubject): void {
  function clause(sentence: string, body: (store: Store) => Promise<void>): void {
    test(sentence, async () => {
      const store = await subject.open();
      try {
        await store.create();
        await body(store);
      } finally {
        await subject.close(store);
      }
    });
  }

  describe(`${name} keeps the Store port`, () => {
    testSaving(clause, subject);
    testLoading(clause);
    testListing(clause, subject);
    testRemoving(clause, subject);
    testCancelling(clause, subject);
  });
}

/** Registers a test on a store of its own. */
type Clause = (sentence: string, body: (store: Store) => Promise<void>) => void;

function testSaving(clause: Clause, subject: StoreSubject): void {
  clause("create() may run twice, on a repository in use too", async (store) => {
    const { ref, data } = await saveNew(store, "snapshot", 10);
    await store.create();
    assert.deepEqual(await loadBytes(store, ref), data);
  });

  clause("location and concurrency are told", async (store) => {
    assert.notEqual(store.location, "");
    assert.ok(store.concurrency >= 2 && store.concurrency <= 16);
  });

  for (const kind of ["config", ...namedKinds] as const) {
    clause(`save() of a ${kind} makes it visible to load, stat and list`, async (store) => {
      const { ref, data } = await saveNew(store, kind, 1234);
      assert.deepEqual(await loadBytes(store, ref), data);
      assert.deepEqual(await store.stat(ref), { name: ref.name, sizeBytes: 1234 });
      assert.deepEqual(await listAll(store, kind), [{ name: ref.name, sizeBytes: 1234 }]);
    });
  }

  clause("save() makes a file visible to other clients", async (store) => {
    if (subject.openAgain === undefined) return;
    const other = await subject.openAgain(store);
    try {
      assert.deepEqual(await listAll(other, "snapshot"), []);
      const { ref, data } = await saveNew(store, "snapshot", 99);
      assert.deepEqual(await listAll(other, "snapshot"), [{ name: ref.name, sizeBytes: 99 }]);
      assert.deepEqual(await loadBytes(other, ref), data);
    } finally {
      await other.close();
    }
  });

  for (const kind of ["config", ...namedKinds] as const) {
    clause(`save() of the same ${kind} again succeeds`, async (store) => {
      const { ref, data } = await saveNew(store, kind, 5000);
      await store.save(ref, data);
      assert.deepEqual(await loadBytes(store, ref), data);
      assert.equal((await listAll(store, kind)).length, 1);
    });
  }

  clause("save() of another config fails with StoreFileExists and changes nothing", async (store) => {
    const { data } = await saveNew(store, "config", 155);
    for (const other of [randomBytes(155), data.subarray(0, 154), Buffer.concat([data, data]), Buffer.alloc(0)]) {
      await assert.rejects(store.save(config, other), hasCode("StoreFileExists"));
    }
    assert.deepEqual(await loadBytes(store, config), data);
  });

  for (const kind of namedKinds) {
    clause(`save() of a ${kind} whose name a damaged file has fails with StoreFileExists, or heals it`, async (store) => {
      const data = randomBytes(3000);
      const ref = refOf(kind, data);
      const damaged = Uint8Array.from(data);
      damaged[1500] = (damaged[1500] ?? 0) ^ 1;
      // A server that compares content with name refuses the damaged file to begin with.
      const isPresent = await store.save(ref, damaged).then(
        () => true,
        () => false,
      );
      if (!isPresent) return;
      if (subject.replacesNamed === true) {
        await store.save(ref, data);
        assert.deepEqual(await loadBytes(store, ref), data);
      } else {
        await assert.rejects(store.save(ref, data), hasCode("StoreFileExists"));
        assert.deepEqual(await loadBytes(store, ref), Buffer.from(damaged));
      }
    });
  }

  clause("save() keeps empty files and files of many megabytes whole", async (store) => {
    for (const sizeBytes of [0, 1, 4095, 65_537, (17 << 20) + 3]) {
      const { ref, data } = await saveNew(store, "pack", sizeBytes);
      assert.equal(Buffer.compare(await store.load(ref), data), 0, `${sizeBytes} bytes`);
      assert.equal((await store.stat(ref)).sizeBytes, sizeBytes);
    }
  });

  clause("save() neither changes nor keeps the caller's bytes, and load() gives bytes of one's own", async (store) => {
    const data = randomBytes(2000);
    const copy = Buffer.from(data);
    const ref = refOf("index", data);
    await store.save(ref, data);
    assert.deepEqual(data, copy);
    data.fill(0);
    const loaded = await store.load(ref);
    assert.deepEqual(Buffer.from(loaded), copy);
    loaded.fill(1);
    assert.deepEqual(await loadBytes(store, ref), copy);
  });

  clause("save() takes a view into a larger buffer", async (store) => {
    const data = randomBytes(9000).subarray(123, 4567);
    const ref = refOf("pack", data);
    await store.save(ref, data);
    assert.deepEqual(await loadBytes(store, ref), Buffer.from(data));
  });

  clause("many saves and loads at once do not disturb each other", async (store) => {
    const files = Array.from({ length: 60 }, (_, i) => {
      const data = randomBytes(1 + i * 997);
      return { ref: refOf(namedKinds[i % namedKinds.length] ?? "pack", data), data };
    });
    await Promise.all(files.map(({ ref, data }) => store.save(ref, data)));
    const loaded = await Promise.all(files.map(({ ref }) => store.load(ref)));
    for (const [i, { data }] of files.entries()) assert.equal(Buffer.compare(loaded[i] ?? Buffer.alloc(0), data), 0);
  });

  clause("the same file saved by many at once is saved", async (store) => {
    const data = randomBytes(300_000);
    const ref = refOf("pack", data);
    await Promise.all(Array.from({ length: 8 }, () => store.save(ref, data)));
    assert.deepEqual(await loadBytes(store, ref), data);
    assert.equal((await listAll(store, "pack")).length, 1);
  });

  clause("names that are not 64 lower-case hex digits are refused", async (store) => {
    const names = ["", "../config", "a".repeat(63), "a".repeat(65), "A".repeat(64), `${"a".repeat(60)}/../b`, `${"a".repeat(64)}\n`];
    for (const name of names) {
      const ref: FileRef = { kind: "pack", name };
      await assert.rejects(async () => store.save(ref, Buffer.from("x")), hasCode("InvalidArgument"), `save ${JSON.stringify(name)}`);
      await assert.rejects(async () => store.load(ref), hasCode("InvalidArgument"));
      await assert.rejects(async () => store.stat(ref), hasCode("InvalidArgument"));
      await assert.rejects(async () => store.remove(ref), hasCode("InvalidArgument"));
    }
    await assert.rejects(async () => store.save({ kind: "config", name: "a".repeat(64) }, Buffer.from("x")), hasCode("InvalidArgument"));
  });
}

function testLoading(clause: Clause): void {
  clause("load() and stat() of what is not there fail with StoreFileNotFound", async (store) => {
    for (const kind of ["config", ...namedKinds] as const) {
      const ref = kind === "config" ? config : refOf(kind, randomBytes(8));
      await assert.rejects(store.load(ref), hasCode("StoreFileNotFound"), kind);
      await assert.rejects(store.load(ref, { offsetBytes: 5, lengthBytes: 1 }), hasCode("StoreFileNotFound"), kind);
      await assert.rejects(store.load(ref, { offsetBytes: 0, lengthBytes: 0 }), hasCode("StoreFileNotFound"), kind);
      await assert.rejects(store.stat(ref), hasCode("StoreFileNotFound"), kind);
    }
  });

  clause("load() gives exactly the span asked for, at both ends too", async (store) => {
    const { ref, data } = await saveNew(store, "pack", 100_000);
    const spans: [offset: number, length: number | undefined][] = [
      [0, undefined],
      [0, 100_000],
      [0, 1],
      [99_999, 1],
      [99_999, undefined],
      [1, 99_999],
      [40_000, 20_000],
      [65_535, 2],
      [100, undefined],
      [0, 0],
      [500, 0],
      [100_000, 0],
      [100_000, undefined],
    ];
    for (const [offsetBytes, lengthBytes] of spans) {
      const span = lengthBytes === undefined ? { offsetBytes } : { offsetBytes, lengthBytes };
      const expected = data.subarray(offsetBytes, lengthBytes === undefined ? undefined : offsetBytes + lengthBytes);
      assert.deepEqual(await loadBytes(store, ref, span), expected, `${offsetBytes}+${lengthBytes ?? ""}`);
    }
  });

  clause("load() of a span that ends past the file fails with StoreTruncated", async (store) => {
    const { ref } = await saveNew(store, "pack", 1000);
    const spans = [
      { offsetBytes: 0, lengthBytes: 1001 },
      { offsetBytes: 999, lengthBytes: 2 },
      { offsetBytes: 1000, lengthBytes: 1 },
      { offsetBytes: 1001 },
      { offsetBytes: 1001, lengthBytes: 0 },
      { offsetBytes: 5000, lengthBytes: 10 },
      { offsetBytes: 0, lengthBytes: 2 ** 32 },
    ];
    for (const span of spans) await assert.rejects(store.load(ref, span), hasCode("StoreTruncated"), JSON.stringify(span));
    const empty = await saveNew(store, "pack", 0);
    assert.equal((await store.load(empty.ref)).length, 0);
    assert.equal((await store.load(empty.ref, { offsetBytes: 0, lengthBytes: 0 })).length, 0);
    await assert.rejects(store.load(empty.ref, { offsetBytes: 0, lengthBytes: 1 }), hasCode("StoreTruncated"));
  });
}

function testListing(clause: Clause, subject: StoreSubject): void {
  clause("list() of an empty repository is empty", async (store) => {
    for (const kind of ["config", ...namedKinds] as const) assert.deepEqual(await listAll(store, kind), [], kind);
  });

  clause("list() gives every file of a kind once, with its size, and no other kind's", async (store) => {
    const expected = new Map<string, number>();
    const contents = Array.from({ length: 320 }, (_, i) => Buffer.from(`${i} ${"x".repeat(i)}`));
    await Promise.all(contents.map((data) => store.save(refOf("pack", data), data)));
    for (const data of contents) expected.set(refOf("pack", data).name, data.length);
    await saveNew(store, "index", 10);

    const listed = await listAll(store, "pack");
    assert.equal(listed.length, expected.size);
    assert.deepEqual(new Map(listed.map((entry) => [entry.name, entry.sizeBytes])), expected);
    assert.equal((await listAll(store, "index")).length, 1);
    assert.equal((await listAll(store, "snapshot")).length, 0);
  });

  clause("list() may be left early and run beside others", async (store) => {
    for (let i = 0; i < 5; i++) await saveNew(store, "lock", 100 + i);
    for await (const entry of store.list("lock")) {
      assert.ok(entry.sizeBytes >= 100);
      break;
    }
    const lists = await Promise.all([listAll(store, "lock"), listAll(store, "lock"), listAll(store, "pack")]);
    assert.deepEqual(
      lists.map((list) => list.length),
      [5, 5, 0],
    );
  });

  clause("list() does not show what was removed", async (store) => {
    const kept = await saveNew(store, "lock", 20);
    const gone = await saveNew(store, "lock", 30);
    await store.remove(gone.ref);
    assert.deepEqual(await listAll(store, "lock"), [{ name: kept.ref.name, sizeBytes: 20 }]);
    if (subject.openAgain === undefined) return;
    const other = await subject.openAgain(store);
    assert.deepEqual(await listAll(other, "lock"), [{ name: kept.ref.name, sizeBytes: 20 }]);
    await other.close();
  });
}

function testRemoving(clause: Clause, subject: StoreSubject): void {
  const removable: readonly FileKind[] = subject.isAppendOnly === true ? ["lock"] : namedKinds;
  for (const kind of removable) {
    clause(`remove() takes a ${kind} away, succeeds again, and lets the name be used anew`, async (store) => {
      const { ref, data } = await saveNew(store, kind, 77);
      await store.remove(ref);
      await assert.rejects(store.load(ref), hasCode("StoreFileNotFound"));
      await assert.rejects(store.stat(ref), hasCode("StoreFileNotFound"));
      await store.remove(ref);
      await store.remove(refOf(kind, randomBytes(4)));
      await store.save(ref, data);
      assert.deepEqual(await loadBytes(store, ref), data);
    });
  }

  if (subject.isAppendOnly === true) {
    clause("remove() of anything but a lock fails with StoreDenied and removes nothing", async (store) => {
      for (const kind of namedKinds.filter((each) => each !== "lock")) {
        const { ref, data } = await saveNew(store, kind, 77);
        await assert.rejects(store.remove(ref), hasCode("StoreDenied"), kind);
        assert.deepEqual(await loadBytes(store, ref), data);
      }
    });
  }

  clause("quarantine(), where there is one, hides a file and lets the name be used anew", async (store) => {
    if (store.quarantine === undefined) return;
    for (const kind of namedKinds) {
      const { ref, data } = await saveNew(store, kind, 64);
      for (let round = 0; round < 3; round++) {
        await store.quarantine(ref);
        await assert.rejects(store.stat(ref), hasCode("StoreFileNotFound"));
        await assert.rejects(store.quarantine(ref), hasCode("StoreFileNotFound"));
        assert.deepEqual(await listAll(store, kind), []);
        await store.save(ref, data);
      }
      assert.deepEqual(await loadBytes(store, ref), data);
    }
  });

  clause("close() may be called twice", async (store) => {
    await saveNew(store, "lock", 1);
    await store.close();
    await store.close();
  });
}

function testCancelling(clause: Clause, subject: StoreSubject): void {
  clause("an aborted signal stops every call with Cancelled, before anything is done", async (store) => {
    const { ref } = await saveNew(store, "lock", 10);
    const signal = AbortSignal.abort();
    const data = randomBytes(100);
    const unsaved = refOf("lock", data);
    await assert.rejects(store.save(unsaved, data, signal), hasCode("Cancelled"));
    await assert.rejects(store.load(ref, undefined, signal), hasCode("Cancelled"));
    await assert.rejects(store.stat(ref, signal), hasCode("Cancelled"));
    await assert.rejects(Array.fromAsync(store.list("lock", signal)), hasCode("Cancelled"));
    await assert.rejects(store.remove(ref, signal), hasCode("Cancelled"));
    assert.deepEqual(await listAll(store, "lock"), [{ name: ref.name, sizeBytes: 10 }]);
  });

  if (subject.showsUnfinished === true) return;
  clause("a save aborted under way leaves the whole file or none, and the store goes on", async (store) => {
    for (let round = 0; round < 6; round++) {
      const data = randomBytes(4 << 20);
      const ref = refOf("pack", data);
      const controller = new AbortController();
      const saving = store.save(ref, data, controller.signal);
      for (let turn = 0; turn < round * 3; turn++) await new Promise((resolve) => setImmediate(resolve));
      controller.abort();
      const isSaved = await saving.then(
        () => true,
        (error: unknown) => {
          assert.ok(hasCode("Cancelled")(error));
          return false;
        },
      );
      for await (const entry of store.list("pack")) if (entry.name === ref.name) assert.equal(entry.sizeBytes, data.length);
      if (isSaved) assert.equal(Buffer.compare(await store.load(ref), data), 0);
      await store.save(ref, data);
      assert.equal(Buffer.compare(await store.load(ref), data), 0);
    }
  });
}

function refOf(kind: FileKind, data: Uint8Array): FileRef {
  return kind === "config" ? config : { kind, name: createHash("sha256").update(data).digest("hex") };
}

async function saveNew(store: Store, kind: FileKind, sizeBytes: number): Promise<{ ref: FileRef; data: Buffer }> {
  const data = randomBytes(sizeBytes);
  const ref = refOf(kind, data);
  await store.save(ref, data);
  return { ref, data };
}

async function loadBytes(store: Store, ref: FileRef, span?: { offsetBytes: number; lengthBytes?: number }): Promise<Buffer> {
  return Buffer.from(await store.load(ref, span));
}

async function listAll(store: Store, kind: FileKind): Promise<FileEntry[]> {
  return Array.fromAsync(store.list(kind));
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => {
    if (isFailure(error, code) && error.kind === listCodes().get(code)?.kind) return true;
    throw error;
  };
}
