import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { systemClock } from "./clock.ts";
import { Failure } from "./errors.ts";
import { mapOrdered } from "./map-ordered.ts";

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** Sources that tell whether they were closed. */
function makeSource(count: number): { items: AsyncIterable<number>; taken: () => number; isClosed: () => boolean } {
  let taken = 0;
  let isClosed = false;
  async function* generate(): AsyncGenerator<number> {
    try {
      for (; taken < count; ) yield taken++;
    } finally {
      isClosed = true;
    }
  }
  return { items: generate(), taken: () => taken, isClosed: () => isClosed };
}

test("mapOrdered() yields results in the order of the items, never more than the limit at once", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(3), { maxLength: 30 }),
      fc.integer({ min: 1, max: 6 }),
      fc.boolean(),
      async (waits, limit, isAsync) => {
        let running = 0;
        let most = 0;
        async function* stream(): AsyncGenerator<number> {
          yield* waits;
        }
        const results = await collect(
          mapOrdered(isAsync ? stream() : waits, { limit }, async (wait) => {
            most = Math.max(most, ++running);
            for (let turn = 0; turn < wait; turn++) await new Promise((resolve) => setImmediate(resolve));
            running--;
            return wait;
          }),
        );
        assert.deepEqual(results, waits);
        assert.ok(most <= limit);
        if (waits.length >= limit && waits.slice(0, limit).every((wait) => wait > 0)) assert.equal(most, limit);
      },
    ),
    { seed: 20_261_120, numRuns: 200 },
  );
});

test("mapOrdered() takes no more items than there is room for while nobody consumes", async () => {
  const source = makeSource(100);
  const results = mapOrdered(source.items, { limit: 3 }, (item) => item);
  await results.next();
  await systemClock.sleep(5);
  assert.equal(source.taken(), 4); // one yielded, three in hand
  await results.return();
  assert.equal(source.isClosed(), true);
});

test("mapOrdered() throws the first error though an earlier item still runs, aborts the others and closes the source", async () => {
  const source = makeSource(100);
  const aborted: number[] = [];
  const results = mapOrdered(source.items, { limit: 4 }, async (item, signal) => {
    if (item === 2) throw new Error("item 2");
    await systemClock.sleep(60_000, signal).catch(() => aborted.push(item));
    return item;
  });
  await assert.rejects(collect(results), { message: "item 2" });
  assert.deepEqual(aborted, [0, 1]);
  assert.ok(source.taken() <= 4);
  assert.equal(source.isClosed(), true);
});

test("mapOrdered() throws what the source throws, after the running calls ended", async () => {
  let running = 0;
  async function* broken(): AsyncGenerator<number> {
    yield 1;
    yield 2;
    throw new Error("disk gone");
  }
  const results = mapOrdered(broken(), { limit: 4 }, async () => {
    running++;
    await systemClock.sleep(5);
    running--;
  });
  await assert.rejects(collect(results), { message: "disk gone" });
  assert.equal(running, 0);
});

test("mapOrdered() stops with Cancelled, or with the failure that aborted the signal", async () => {
  await assert.rejects(collect(mapOrdered([1], { limit: 1, signal: AbortSignal.abort() }, (item) => item)), { code: "Cancelled" });

  const controller = new AbortController();
  const reason = new Failure("InvalidArgument", "stop");
  const results = mapOrdered([1, 2, 3], { limit: 2, signal: controller.signal }, (_item, signal) => systemClock.sleep(60_000, signal));
  const collecting = collect(results);
  await systemClock.sleep(2);
  controller.abort(reason);
  await assert.rejects(collecting, reason);
});

test("mapOrdered() waits for running calls when the consumer stops early", async () => {
  let finished = 0;
  for await (const item of mapOrdered([0, 1, 2, 3], { limit: 3 }, async (value) => {
    await systemClock.sleep(value * 3);
    finished++;
    return value;
  })) {
    assert.equal(item, 0);
    break;
  }
  const atEnd = finished;
  await systemClock.sleep(20);
  assert.equal(finished, atEnd);
});

test("mapOrdered() does not hang on a source that waits forever", async () => {
  async function* stuck(): AsyncGenerator<number> {
    yield 1;
    await new Promise(() => undefined);
  }
  const results = mapOrdered(stuck(), { limit: 2 }, () => {
    throw new Error("at once");
  });
  await assert.rejects(collect(results), { message: "at once" });
});

test("mapOrdered() refuses a limit that is not a whole number of 1 or more", async () => {
  for (const limit of [0, -1, 1.5, Number.NaN]) await assert.rejects(collect(mapOrdered([1], { limit }, (item) => item)), RangeError);
});
