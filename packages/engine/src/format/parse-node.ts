/**
 * Reading nodes; what they are and how they are written is in node.ts.
 *
 * Unknown fields are ignored, and so lost when the node is written again; restic does the same.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, fromBytes, fromUtf8, toUtf8OrEscaped } from "./byte-string.ts";
import { unquoteGo } from "./go-quote.ts";
import { ID_BYTES, ID_CHARS, readHex } from "./ids.ts";
import {
  BACKSLASH,
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  OPEN_ARRAY,
  OPEN_OBJECT,
  QUOTE,
  readInteger,
  readText,
  readUint64,
  skipColon,
  skipSpace,
  skipString,
  skipValue,
  sliceLatin1,
  sliceUtf8,
} from "./json-scan.ts";
import { isNodeType, type NodeType } from "./mode.ts";
import { type ExtendedAttribute, type TreeNode, type Uint64, ZERO_TIME_SECONDS } from "./node.ts";
import { lastTime, readTime } from "./time.ts";

// In the order in which they are written, so that looking from the last hit on mostly hits at once.
const FIELDS = [
  "name",
  "type",
  "mode",
  "mtime",
  "atime",
  "ctime",
  "uid",
  "gid",
  "user",
  "group",
  "inode",
  "device_id",
  "size",
  "links",
  "linktarget",
  "linktarget_raw",
  "extended_attributes",
  "generic_attributes",
  "device",
  "content",
  "subtree",
  "error",
] as const;
const FIELD_BYTES: readonly Uint8Array[] = FIELDS.map((field) => Buffer.from(field, "latin1"));

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * Reads the node that fills the bytes from `start` to `end`.
 *
 * Fields may come in any order; of one that comes twice the last counts; `null` stands for an absent one. The node is a plain object
 * and holds no view of `bytes`. An empty object fails as any other without a name does.
 *
 * @throws TreeInvalid when it is no JSON object, a field has another type or range, or the name is no name
 */
export function parseNode(bytes: Uint8Array, start: number, end: number): TreeNode {
  const node = emptyNode();
  let at = skipSpace(bytes, start, end);
  if (at >= end || bytes[at] !== OPEN_OBJECT) throw notJson(bytes, start, at, end);
  at = skipSpace(bytes, at + 1, end);
  let next = 0;
  let rawTarget: ByteString | undefined;
  for (;;) {
    if (at >= end || bytes[at] !== QUOTE) throw notJson(bytes, start, at, end);
    const keyEnd = skipString(bytes, at + 1, end);
    const valueAt = keyEnd < 0 ? -1 : skipColon(bytes, keyEnd, end);
    const valueEnd = valueAt < 0 ? -1 : skipValue(bytes, valueAt, end, 1);
    if (valueEnd < 0) throw notJson(bytes, start, at, end);
    const field = findField(bytes, at + 1, keyEnd - 1, next);
    if (field >= 0) {
      next = field + 1;
      // only null begins with an n
      if (bytes[valueAt] !== 0x6e) {
        if (FIELDS[field] === "linktarget_raw") rawTarget = fromBytes(readBase64(bytes, valueAt, valueEnd, "linktarget_raw"));
        else readField(node, field, bytes, valueAt, valueEnd);
      }
    }
    at = skipSpace(bytes, valueEnd, end);
    if (at < end && bytes[at] === CLOSE_OBJECT) break;
    if (at >= end || bytes[at] !== COMMA) throw notJson(bytes, start, at, end);
    at = skipSpace(bytes, at + 1, end);
  }
  if (skipSpace(bytes, at + 1, end) !== end) throw notJson(bytes, start, at + 1, end);
  if (rawTarget !== undefined) node.linkTarget = rawTarget;
  checkNodeName(node.name);
  return node;
}

