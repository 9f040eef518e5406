/**
 * What a tree refers to: the blobs of its files and the trees of its directories, found without parsing anything else of its nodes.
 *
 * Check and prune walk every tree of a repository, so this is their inner loop.
 */
import { Failure } from "@granary/base/errors";
import type { ByteString } from "../format/byte-string.ts";
import { ID_BYTES, ID_CHARS, readHex } from "../format/ids.ts";
import {
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  isTokenAt,
  OPEN_ARRAY,
  QUOTE,
  skipColon,
  skipKey,
  skipSpace,
  skipValue,
} from "../format/json-scan.ts";
import { scanTree } from "../format/tree.ts";

/** Told what a tree refers to, in its order. */
export interface ReferenceVisitor {
  /** An entry begins; what follows is about it. @param name empty when the entry has no possible name; it is then passed over */
  entry(name: ByteString): void;
  /** A piece of a file. @param id 32 bytes, valid during the call only */
  data(id: Uint8Array): void;
  /** A directory. @param id 32 bytes, valid during the call only */
  tree(id: Uint8Array): void;
  /** The entry's name, its place, or what it should refer to is wrong. */
  problem(problem: Failure): void;
}

const token = (text: string): Uint8Array => Buffer.from(`"${text}"`, "latin1");
const TYPE = token("type");
const CONTENT = token("content");
const SUBTREE = token("subtree");
const FILE = token("file");
const DIR = token("dir");
const OTHER_TYPES: readonly Uint8Array[] = ["symlink", "dev", "chardev", "fifo", "socket", "irregular"].map(token);

const typeFile = 1;
const typeDir = 2;
const typeOther = 3;

/**
 * Finds the references of a tree.
 *
 * What an entry's type does not call for is given too: prune must not remove what anything names.
 *
 * @throws TreeInvalid when it is no JSON, or not of a tree's shape; references before the fault have been visited
 */
export function scanReferences(bytes: Uint8Array, visitor: ReferenceVisitor): void {
  let pending: Failure | undefined; // told of before the entry is visited, or instead
  let last: ByteString = "";
  const begin = (name: ByteString): void => {
    visitor.entry(name);
    if (pending !== undefined) visitor.problem(pending);
    pending = undefined;
  };
  const visit = (name: ByteString, start: number): void => {
    // When this entry is in order, what is pending is about one before it that is not visited.
    if (name > last) {
      last = name;
      if (pending !== undefined) begin("");
    }
    begin(name);
    scanNode(bytes, start, visitor);
  };
  scanTree(bytes, visit, {
    onProblem: (problem) => {
      if (pending !== undefined) begin("");
      pending = problem;
    },
  });
  if (pending !== undefined) begin("");
}

const id = new Uint8Array(ID_BYTES);

// scanTree has passed the node's JSON, so nothing here can fail.
function scanNode(bytes: Uint8Array, start: number, visitor: ReferenceVisitor): void {
  let type = 0;
  let hasContent = false;
  let hasSubtree = false;
  for (let at = skipSpace(bytes, start + 1); bytes[at] === QUOTE; ) {
    const keyEnd = skipKey(bytes, at);
    const valueAt = skipColon(bytes, keyEnd);
    const valueEnd = skipValue(bytes, valueAt, 2);
    const keyChars = keyEnd - at;
    if (keyChars === TYPE.length && isTokenAt(bytes, at, TYPE)) type = readType(bytes, valueAt);
    else if (keyChars === CONTENT.length && isTokenAt(bytes, at, CONTENT)) {
      hasContent = bytes[valueAt] === OPEN_ARRAY;
      if (hasContent) scanContent(bytes, valueAt, visitor);
    } else if (keyChars === SUBTREE.length && isTokenAt(bytes, at, SUBTREE)) {
      hasSubtree = bytes[valueAt] === QUOTE && valueEnd - valueAt === ID_CHARS + 2 && readHex(bytes, valueAt + 1, id);
      if (hasSubtree) visitor.tree(id);
    }
    at = skipSpace(bytes, valueEnd);
    if (bytes[at] === CLOSE_OBJECT) break;
    at = skipSpace(bytes, at + 1);
  }
  if (type === 0) visitor.problem(invalid("has no type that is known"));
  else if (type === typeFile && !hasContent) visitor.problem(invalid("is a file without a list of its content"));
  else if (type === typeDir && !hasSubtree) visitor.problem(invalid("is a directory without a tree"));
}

function readType(bytes: Uint8Array, at: number): number {
  if (isTokenAt(bytes, at, FILE)) return typeFile;
  if (isTokenAt(bytes, at, DIR)) return typeDir;
  return OTHER_TYPES.some((type) => isTokenAt(bytes, at, type)) ? typeOther : 0;
}

function scanContent(bytes: Uint8Array, start: number, visitor: ReferenceVisitor): void {
  let at = skipSpace(bytes, start + 1);
  while (bytes[at] !== CLOSE_ARRAY) {
    if (bytes[at] === QUOTE && bytes[at + ID_CHARS + 1] === QUOTE && readHex(bytes, at + 1, id)) {
      visitor.data(id);
      at += ID_CHARS + 2;
    } else {
      visitor.problem(invalid("has content that is no list of ids"));
      at = skipValue(bytes, at, 3);
    }
    at = skipSpace(bytes, at);
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1);
  }
}

function invalid(found: string): Failure {
  return new Failure("TreeInvalid", `Cannot read tree: an entry ${found}`);
}
