import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hexOf } from "../format/ids.ts";
import { failsWith } from "../repository/scratch.ts";
import { scanReferences } from "./tree-references.ts";

const id = (number: number): string => number.toString(16).padStart(64, "0");

function scan(text: string): string[] {
  const told: string[] = [];
  scanReferences(Buffer.from(text), {
    entry: (name) => void told.push(`entry ${name}`),
    data: (found) => void told.push(`data ${Number(`0x${hexOf(found)}`)}`),
    tree: (found) => void told.push(`tree ${Number(`0x${hexOf(found)}`)}`),
    problem: ({ message }) => void told.push(`problem ${message.replace("Cannot read tree: ", "")}`),
  });
  return told;
}

function nodes(...list: readonly unknown[]): string {
  return `${JSON.stringify({ nodes: list })}\n`;
}

test("scanReferences() finds pieces of files and trees of directories, in order", () => {
  const tree = nodes(
    { name: "a", type: "file", content: [id(1), id(2)] },
    { name: "b", type: "dir", content: null, subtree: id(3) },
    { name: "c", type: "symlink", linktarget: '","content":["', content: null },
    { name: "d", type: "file", content: [] },
  );
  assert.deepEqual(scan(tree), ["entry a", "data 1", "data 2", "entry b", "tree 3", "entry c", "entry d"]);
});

test("scanReferences() reads any order of fields, white space and unknown fields", () => {
  const text = `{ "nodes" : [ { "subtree" : "${id(7)}" , "x" : {"content":["${id(9)}"]}, "type":"dir","name":"n" } ] }`;
  assert.deepEqual(scan(text), ["entry n", "tree 7"]);
});

test("scanReferences() is told of what refers to nothing it should, and goes on", () => {
  const tree = nodes(
    { name: "a", type: "file", content: null },
    { name: "b", type: "dir" },
    { name: "c", type: "dir", subtree: "abc" },
    { name: "d", content: [id(1)] },
    { name: "e", type: "gadget" },
    { name: "f", type: "file", content: [id(1), "abc", id(2)] },
    { name: "g", type: "fifo" },
  );
  assert.deepEqual(scan(tree), [
    "entry a",
    "problem an entry is a file without a list of its content",
    "entry b",
    "problem an entry is a directory without a tree",
    "entry c",
    "problem an entry is a directory without a tree",
    "entry d",
    "data 1",
    "problem an entry has no type that is known",
    "entry e",
    "problem an entry has no type that is known",
    "entry f",
    "data 1",
    "problem an entry has content that is no list of ids",
    "data 2",
    "entry g",
  ]);
});

test("scanReferences() names entries out of order, and passes over those with impossible names", () => {
  const file = (name: string, number: number): unknown => ({ name, type: "file", content: [id(number)] });
  const told = scan(nodes(file("b", 1), file("a", 2), file("a/b", 3), file("c", 4), file("c", 5)));
  assert.deepEqual(
    told.filter((line) => !line.startsWith("problem")),
    ["entry b", "data 1", "entry a", "data 2", "entry ", "entry c", "data 4", "entry c", "data 5"],
  );
  assert.deepEqual(
    told.flatMap((line, i) => (line.startsWith("problem") ? [told[i - 1]] : [])),
    ["entry a", "entry ", "entry c"],
  );
});

test("scanReferences() throws what is no tree", () => {
  for (const text of ["", "{}", "[]", '{"nodes":[{]}', nodes({ name: "a" }).slice(0, -4)]) {
    assert.throws(() => scan(text), failsWith("TreeInvalid"));
  }
});

test("scanReferences() finds what JSON.parse finds", () => {
  const file = fc.record({ type: fc.constant("file"), content: fc.array(fc.nat(1000).map(id), { maxLength: 5 }), note: fc.json() });
  const dir = fc.record({ type: fc.constant("dir"), subtree: fc.nat(1000).map(id), user: fc.string() });
  fc.assert(
    fc.property(fc.uniqueArray(fc.stringMatching(/^[a-z]{1,8}$/)), fc.array(fc.oneof(file, dir)), (names, bodies) => {
      const list = names.sort().map((name, i) => ({ name, ...(bodies[i % Math.max(1, bodies.length)] ?? { type: "socket" }) }));
      const wanted = list.flatMap((node) => [
        `entry ${node.name}`,
        ...("content" in node ? node.content.map((one) => `data ${Number(`0x${one}`)}`) : []),
        ...("subtree" in node ? [`tree ${Number(`0x${node.subtree}`)}`] : []),
      ]);
      assert.deepEqual(scan(nodes(...list)), wanted);
    }),
  );
});
