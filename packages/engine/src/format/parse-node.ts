/**
 * Reading nodes; what they are and how they are written is in node.ts.
 *
 * Unknown fields are ignored, and so lost when the node is written again; restic does the same.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, fromBytes, fromUtf8, sliceLatin1, sliceUtf8, toUtf8OrEscaped } from "./byte-string.ts";
import { unquoteGo } from "./go-quote.ts";
import { ID_BYTES, ID_CHARS, readHex } from "./ids.ts";
import {
  BACKSLASH,
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  isTokenAt,
  NULL_START,
  OPEN_ARRAY,
  OPEN_OBJECT,
  QUOTE,
  readInteger,
  readText,
  readUint64,
  skipColon,
  skipKey,
  skipSpace,
  skipValue,
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
const FIELD_TOKENS: readonly Uint8Array[] = FIELDS.map((field) => Buffer.from(`"${field}"`, "latin1"));

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** A field's value: valid JSON, but for numbers that may be too large, from `start` to `end`. One object serves all fields of a node. */
interface Value {
  readonly bytes: Uint8Array;
  field: string;
  start: number;
  end: number;
}

/**
 * Reads the node that fills the bytes from `start` to `end`.
 *
 * Fields may come in any order; of one that comes twice the last counts; `null` stands for an absent one. The node is a plain object
 * and holds no view of `bytes`.
 *
 * @throws TreeInvalid when it is no JSON object, a field has another type or range, or the name is no name
 */
export function parseNode(bytes: Uint8Array, start = 0, end: number = bytes.length): TreeNode {
  const node = emptyNode();
  const value: Value = { bytes, field: "", start: 0, end: 0 };
  if (bytes[start] !== OPEN_OBJECT) throw notNode(bytes, start);
  let at = skipSpace(bytes, start + 1);
  let next = 0;
  let rawTarget: ByteString | undefined;
  for (;;) {
    const keyEnd = skipKey(bytes, at);
    value.start = keyEnd < 0 ? -1 : skipColon(bytes, keyEnd);
    value.end = value.start < 0 ? -1 : skipValue(bytes, value.start, 1);
    if (value.end < 0) throw notNode(bytes, at);
    const field = findField(bytes, at, next);
    if (field >= 0 && bytes[value.start] !== NULL_START) {
      next = field + 1;
      value.field = FIELDS[field] ?? "";
      // it wins over "linktarget", wherever it stands
      if (value.field === "linktarget_raw") rawTarget = fromBytes(readBase64(value));
      else readField(node, value);
    }
    at = skipSpace(bytes, value.end);
    if (bytes[at] === CLOSE_OBJECT) break;
    if (bytes[at] !== COMMA) throw notNode(bytes, at);
    at = skipSpace(bytes, at + 1);
  }
  if (at + 1 !== end) throw notNode(bytes, at + 1);
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
    extendedAttributes: NO_ATTRIBUTES,
    genericAttributes: "",
    device: 0,
    content: null,
    subtree: null,
    error: "",
  };
}

const NO_ATTRIBUTES: readonly ExtendedAttribute[] = [];

function findField(bytes: Uint8Array, at: number, from: number): number {
  for (let i = from; i < FIELD_TOKENS.length; i++) if (isFieldAt(bytes, at, i)) return i;
  for (let i = 0; i < from; i++) if (isFieldAt(bytes, at, i)) return i;
  return -1;
}

function isFieldAt(bytes: Uint8Array, at: number, field: number): boolean {
  const token = FIELD_TOKENS[field];
  return token !== undefined && isTokenAt(bytes, at, token);
}