function emptyNode(): Writable<TreeNode> {
  return {
    name: "",
    type: "irregular",
    mode: 0,
    mtimeSeconds: ZERO_TIME_SECONDS,
    mtimeNanos: 0,
    atimeSeconds: ZERO_TIME_SECONDS,
    atimeNanos: 0,
    ctimeSeconds: ZERO_TIME_SECONDS,
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
}

function findField(bytes: Uint8Array, start: number, end: number, from: number): number {
  for (let i = 0; i < FIELDS.length; i++) {
    const field = (from + i) % FIELDS.length;
    if (isKey(bytes, start, end, FIELD_BYTES[field])) return field;
  }
  return -1;
}

function isKey(bytes: Uint8Array, start: number, end: number, key: Uint8Array | undefined): boolean {
  if (key === undefined || key.length !== end - start) return false;
  for (let i = 0; i < key.length; i++) if (bytes[start + i] !== key[i]) return false;
  return true;
}

function readField(node: Writable<TreeNode>, field: number, bytes: Uint8Array, start: number, end: number): void {
  switch (FIELDS[field]) {
    case "name":
      node.name = readName(bytes, start, end);
      break;
    case "type":
      node.type = readType(bytes, start, end);
      break;
    case "mode":
      node.mode = readUint32Field(bytes, start, end, "mode");
      break;
    case "mtime":
      readTimeField(bytes, start, end, "mtime");
      node.mtimeSeconds = lastTime.seconds;
      node.mtimeNanos = lastTime.nanos;
      break;
    case "atime":
      readTimeField(bytes, start, end, "atime");
      node.atimeSeconds = lastTime.seconds;
      node.atimeNanos = lastTime.nanos;
      break;
    case "ctime":
      readTimeField(bytes, start, end, "ctime");
      node.ctimeSeconds = lastTime.seconds;
      node.ctimeNanos = lastTime.nanos;
      break;
    case "uid":
      node.uid = readUint32Field(bytes, start, end, "uid");
      break;
    case "gid":
      node.gid = readUint32Field(bytes, start, end, "gid");
      break;
    case "user":
      node.user = readString(bytes, start, end, "user");
      break;
    case "group":
      node.group = readString(bytes, start, end, "group");
      break;
    case "inode":
      node.inode = readUint64Field(bytes, start, end, "inode");
      break;
    case "device_id":
      node.deviceId = readUint64Field(bytes, start, end, "device_id");
      break;
    case "size":
      node.size = readUint64Field(bytes, start, end, "size");
      break;
    case "links":
      node.links = readUint64Field(bytes, start, end, "links");
      break;
    case "linktarget":
      node.linkTarget = fromUtf8(readString(bytes, start, end, "linktarget"));
      break;
    case "extended_attributes":
      node.extendedAttributes = readExtendedAttributes(bytes, start, end);
      break;
    case "generic_attributes":
      if (bytes[start] !== OPEN_OBJECT) throw wrongValue(bytes, start, end, "generic_attributes", "an object");
      node.genericAttributes = sliceUtf8(bytes, start, end);
      break;
    case "device":
      node.device = readUint64Field(bytes, start, end, "device");
      break;
    case "content":
      node.content = readContent(bytes, start, end);
      break;
    case "subtree":
      node.subtree = readSubtree(bytes, start, end);
      break;
    case "error":
      node.error = readString(bytes, start, end, "error");
      break;
  }
}

/**
 * The raw bytes of a name.
 *
 * @param start offset of its opening quote; @param end behind its closing one
 * @throws TreeInvalid
 */
export function readName(bytes: Uint8Array, start: number, end: number): ByteString {
  if (bytes[start] !== QUOTE) throw wrongValue(bytes, start, end, "name", "a string");
  for (let at = start + 1; at < end - 1; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === BACKSLASH || byte >= 0x7f) return unquoteGo(fromUtf8(readText(bytes, start, end)));
  }
  return sliceLatin1(bytes, start + 1, end - 1);
}

/** Refuses what names nothing inside its directory. @throws TreeInvalid */
export function checkNodeName(name: ByteString): void {
  if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
    throw new Failure("TreeInvalid", `Cannot read tree: found an entry named "${toUtf8OrEscaped(name.slice(0, 300))}", which is no file name`);
  }
}

function readString(bytes: Uint8Array, start: number, end: number, field: string): string {
  if (bytes[start] !== QUOTE) throw wrongValue(bytes, start, end, field, "a string");
  return readText(bytes, start, end);
}

function readType(bytes: Uint8Array, start: number, end: number): NodeType {
  const type = readString(bytes, start, end, "type");
  if (!isNodeType(type)) throw wrongValue(bytes, start, end, "type", "file, dir, symlink, dev, chardev, fifo, socket or irregular");
  return type;
}

