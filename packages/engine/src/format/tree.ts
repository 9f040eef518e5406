/**
 * Trees: a directory as one blob, `{"nodes":[` + nodes joined by commas + `]}` + line feed, in strictly ascending order of the raw
 * bytes of their names.
 *
 * Reading is lazy: {@link scanTree} checks the structure and finds each node's bytes and name; what is wanted is then parsed by
 * `parseNode`. Writing appends nodes, new or copied from another tree, and refuses any that is out of order.
 */
import { Failure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, fromUtf8, sliceUtf8, toUtf8OrEscaped } from "./byte-string.ts";
import { ByteSink } from "./byte-sink.ts";
import {
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  isTokenAt,
  NULL_START,
  OPEN_ARRAY,
  OPEN_OBJECT,
  skipColon,
  skipKey,
  skipSpace,
  skipToken,
  skipValue,
} from "./json-scan.ts";
import { type TreeNode, writeNode } from "./node.ts";
import { checkNodeName, readName } from "./parse-node.ts";

/** How {@link scanTree} behaves. */
export interface ScanTreeOptions {
  /**
   * Told about entries out of order, duplicates, and names that are none, instead of a throw. An entry out of order or twice is still
   * visited, one with an impossible name is not. Broken JSON is thrown all the same.
   */
  readonly onProblem?: (problem: Failure) => void;
}

/**
 * Walks over the nodes of a tree without parsing them.
 *
 * White space, other orders of fields, and unknown members of the outer object are accepted; `"nodes":null` is an empty tree.
 *
 * @param visit gets the name, and where the node's JSON begins and ends in `bytes`
 * @throws TreeInvalid, unless `onProblem` takes it; nodes before the fault have been visited
 */
export function scanTree(
  bytes: Uint8Array,
  visit: (name: ByteString, start: number, end: number) => void,
  options: ScanTreeOptions = {},
): void {
  let at = skipSpace(bytes, 0);
  if (bytes[at] !== OPEN_OBJECT) throw notTree(bytes, at);
  at = skipSpace(bytes, at + 1);
  let found = false;
  for (;;) {
    const keyEnd = skipKey(bytes, at);
    const valueAt = keyEnd < 0 ? -1 : skipColon(bytes, keyEnd);
    if (valueAt < 0) throw notTree(bytes, at);
    if (isTokenAt(bytes, at, NODES)) {
      if (found) throw notTree(bytes, at);
      found = true;
      at = bytes[valueAt] === OPEN_ARRAY ? scanNodes(bytes, valueAt, { visit, ...options }) : skipToken(bytes, valueAt, NULL);
    } else at = skipValue(bytes, valueAt, 1);
    if (at < 0) throw notTree(bytes, valueAt);
    at = skipSpace(bytes, at);
    if (bytes[at] === CLOSE_OBJECT) break;
    if (bytes[at] !== COMMA) throw notTree(bytes, at);
    at = skipSpace(bytes, at + 1);
  }
  at = skipSpace(bytes, at + 1);
  if (!found || at !== bytes.length) throw notTree(bytes, at);
}

const NODES = Buffer.from('"nodes"', "latin1");
const NAME = Buffer.from('"name"', "latin1");
const NULL = Buffer.from("null", "latin1");

interface Scan extends ScanTreeOptions {
  readonly visit: (name: ByteString, start: number, end: number) => void;
}

function scanNodes(bytes: Uint8Array, start: number, scan: Scan): number {
  let at = skipSpace(bytes, start + 1);
  if (bytes[at] === CLOSE_ARRAY) return at + 1;
  let last: ByteString = "";
  for (;;) {
    const nodeAt = at;
    at = skipNode(bytes, nodeAt);
    if (at < 0) throw notTree(bytes, nodeAt);
    const name = findName(bytes, scan);
    if (name !== undefined) {
      if (name > last) last = name;
      else report(outOfOrder(name, last), scan);
      scan.visit(name, nodeAt, at);
    }
    at = skipSpace(bytes, at);
    if (bytes[at] === CLOSE_ARRAY) return at + 1;
    if (bytes[at] !== COMMA) throw notTree(bytes, at);
    at = skipSpace(bytes, at + 1);
  }
}

