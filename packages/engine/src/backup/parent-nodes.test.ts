import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sha256 } from "../crypto/hash.ts";
import { parseNode } from "../format/parse-node.ts";
import { ParentNodes } from "./parent-nodes.ts";

const idOf = (name: string): string => sha256(Buffer.from(name)).toString("hex");

/** A tree in which every second name is a directory. */
function treeOf(names: readonly string[]): Buffer {
  const nodes = names.map((name, at) =>
    at % 2 === 0 ? { name, type: "dir", content: null, subtree: idOf(name) } : { name, type: "file", content: [idOf(name)] },
  );
  return Buffer.from(`${JSON.stringify({ nodes })}\n`);
}

const names = fc
  .uniqueArray(fc.string({ minLength: 1, maxLength: 4, unit: fc.constantFrom("a", "b", "c", "-") }), { maxLength: 30 })
  .map((list) => list.sort());

test("nodes are found by names asked for in ascending order, those that are there and those that are not", () => {
  fc.assert(
    fc.property(names, names, (present, asked) => {
      const nodes = new ParentNodes(treeOf(present));
      assert.deepEqual(nodes.names, present);
      for (const name of asked) {
        assert.equal(nodes.seek(name), present.includes(name));
        if (!present.includes(name)) continue;
        assert.equal(parseNode(nodes.bytes, nodes.start, nodes.end).name, name);
        const subtree = nodes.findSubtree();
        assert.equal(
          subtree === undefined ? undefined : Buffer.from(subtree).toString("hex"),
          present.indexOf(name) % 2 === 0 ? idOf(name) : undefined,
        );
      }
    }),
    { seed: 9, numRuns: 300 },
  );
});

test("a slice is a tree of its own with the nodes from the first to the last name, both included", () => {
  fc.assert(
    fc.property(names, names, (present, bounds) => {
      const [first = "", last = ""] = [bounds.at(0), bounds.at(-1)];
      const expected = present.filter((name) => name >= first && name <= last);
      const slice = new ParentNodes(treeOf(present)).slice(first, last);
      assert.equal(slice === undefined, expected.length === 0);
      if (slice === undefined) return;
      const nodes = new ParentNodes(slice);
      assert.deepEqual(nodes.names, expected);
      for (const name of expected) assert.equal(nodes.seek(name), true);
    }),
    { seed: 10, numRuns: 300 },
  );
});

test("a directory's tree is found wherever it stands in the node, and only a directory's", () => {
  const id = idOf("x");
  const cases: readonly (readonly [string, boolean])[] = [
    [`{"name":"x","type":"dir","content":null,"subtree":"${id}"}`, true],
    [`{"subtree":"${id}","name":"x","type":"dir"}`, true],
    [`{"name":"x","type":"dir","subtree":"${id}","error":"something"}`, true],
    [`{"name":"x","type":"file","content":[],"error":"\\"subtree\\":\\"${id}"}`, false],
    [`{"name":"x","type":"symlink","linktarget":"${id}"}`, false],
    [`{"name":"x","type":"dir"}`, false],
  ];
  for (const [node, isFound] of cases) {
    const nodes = new ParentNodes(Buffer.from(`{"nodes":[${node}]}`));
    assert.equal(nodes.seek("x"), true);
    const subtree = nodes.findSubtree();
    assert.equal(subtree === undefined ? "" : Buffer.from(subtree).toString("hex"), isFound ? id : "", node);
  }
});

test("what is no tree is refused", () => {
  for (const text of [
    "",
    "{}",
    '{"nodes":[{"name":"b","type":"file"},{"name":"a","type":"file"}]}',
    '{"nodes":[{"name":"a/b","type":"file"}]}',
  ]) {
    assert.throws(() => new ParentNodes(Buffer.from(text)), { code: "TreeInvalid" }, text);
  }
});