function readUint32Field(bytes: Uint8Array, start: number, end: number, field: string): number {
  const value = readInteger(bytes, start, end);
  if (value < 0 || value > 0xffffffff) throw wrongValue(bytes, start, end, field, "a whole number below 2^32");
  return value;
}

function readUint64Field(bytes: Uint8Array, start: number, end: number, field: string): Uint64 {
  const value = readUint64(bytes, start, end);
  if (value < 0) throw wrongValue(bytes, start, end, field, "a whole number below 2^64");
  return value;
}

function readTimeField(bytes: Uint8Array, start: number, end: number, field: string): void {
  if (bytes[start] !== QUOTE || !readTime(bytes, start + 1, end - 1)) throw wrongValue(bytes, start, end, field, "a time");
}

function readSubtree(bytes: Uint8Array, start: number, end: number): Uint8Array {
  const id = new Uint8Array(ID_BYTES);
  if (bytes[start] !== QUOTE || end - start !== ID_CHARS + 2 || !readHex(bytes, start + 1, id)) {
    throw wrongValue(bytes, start, end, "subtree", "64 hex characters");
  }
  return id;
}

function readContent(bytes: Uint8Array, start: number, end: number): Uint8Array {
  if (bytes[start] !== OPEN_ARRAY) throw wrongValue(bytes, start, end, "content", "an array of ids");
  // each id takes at least its characters, two quotes and a comma or bracket, so this cannot be more than half of what is there
  const ids = new Uint8Array(Math.floor((end - start) / (ID_CHARS + 3)) * ID_BYTES);
  let count = 0;
  let at = skipSpace(bytes, start + 1, end);
  while (bytes[at] !== CLOSE_ARRAY) {
    if (bytes[at] !== QUOTE || bytes[at + ID_CHARS + 1] !== QUOTE || !readHex(bytes, at + 1, ids, count * ID_BYTES)) {
      throw wrongValue(bytes, at, end, "content", "an array of ids");
    }
    count++;
    // that commas are where they belong was seen by skipValue
    at = skipSpace(bytes, at + ID_CHARS + 2, end);
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1, end);
  }
  return count * ID_BYTES === ids.length ? ids : ids.slice(0, count * ID_BYTES);
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && BASE64.test(text);
}

function readBase64(bytes: Uint8Array, start: number, end: number, field: string): Uint8Array {
  const text = readString(bytes, start, end, field);
  if (!isBase64(text)) throw wrongValue(bytes, start, end, field, "base64");
  return new Uint8Array(Buffer.from(text, "base64"));
}

function readExtendedAttributes(bytes: Uint8Array, start: number, end: number): readonly ExtendedAttribute[] {
  // rare and small, and skipValue has seen that this is JSON
  const list: unknown = JSON.parse(sliceUtf8(bytes, start, end));
  if (!Array.isArray(list)) throw wrongValue(bytes, start, end, "extended_attributes", "an array");
  return list.map((item: unknown): ExtendedAttribute => {
    if (typeof item === "object" && item !== null && "name" in item && typeof item.name === "string") {
      const value = "value" in item ? item.value : null;
      if (value === null) return { name: item.name, value: new Uint8Array(0) };
      if (typeof value === "string" && isBase64(value)) return { name: item.name, value: new Uint8Array(Buffer.from(value, "base64")) };
    }
    throw wrongValue(bytes, start, end, "extended_attributes", "names with values in base64");
  });
}

function wrongValue(bytes: Uint8Array, start: number, end: number, field: string, needed: string): Failure {
  const found = sliceUtf8(bytes, start, Math.min(end, start + 80));
  return new Failure("TreeInvalid", `Cannot read tree: field "${field}" of an entry is ${toUtf8OrEscaped(fromUtf8(found))}, ${needed} needed`);
}

function notJson(bytes: Uint8Array, start: number, at: number, end: number): Failure {
  const found = at < end ? `"${toUtf8OrEscaped(fromUtf8(sliceUtf8(bytes, at, Math.min(end, at + 20))))}"` : "the end";
  return new Failure("TreeInvalid", `Cannot read tree: entry at byte ${start} is no JSON object: found ${found} at byte ${at}`);
}
