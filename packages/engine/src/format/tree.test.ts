import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { ByteSink } from "./byte-sink.ts";
import { fromBytes, fromUtf8 } from "./byte-string.ts";
import { encodeNode, encodeNodeHead, type NodeHead, type TreeNode, writeNodeContent, writeNodeTail } from "./node.ts";
import { parseNode, parseNodeContent } from "./parse-node.ts";
import { encodeTree, scanTree, TreeWriter } from "./tree.ts";

const MIN_SECONDS = -62_167_219_200;
const MAX_SECONDS = 253_402_300_799;

const bareNode: TreeNode = {
  name: "a",
  type: "file",
  mode: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  atimeSeconds: 0,
  atimeNanos: 0,
  ctimeSeconds: 0,
  ctimeNanos: 0,
  uid: 0,
  gid: 0,
  user: "",
  group: "",
  inode: 0,
  deviceId: 0,
  size: 0,
  links: 0,
  linkTarget: "",
  extendedAttributes: [],
  genericAttributes: "",
  device: 0,
  content: null,
  subtree: null,
  error: "",
};

const anyName = fc
  .uint8Array({ minLength: 1, maxLength: 12 })
  .map((bytes) => fromBytes(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x5c : byte))))
  .filter((name) => name !== "." && name !== "..");
const anySeconds = fc.integer({ min: MIN_SECONDS, max: MAX_SECONDS });
const anyNanos = fc.oneof(fc.constant(0), fc.nat(999_999_999));
const anyUint32 = fc.nat(2 ** 32 - 1);
const anyUint64 = fc
  .oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 2n ** 53n - 2n, max: 2n ** 53n + 2n }))
  .map((value) => (value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value));
const anyText = fc.oneof(fc.constant(""), fc.string({ unit: "binary" }));
const anyId = fc.uint8Array({ minLength: 32, maxLength: 32 });

const anyNode: fc.Arbitrary<TreeNode> = fc.record(
  {
    name: anyName,
    type: fc.constantFrom("file", "dir", "symlink", "dev", "chardev", "fifo", "socket", "irregular"),
    mode: anyUint32,
    mtimeSeconds: anySeconds,
    mtimeNanos: anyNanos,
    atimeSeconds: anySeconds,
    atimeNanos: anyNanos,
    ctimeSeconds: anySeconds,
    ctimeNanos: anyNanos,
    uid: anyUint32,
    gid: anyUint32,
    user: anyText,
    group: anyText,
    inode: anyUint64,
    deviceId: anyUint64,
    size: anyUint64,
    links: anyUint64,
    linkTarget: fc.oneof(fc.constant(""), fc.uint8Array({ maxLength: 12 }).map(fromBytes), fc.string({ unit: "binary" }).map(fromUtf8)),
    extendedAttributes: fc.array(fc.record({ name: fc.string({ unit: "binary" }), value: fc.uint8Array() }, { noNullPrototype: true }), {
      maxLength: 3,
    }),
    genericAttributes: fc.constantFrom("", '{"windows.file_attributes":"ICAA","x":[1.50,{"y":null}]}'),
    device: anyUint64,
    content: fc.oneof(
      fc.constant(null),
      fc.array(anyId, { maxLength: 3 }).map((ids) => new Uint8Array(Buffer.concat(ids))),
    ),
    subtree: fc.option(anyId),
    error: anyText,
  },
  { noNullPrototype: true },
);

function scan(tree: string | Uint8Array): string[] {
  const bytes = Buffer.from(tree);
  const found: string[] = [];
  scanTree(bytes, (name, start, end) => found.push(`${name}=${bytes.latin1Slice(start, end)}`));
  return found;
}