function readField(node: Writable<TreeNode>, value: Value): void {
  switch (value.field) {
    case "name":
      node.name = readName(value.bytes, value.start, value.end);
      break;
    case "type":
      node.type = readType(value);
      break;
    case "mode":
      node.mode = readUint32Field(value);
      break;
    case "mtime":
      readTimeField(value);
      node.mtimeSeconds = lastTime.seconds;
      node.mtimeNanos = lastTime.nanos;
      break;
    case "atime":
      readTimeField(value);
      node.atimeSeconds = lastTime.seconds;
      node.atimeNanos = lastTime.nanos;
      break;
    case "ctime":
      readTimeField(value);
      node.ctimeSeconds = lastTime.seconds;
      node.ctimeNanos = lastTime.nanos;
      break;
    case "uid":
      node.uid = readUint32Field(value);
      break;
    case "gid":
      node.gid = readUint32Field(value);
      break;
    case "user":
      lastUser = readRepeated(value, lastUser);
      node.user = lastUser;
      break;
    case "group":
      lastGroup = readRepeated(value, lastGroup);
      node.group = lastGroup;
      break;
    case "inode":
      node.inode = readUint64Field(value);
      break;
    case "device_id":
      node.deviceId = readUint64Field(value);
      break;
    case "size":
      node.size = readUint64Field(value);
      break;
    case "links":
      node.links = readUint64Field(value);
      break;
    case "linktarget":
      node.linkTarget = fromUtf8(readString(value));
      break;
    case "extended_attributes":
      node.extendedAttributes = readExtendedAttributes(value);
      break;
    case "generic_attributes":
      node.genericAttributes = readObject(value);
      break;
    case "device":
      node.device = readUint64Field(value);
      break;
    case "content":
      node.content = readContent(value);
      break;
    case "subtree":
      node.subtree = readSubtree(value);
      break;
    case "error":
      node.error = readString(value);
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
  if (bytes[start] !== QUOTE) throw wrongValue({ bytes, field: "name", start, end }, "a string");
  for (let at = start + 1; at < end - 1; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === BACKSLASH || byte >= 0x7f) return unquoteGo(fromUtf8(readText(bytes, start, end)));
  }
  return sliceLatin1(bytes, start + 1, end - 1);
}

/** Refuses what names nothing inside its directory. @throws TreeInvalid */
export function checkNodeName(name: ByteString): void {
  if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
    throw new Failure(
      "TreeInvalid",
      `Cannot read tree: found an entry named "${toUtf8OrEscaped(name.slice(0, 300))}", which is no file name`,
    );
  }
}

function readString(value: Value): string {
  if (value.bytes[value.start] !== QUOTE) throw wrongValue(value, "a string");
  return readText(value.bytes, value.start, value.end);
}

// Users and groups are few, so most nodes say the same as the one before; comparing is quicker than making another string.
let lastUser = "";
let lastGroup = "";

function readRepeated(value: Value, last: string): string {
  const { bytes, start } = value;
  if (last.length !== value.end - start - 2 || bytes[start] !== QUOTE) return readString(value);
  for (let i = 0; i < last.length; i++) {
    const byte = bytes[start + 1 + i] ?? 0;
    if (byte !== last.charCodeAt(i) || byte >= 0x80 || byte === BACKSLASH) return readString(value);
  }
  return last;
}

const FILE = Buffer.from('"file"', "latin1");

function readType(value: Value): NodeType {
  if (isTokenAt(value.bytes, value.start, FILE)) return "file";
  const type = readString(value);
  if (!isNodeType(type)) throw wrongValue(value, "file, dir, symlink, dev, chardev, fifo, socket or irregular");
  return type;
}

function readUint32Field(value: Value): number {
  const number = readInteger(value.bytes, value.start, value.end);
  if (number < 0 || number > 0xffffffff) throw wrongValue(value, "a whole number below 2^32");
  return number;
}

function readUint64Field(value: Value): Uint64 {
  const number = readUint64(value.bytes, value.start, value.end);
  if (number < 0) throw wrongValue(value, "a whole number below 2^64");
  return number;
}

function readTimeField(value: Value): void {
  const { bytes, start, end } = value;
  if (bytes[start] !== QUOTE || !readTime(bytes, start + 1, end - 1)) throw wrongValue(value, "a time");
}

function readObject(value: Value): string {
  if (value.bytes[value.start] !== OPEN_OBJECT) throw wrongValue(value, "an object");
  return sliceUtf8(value.bytes, value.start, value.end);
}