// The name of the node that skipNode() has just passed, or undefined when it has none and that was reported.
function findName(bytes: Uint8Array, options: ScanTreeOptions): ByteString | undefined {
  try {
    const name = span.nameAt < 0 ? "" : readName(bytes, span.nameAt, span.nameEnd);
    checkNodeName(name);
    return name;
  } catch (error) {
    report(toFailure(error), options);
    return undefined;
  }
}

function report(problem: Failure, options: ScanTreeOptions): void {
  if (options.onProblem === undefined) throw problem;
  options.onProblem(problem);
}

function outOfOrder(name: ByteString, last: ByteString): Failure {
  const place = name === last ? "twice" : `after "${toUtf8OrEscaped(last)}"`;
  return new Failure("TreeInvalid", `Cannot read tree: found entry "${toUtf8OrEscaped(name)}" ${place}, names in ascending order needed`);
}

function notTree(bytes: Uint8Array, at: number): Failure {
  const end = Math.min(bytes.length, at + 20);
  const found = at < end ? `"${toUtf8OrEscaped(fromUtf8(sliceUtf8(bytes, at, end)))}"` : "the end";
  return new Failure("TreeInvalid", `Cannot read tree: found ${found} at byte ${at} of ${bytes.length}, {"nodes":[…]} needed`, {
    details: { offsetBytes: at, sizeBytes: bytes.length },
  });
}

// Where the value of the last "name" of the node that skipNode() passed lies, with its quotes; -1 when there was none.
const span = { nameAt: -1, nameEnd: -1 };

function skipNode(bytes: Uint8Array, start: number): number {
  span.nameAt = -1;
  if (bytes[start] !== OPEN_OBJECT) return -1;
  let at = skipSpace(bytes, start + 1);
  if (bytes[at] === CLOSE_OBJECT) return at + 1;
  for (;;) {
    const keyAt = at;
    at = skipKey(bytes, at);
    if (at < 0) return -1;
    at = skipColon(bytes, at);
    if (at < 0) return -1;
    const valueAt = at;
    at = skipValue(bytes, at, 3);
    if (at < 0) return -1;
    if (bytes[keyAt + 1] === 0x6e && isTokenAt(bytes, keyAt, NAME) && bytes[valueAt] !== NULL_START) {
      span.nameAt = valueAt;
      span.nameEnd = at;
    }
    at = skipSpace(bytes, at);
    if (bytes[at] === CLOSE_OBJECT) return at + 1;
    if (bytes[at] !== COMMA) return -1;
    at = skipSpace(bytes, at + 1);
  }
}

const TREE_HEAD = '{"nodes":[';
const TREE_TAIL = "]}\n";

/** Writes trees, one after the other, into memory that is used again. */
export class TreeWriter {
  readonly #sink = new ByteSink(64 * 1024);
  #last: ByteString = "";

  constructor() {
    this.#sink.writeLatin1(TREE_HEAD);
  }

  /** Bytes written so far. */
  get sizeBytes(): number {
    return this.#sink.length;
  }

  /** Appends a node. @throws Bug when its name is not above the one before */
  add(node: TreeNode): void {
    writeNode(this.begin(node.name), node);
  }

  /** Appends the JSON of a node as it is. @throws Bug when its name is not above the one before */
  addRaw(name: ByteString, node: Uint8Array): void {
    this.begin(name).writeBytes(node);
  }

  /**
   * Begins a node that the caller writes himself, whole, before the next call.
   *
   * @throws Bug when its name is not above the one before
   */
  begin(name: ByteString): ByteSink {
    if (name <= this.#last) {
      throw new Failure("Bug", `Cannot write tree: entry "${toUtf8OrEscaped(name)}" comes after "${toUtf8OrEscaped(this.#last)}"`);
    }
    if (this.#last !== "") this.#sink.writeByte(COMMA);
    this.#last = name;
    return this.#sink;
  }

  /** The tree's bytes, which the caller owns. The next node begins another tree. */
  finish(): Buffer {
    this.#sink.writeLatin1(TREE_TAIL);
    const bytes = this.#sink.copy();
    this.#sink.reset();
    this.#sink.writeLatin1(TREE_HEAD);
    this.#last = "";
    return bytes;
  }
}

/** The tree of these nodes, which must be in ascending order of their names. @throws Bug when they are not */
export function encodeTree(nodes: Iterable<TreeNode>): Buffer {
  const writer = new TreeWriter();
  for (const node of nodes) writer.add(node);
  return writer.finish();
}