test("encodeNode() writes restic's fields in restic's order and leaves out what is empty", () => {
  assert.equal(
    encodeNode(bareNode).toString(),
    '{"name":"a","type":"file","mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0,"content":null}',
  );
  const full: TreeNode = {
    name: 'a<&>"q\\.txt',
    type: "symlink",
    mode: 134218239,
    mtimeSeconds: 1_767_323_045,
    mtimeNanos: 678_901_234,
    atimeSeconds: -1,
    atimeNanos: 999_000_000,
    ctimeSeconds: 1,
    ctimeNanos: 0,
    uid: 1000,
    gid: 4294967295,
    user: "a&b",
    group: "g",
    inode: 18446744073709551615n,
    deviceId: 64769,
    size: 9007199254740993n,
    links: 2,
    linkTarget: "x\xff<",
    extendedAttributes: [
      { name: "user.a", value: Uint8Array.of(1, 2, 3, 4) },
      { name: "user.b", value: new Uint8Array(0) },
    ],
    genericAttributes: '{"k":"v"}',
    device: 259,
    content: new Uint8Array(64).fill(0xab, 0, 32),
    subtree: new Uint8Array(32).fill(0xcd),
    error: "read: \n failed",
  };
  assert.equal(
    encodeNode(full).toString(),
    '{"name":"a\\u003c\\u0026\\u003e\\\\\\"q\\\\\\\\.txt","type":"symlink","mode":134218239,"mtime":"2026-01-02T03:04:05.678901234Z",' +
      '"atime":"1969-12-31T23:59:59.999Z","ctime":"1970-01-01T00:00:01Z","uid":1000,"gid":4294967295,"user":"a\\u0026b","group":"g",' +
      '"inode":18446744073709551615,"device_id":64769,"size":9007199254740993,"links":2,"linktarget":"x\\ufffd\\u003c","linktarget_raw":"eP88",' +
      '"extended_attributes":[{"name":"user.a","value":"AQIDBA=="},{"name":"user.b","value":""}],"generic_attributes":{"k":"v"},"device":259,' +
      `"content":["${"ab".repeat(32)}","${"00".repeat(32)}"],"subtree":"${"cd".repeat(32)}","error":"read: \\n failed"}`,
  );
  const bytes = encodeNode(full);
  assert.deepEqual(parseNode(bytes), full);
});

test("parseNode() gives back any node that encodeNode() wrote, wherever it lies", () => {
  fc.assert(
    fc.property(anyNode, (node) => {
      const bytes = encodeNode(node);
      assert.deepEqual(parseNode(bytes), node);
      const inside = Buffer.concat([Buffer.from("xx"), bytes, Buffer.from(",{")]);
      assert.deepEqual(parseNode(inside, 2, 2 + bytes.length), node);
      assert.ok(JSON.parse(bytes.toString()));
    }),
    { numRuns: 300 },
  );
});

test("a node is its head, its content and its tail, and the content can be read alone", () => {
  fc.assert(
    fc.property(anyNode, (node) => {
      const head: NodeHead = node;
      const sink = new ByteSink(1);
      sink.writeLatin1(encodeNodeHead(head));
      const contentAt = sink.length;
      writeNodeContent(sink, node.content);
      writeNodeTail(sink, node.subtree, node.error);
      const whole = encodeNode(node);
      assert.ok(sink.copy().equals(whole));
      assert.ok(sink.equalsAt(0, Buffer.concat([Buffer.from("x"), whole]), 1));
      assert.equal(sink.equalsAt(0, whole.subarray(1), 0), false);
      assert.deepEqual(parseNodeContent(whole, contentAt), node.content);
    }),
  );
});

test("parseNode() takes fields in any order, ignores unknown ones, and reads null as absent", () => {
  const text =
    ' {"subtree":null, "x_cbt" : {"deep":[1,{"y":"}"}]},"content" : [ "' +
    `${"ab".repeat(32)}" , "${"cd".repeat(32)}" ],"mtime":"2026-01-02T03:04:05+01:00","mode":null,"user":null,"type":"file","name":"b\\u0061r","linktarget_raw":"/w==","linktarget":"?"}`;
  const node = parseNode(Buffer.from(text), 1);
  assert.equal(node.name, "bar");
  assert.equal(node.mode, 0);
  assert.equal(node.mtimeSeconds, Date.UTC(2026, 0, 2, 2, 4, 5) / 1000);
  assert.equal(node.atimeSeconds, Date.parse("0001-01-01T00:00:00Z") / 1000);
  assert.equal(node.content?.length, 64);
  assert.equal(node.subtree, null);
  assert.equal(node.linkTarget, "\xff");
});