function readSubtree(value: Value): Uint8Array {
  const { bytes, start, end } = value;
  const id = new Uint8Array(ID_BYTES);
  if (bytes[start] !== QUOTE || end - start !== ID_CHARS + 2 || !readHex(bytes, start + 1, id)) {
    throw wrongValue(value, "64 lower-case hex characters");
  }
  return id;
}

/**
 * Reads the content of a node alone, when its head has been recognized.
 *
 * @param at behind the head, that is behind `"content":`
 * @returns ids as in {@link TreeNode}; the caller owns them
 * @throws TreeInvalid
 */
export function parseNodeContent(bytes: Uint8Array, at: number): Uint8Array | null {
  const end = skipValue(bytes, at, 1);
  if (end < 0) throw notNode(bytes, at);
  return bytes[at] === NULL_START ? null : readContent({ bytes, field: "content", start: at, end });
}

function readContent(value: Value): Uint8Array {
  const { bytes, start, end } = value;
  if (bytes[start] !== OPEN_ARRAY) throw wrongValue(value, "an array of ids");
  // an id takes its characters, two quotes, and a comma or the closing bracket, so this is room for all, and less than what was read
  const ids = new Uint8Array(Math.floor((end - start) / (ID_CHARS + 3)) * ID_BYTES);
  let written = 0;
  let at = skipSpace(bytes, start + 1);
  while (bytes[at] !== CLOSE_ARRAY) {
    if (bytes[at] !== QUOTE || bytes[at + ID_CHARS + 1] !== QUOTE || !readHex(bytes, at + 1, ids, written)) {
      throw wrongValue({ ...value, start: at }, "an array of ids");
    }
    written += ID_BYTES;
    // that commas are where they belong was seen by skipValue
    at = skipSpace(bytes, at + ID_CHARS + 2);
    if (bytes[at] === COMMA) at = skipSpace(bytes, at + 1);
  }
  return written === ids.length ? ids : ids.slice(0, written);
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && BASE64.test(text);
}

function readBase64(value: Value): Uint8Array {
  const text = readString(value);
  if (!isBase64(text)) throw wrongValue(value, "base64");
  return new Uint8Array(Buffer.from(text, "base64"));
}

function readExtendedAttributes(value: Value): readonly ExtendedAttribute[] {
  // rare and small, and skipValue has seen that this is JSON
  const list: unknown = JSON.parse(sliceUtf8(value.bytes, value.start, value.end));
  if (!Array.isArray(list)) throw wrongValue(value, "an array");
  return list.map((item: unknown): ExtendedAttribute => {
    const attribute = findAttribute(item);
    if (attribute === undefined) throw wrongValue(value, "names with values in base64");
    return attribute;
  });
}

function findAttribute(item: unknown): ExtendedAttribute | undefined {
  if (typeof item !== "object" || item === null || !("name" in item) || typeof item.name !== "string") return undefined;
  const value = "value" in item ? item.value : null;
  if (value === null) return { name: item.name, value: new Uint8Array(0) };
  return typeof value === "string" && isBase64(value)
    ? { name: item.name, value: new Uint8Array(Buffer.from(value, "base64")) }
    : undefined;
}

function wrongValue(value: Value, needed: string): Failure {
  const found = sliceUtf8(value.bytes, value.start, Math.min(value.end, value.start + 80));
  return new Failure(
    "TreeInvalid",
    `Cannot read tree: field "${value.field}" of an entry is ${toUtf8OrEscaped(fromUtf8(found))}, ${needed} needed`,
  );
}

function notNode(bytes: Uint8Array, at: number): Failure {
  const end = Math.min(bytes.length, at + 20);
  const found = at < end ? `"${toUtf8OrEscaped(fromUtf8(sliceUtf8(bytes, at, end)))}"` : "the end";
  return new Failure("TreeInvalid", `Cannot read tree: found ${found} at byte ${at} of ${bytes.length}, an entry as a JSON object needed`);
}
