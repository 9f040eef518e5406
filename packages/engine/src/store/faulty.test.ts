import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { fakeClock } from "@granary/base/testing";
import { testStore } from "./conformance.ts";
import { createFaultyStore } from "./faulty.ts";
import { createMemoryStore } from "./memory.ts";
import type { FileKind, FileRef, Store } from "./store.ts";

testStore("the faulty store without faults", {
  open: async () => createFaultyStore(createMemoryStore()),
  close: (store) => store.close(),
});

const data = Buffer.from("some content");
const fails = (code: string) => (error: unknown) => isFailure(error, code);

function refOf(kind: FileKind, text: string): FileRef {
  return { kind, name: createHash("sha256").update(text).digest("hex") };
}

async function names(store: Store, kind: FileKind): Promise<string[]> {
  return (await Array.fromAsync(store.list(kind))).map((entry) => entry.name);
}

describe("createFaultyStore()", () => {
  test("mode before fails and does nothing, with the code of the rule", async () => {
    const inner = createMemoryStore();
    const store = createFaultyStore(inner, [{ operation: "save", mode: "before", code: "StoreFull" }]);
    await assert.rejects(store.save(refOf("pack", "a"), data), fails("StoreFull"));
    assert.deepEqual(await names(inner, "pack"), []);
  });

  test("mode midway fails a save that leaves nothing, and breaks a list off half way", async () => {
    const inner = createMemoryStore();
    for (const text of ["a", "b", "c", "d"]) await inner.save(refOf("lock", text), data);
    const store = createFaultyStore(inner, [{ mode: "midway" }]);
    await assert.rejects(store.save(refOf("pack", "a"), data), fails("StoreUnavailable"));
    await assert.rejects(store.load(refOf("lock", "a")), fails("StoreUnavailable"));
    assert.deepEqual(await names(inner, "pack"), []);

    const seen: string[] = [];
    await assert.rejects(async () => {
      for await (const entry of store.list("lock")) seen.push(entry.name);
    }, fails("StoreUnavailable"));
    assert.equal(seen.length, 2);
  });

  test("mode after does the work and loses the answer", async () => {
    const inner = createMemoryStore();
    const store = createFaultyStore(inner, [{ mode: "after" }]);
    await assert.rejects(store.save(refOf("pack", "a"), data), fails("StoreUnavailable"));
    assert.deepEqual(await names(inner, "pack"), [refOf("pack", "a").name]);
    await assert.rejects(store.remove(refOf("pack", "a")), fails("StoreUnavailable"));
    assert.deepEqual(await names(inner, "pack"), []);
  });

  test("mode twice does everything twice, which nobody notices", async () => {
    const inner = createFaultyStore(createMemoryStore());
    const store = createFaultyStore(inner, [{ mode: "twice" }]);
    const ref = refOf("pack", "a");
    await store.save(ref, data);
    assert.deepEqual(Buffer.from(await store.load(ref)), data);
    assert.deepEqual(await names(store, "pack"), [ref.name]);
    await store.remove(ref);
    assert.deepEqual(
      inner.calls.map((call) => call.operation),
      ["save", "save", "load", "load", "list", "list", "remove", "remove"],
    );
  });

  test("mode hang waits for the signal, for release or for close", async () => {
    const inner = createMemoryStore();
    const store = createFaultyStore(inner, [{ operation: "save", mode: "hang" }]);
    const controller = new AbortController();
    const aborted = store.save(refOf("pack", "a"), data, controller.signal);
    controller.abort();
    await assert.rejects(aborted, fails("Cancelled"));

    const released = store.save(refOf("pack", "b"), data);
    assert.deepEqual(await names(inner, "pack"), []);
    store.release();
    await released;
    assert.deepEqual(await names(inner, "pack"), [refOf("pack", "b").name]);

    const closed = store.save(refOf("pack", "c"), data);
    await Promise.all([assert.rejects(closed, fails("StoreUnavailable")), store.close()]);
    assert.equal((await names(inner, "pack")).length, 1);
  });

  test("mode slow waits by the clock and then does the work", async () => {
    const clock = fakeClock();
    const inner = createMemoryStore();
    const store = createFaultyStore(inner, [{ operation: "save", mode: "slow", delayMs: 5000 }], { clock });
    const saving = store.save(refOf("pack", "a"), data);
    await clock.advance(4999);
    assert.deepEqual(await names(inner, "pack"), []);
    await clock.advance(1);
    await saving;
    assert.equal((await names(inner, "pack")).length, 1);
  });

  test("mode flip changes one bit of what is loaded and nothing in the store", async () => {
    const inner = createMemoryStore();
    const ref = refOf("pack", "a");
    await inner.save(ref, data);
    const store = createFaultyStore(inner, [{ operation: "load", nth: 1, mode: "flip" }]);
    const damaged = await store.load(ref);
    assert.equal(damaged.filter((byte, i) => byte !== data[i]).length, 1);
    assert.deepEqual(Buffer.from(await store.load(ref)), data);
  });

  test("nth, every and from pick calls, and kinds are counted apart", async () => {
    const outcomes = async (rule: object): Promise<string> => {
      const store = createFaultyStore(createMemoryStore(), [{ operation: "save", kind: "pack", mode: "before", ...rule }]);
      let text = "";
      for (let i = 0; i < 6; i++) {
        await store.save(refOf("index", `${i}`), data);
        text += await store.save(refOf("pack", `${i}`), data).then(
          () => ".",
          () => "x",
        );
      }
      return text;
    };
    assert.equal(await outcomes({}), "xxxxxx");
    assert.equal(await outcomes({ nth: 3 }), "..x...");
    assert.equal(await outcomes({ every: 2 }), ".x.x.x");
    assert.equal(await outcomes({ from: 4 }), "...xxx");
    assert.equal(await outcomes({ every: 2, from: 3 }), "...x.x");
  });

  test("the first rule that is due decides, and calls are recorded", async () => {
    const store = createFaultyStore(createMemoryStore(), [
      { operation: "save", nth: 2, mode: "before", code: "StoreDenied" },
      { operation: "save", from: 2, mode: "before" },
    ]);
    const ref = refOf("lock", "a");
    await store.save(ref, data);
    await assert.rejects(store.save(ref, data), fails("StoreDenied"));
    await assert.rejects(store.save(ref, data), fails("StoreUnavailable"));
    assert.deepEqual(store.calls, [
      { operation: "save", kind: "lock", name: ref.name },
      { operation: "save", kind: "lock", name: ref.name, fault: "before" },
      { operation: "save", kind: "lock", name: ref.name, fault: "before" },
    ]);
  });
});