test("parseNode() refuses what has another type or range, and says which field", () => {
  const id = "ab".repeat(32);
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['"name":5', /"name" of an entry is 5, a string needed/],
    ['"name":"\\\\q"', /unknown escape/],
    ['"type":"door"', /"type" of an entry is "door", file, dir/],
    ['"type":1', /"type"/],
    ['"mode":-1', /"mode" of an entry is -1, a whole number below 2\^32/],
    ['"mode":1.5', /"mode"/],
    ['"mode":1e3', /"mode"/],
    ['"mode":4294967296', /"mode"/],
    ['"mode":"1"', /"mode"/],
    ['"uid":4294967296', /"uid"/],
    ['"inode":18446744073709551616', /"inode" of an entry is 18446744073709551616, a whole number below 2\^64/],
    ['"size":99999999999999999999999', /"size"/],
    ['"mtime":0', /"mtime"/],
    ['"mtime":"2026-02-30T00:00:00Z"', /"mtime" of an entry is "2026-02-30T00:00:00Z", a time needed/],
    ['"content":{}', /"content"/],
    ['"content":"x"', /"content"/],
    [`"content":["${id}","${id.slice(1)}"]`, /"content"/],
    [`"content":["${id}0"]`, /"content"/],
    [`"content":[["${id}"]]`, /"content"/],
    [`"content":["${id.toUpperCase()}"]`, /"content"/],
    [`"subtree":"${id.slice(1)}"`, /"subtree"/],
    [`"subtree":"${id.slice(1)}\\n"`, /"subtree"/],
    ['"subtree":[]', /"subtree"/],
    ['"linktarget":[]', /"linktarget"/],
    ['"linktarget_raw":"/w="', /"linktarget_raw"/],
    ['"extended_attributes":{}', /"extended_attributes"/],
    ['"extended_attributes":[1]', /"extended_attributes"/],
    ['"extended_attributes":[{"name":"a","value":"*"}]', /"extended_attributes"/],
    ['"generic_attributes":[]', /"generic_attributes"/],
    ['"user":1', /"user"/],
    ['"error":{}', /"error"/],
  ];
  for (const [member, message] of wrong) {
    assert.throws(() => parseNode(Buffer.from(`{"name":"a",${member}}`)), { code: "TreeInvalid", kind: "corrupt", message }, member);
  }
  for (const text of [
    "",
    "[]",
    "null",
    "{",
    '{"name"',
    '{"name":"a"',
    '{"name":"a",}',
    '{"name":"a"}}',
    '{"name":"a"} ',
    '{,"name":"a"}',
    '{"name":"a" "type":"file"}',
    "{}",
  ]) {
    assert.throws(() => parseNode(Buffer.from(text)), { code: "TreeInvalid" }, text);
  }
});

test("names that lead out of the directory are refused by parseNode() and by scanTree()", () => {
  for (const name of ["", ".", "..", "a/b", "/", "../x", "a\\\\x00b", "\\\\x2f"]) {
    const node = `{"name":"${name}"}`;
    assert.throws(() => parseNode(Buffer.from(node)), { code: "TreeInvalid", message: /which is no file name/ }, name);
    assert.throws(() => scan(`{"nodes":[${node}]}`), { code: "TreeInvalid", message: /which is no file name/ }, name);
  }
});

test("encodeTree() writes what scanTree() finds again, node by node", () => {
  fc.assert(
    fc.property(fc.uniqueArray(anyNode, { selector: (node) => node.name, maxLength: 6 }), (unsorted) => {
      const nodes = unsorted.toSorted((a, b) => (a.name < b.name ? -1 : 1));
      const tree = encodeTree(nodes);
      assert.equal(tree.latin1Slice(0, 10), '{"nodes":[');
      assert.equal(tree.latin1Slice(tree.length - 3), "]}\n");
      const found: TreeNode[] = [];
      scanTree(tree, (name, start, end) => {
        const node = parseNode(tree, start, end);
        assert.equal(node.name, name);
        found.push(node);
      });
      assert.deepEqual(found, nodes);
      // and as another writer would lay it out
      const names: string[] = [];
      const parsed: unknown = JSON.parse(tree.toString());
      scanTree(Buffer.from(JSON.stringify(parsed, null, 3)), (name) => names.push(name));
      assert.deepEqual(
        names,
        nodes.map((node) => node.name),
      );
    }),
    { numRuns: 200 },
  );
});

test("scanTree() reads empty trees in each form, white space, and members beside the nodes", () => {
  assert.deepEqual(scan('{"nodes":[]}\n'), []);
  assert.deepEqual(scan('{"nodes":null}'), []);
  assert.deepEqual(scan(' { "v" : 2 , "nodes" : [ {"name":"a"} , { "x":1, "name" : "b" } ] , "z":{} } \r\n\t'), [
    'a={"name":"a"}',
    'b={ "x":1, "name" : "b" }',
  ]);
});

