import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Frames } from "./frames.ts";
import type { Destination, Frame } from "./messages.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const head = new Uint8Array(0);

/** Frames whose trees are collected, by the frame they go to. */
function collect(): { frames: Frames; trees: string[] } {
  const trees: string[] = [];
  return {
    trees,
    frames: new Frames({ onTree: (into, tree) => trees.push(`${into.frame}/${into.hole} ${Buffer.from(tree).toString().trim()}`) }),
  };
}

function frame(id: number, into: Destination, more: Partial<Frame>): Frame {
  return { kind: "frame", id, into, parts: [], ...more };
}

test("a directory is complete when all its holes have results, in the order of its parts", () => {
  const { frames, trees } = collect();
  frames.add(frame(1, { frame: -1, hole: 0 }, { parts: [1, bytes("b,c"), 2], directory: { head } }));
  frames.deliver({ frame: 1, hole: 2 }, bytes("d"));
  assert.deepEqual(trees, []);
  frames.deliver({ frame: 1, hole: 1 }, bytes("a"));
  assert.deepEqual(trees, ['-1/0 {"nodes":[a,b,c,d]}']);
  frames.assertEmpty();
});

test("results may come before their frame, entries that were not saved leave nothing, and an empty directory is one", () => {
  const { frames, trees } = collect();
  frames.deliver({ frame: 1, hole: 1 }, bytes(""));
  frames.deliver({ frame: 1, hole: 2 }, bytes("b"));
  frames.add(frame(1, { frame: 0, hole: 3 }, { parts: [1, 2, bytes("")], directory: { head } }));
  frames.add(frame(2, { frame: 0, hole: 4 }, { parts: [], directory: { head } }));
  assert.deepEqual(trees, ['0/3 {"nodes":[b]}', '0/4 {"nodes":[]}']);
});

test("part of a slice goes to the slice it was taken from", () => {
  const { frames, trees } = collect();
  frames.add(frame(2, { frame: 1, hole: 1 }, { parts: [bytes("b"), 1] }));
  frames.deliver({ frame: 2, hole: 1 }, bytes("c"));
  frames.add(frame(1, { frame: 0, hole: 1 }, { parts: [bytes("a"), 1, bytes("d")], directory: { head } }));
  assert.deepEqual(trees, ['0/1 {"nodes":[a,b,c,d]}']);
});

test("a file's parts become its node, and nothing when one of them failed", () => {
  const { frames, trees } = collect();
  const file = { prefix: bytes("<"), suffix: bytes(">") };
  frames.add(frame(2, { frame: 1, hole: 1 }, { parts: [bytes("1"), 1, bytes("3")], file }));
  frames.add(frame(3, { frame: 1, hole: 2 }, { parts: [bytes("4"), 1], file }));
  frames.add(frame(1, { frame: 0, hole: 1 }, { parts: [bytes("a"), 1, 2], directory: { head } }));
  frames.deliver({ frame: 2, hole: 1 }, bytes("2"));
  assert.deepEqual(trees, []);
  frames.deliver({ frame: 3, hole: 1 }, bytes(""));
  assert.deepEqual(trees, ['0/1 {"nodes":[a,<1,2,3>]}']);
  frames.assertEmpty();
});

test("a frame or a result that is left over is a bug that is told", () => {
  const { frames } = collect();
  frames.assertEmpty();
  frames.add(frame(1, { frame: 0, hole: 1 }, { parts: [1], directory: { head } }));
  assert.throws(() => frames.assertEmpty(), { code: "Bug" });
  const { frames: others } = collect();
  others.deliver({ frame: 1, hole: 1 }, bytes("x"));
  assert.throws(() => others.assertEmpty(), { code: "Bug" });
});

test("whatever order frames and results come in, the whole comes out the same", () => {
  // A chain of slices, each with a part before and a part behind what it gave away.
  const message = fc.nat(30).chain((depth) =>
    fc.tuple(
      fc.constant(depth),
      fc.shuffledSubarray(
        Array.from({ length: depth + 2 }, (_, at) => at),
        { minLength: depth + 2 },
      ),
    ),
  );
  fc.assert(
    fc.property(message, ([depth, order]) => {
      const { frames, trees } = collect();
      for (const step of order) {
        if (step === depth + 1) frames.deliver({ frame: depth, hole: 1 }, bytes("middle"));
        else {
          const into = step === 0 ? { frame: -1, hole: 0 } : { frame: step - 1, hole: 1 };
          frames.add(
            frame(step, into, { parts: [bytes(`<${step}`), 1, bytes(`${step}>`)], ...(step === 0 ? { directory: { head } } : {}) }),
          );
        }
      }
      const steps = Array.from({ length: depth + 1 }, (_, at) => at);
      const expected = [...steps.map((at) => `<${at}`), "middle", ...steps.reverse().map((at) => `${at}>`)].join(",");
      assert.deepEqual(trees, [`-1/0 {"nodes":[${expected}]}`]);
      frames.assertEmpty();
    }),
    { seed: 8, numRuns: 200 },
  );
});