test("scanTree() sees a name again when it comes twice, as parseNode() does", () => {
  const node = '{"name":"a","x":{"name":"n"},"name":"b"}';
  assert.deepEqual(scan(`{"nodes":[${node}]}`), [`b=${node}`]);
  assert.equal(parseNode(Buffer.from(node)).name, "b");
});

test("scanTree() refuses what is no tree", () => {
  const deep = `${"[".repeat(100)}${"]".repeat(100)}`;
  const wrong = [
    "",
    "{}",
    "[]",
    "null",
    '{"nodes":{}}',
    '{"nodes":[]',
    '{"nodes":[',
    '{"nodes":[}',
    '{"nodes":[]}x',
    '{"nodes":[]}{}',
    '{"nodes":[],}',
    '{"nodes":[],"nodes":[]}',
    '{"nodes":[{"name":"a"},]}',
    '{"nodes":[{"name":"a"}{"name":"b"}]}',
    '{"nodes":[null]}',
    '{"nodes":[1]}',
    '{"nodes":[{"name":"a}]}',
    '{"nodes":[{"name":"a\n"}]}',
    '{"nodes":[{"name":"a\\x"}]}',
    '{"nodes":[{"name":"a","x":01}]}',
    '{"nodes":[{"name":"a","x":1.}]}',
    '{"nodes":[{"name":"a","x":-}]}',
    '{"nodes":[{"name":"a","x":1e}]}',
    '{"nodes":[{"name":"a","x":nul}]}',
    '{"nodes":[{"name":"a","x":"\\u12"}]}',
    `{"nodes":[{"name":"a","x":${deep}}]}`,
    '{"nodes":[{"type":"file"}]}',
    '{"nodes":[{"name":null}]}',
    '{"nodes":[{"name":1}]}',
    '{"nodes":[{}]}',
  ];
  for (const text of wrong) assert.throws(() => scan(text), { code: "TreeInvalid", kind: "corrupt" }, text);
});

test("scanTree() wants names strictly ascending by their bytes, or reports", () => {
  const tree = Buffer.from('{"nodes":[{"name":"b"},{"name":"b"},{"name":"a"},{"name":".."},{"name":"\\\\z"},{"name":"c"}]}');
  assert.throws(() => scanTree(tree, () => undefined), {
    code: "TreeInvalid",
    message: /found entry "b" twice, names in ascending order needed/,
  });
  const problems: string[] = [];
  const names: string[] = [];
  scanTree(tree, (name) => names.push(name), { onProblem: (problem) => problems.push(problem.message) });
  assert.deepEqual(names, ["b", "b", "a", "c"]);
  assert.equal(problems.length, 4);
  assert.match(problems[1] ?? "", /found entry "a" after "b"/);
  // U+FFFF sorts before U+10000 in UTF-8, after it in UTF-16
  assert.equal(scan('{"nodes":[{"name":"\uffee"},{"name":"\u{1f600}"}]}').length, 2);
});

test("TreeWriter refuses a name that is not above the last one, and can be used again", () => {
  const writer = new TreeWriter();
  writer.add({ ...bareNode, name: "b" });
  assert.throws(() => writer.add({ ...bareNode, name: "b" }), { code: "Bug" });
  assert.throws(() => writer.add({ ...bareNode, name: "a" }), { code: "Bug" });
  assert.throws(() => writer.add({ ...bareNode, name: "" }), { code: "Bug" });
  writer.addRaw("c", encodeNode({ ...bareNode, name: "c" }));
  assert.equal(scan(writer.finish()).length, 2);
  assert.equal(writer.finish().toString(), '{"nodes":[]}\n');
  writer.add({ ...bareNode, name: "a" });
  assert.deepEqual(
    scan(writer.finish()).map((node) => node.slice(0, 2)),
    ["a="],
  );
});

test("a directory of many entries with large contents is scanned whole", () => {
  const nodes = Array.from({ length: 3000 }, (_, i) => ({
    ...bareNode,
    name: `f${String(i).padStart(5, "0")}`,
    content: new Uint8Array(randomBytes(32 * (i % 40))),
  }));
  const tree = encodeTree(nodes);
  let at = 0;
  scanTree(tree, (_name, start, end) => assert.deepEqual(parseNode(tree, start, end), nodes[at++]));
  assert.equal(at, 3000);
});
