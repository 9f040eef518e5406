/**
 * Nodes: what a directory says of each of its entries, as JSON, the same bytes that restic writes.
 *
 * ```
 * {"name":…,"type":…,"mode"?,"mtime":…,"atime":…,"ctime":…,"uid":…,"gid":…,"user"?,"group"?,"inode"?,"device_id"?,"size"?,"links"?,
 *  "linktarget"?,"linktarget_raw"?,"extended_attributes"?,"generic_attributes"?,"device"?,"content":null|[…],"subtree"?,"error"?}
 * ```
 *
 * Fields with `?` are left out when zero or empty. Everything up to and including `"content":` is the *head*: it depends on `lstat`
 * and extended attributes only, so an entry has not changed when its head stands at the beginning of the parent's node, byte for byte.
 * What follows, content and *tail*, can then be taken over without being parsed.
 *
 * Times are written in UTC, so a node that a client in another time zone wrote is equal in value but not in bytes.
 *
 * @see restic design.rst, "Trees and Data"
 */
import { type ByteString, findUtf8, fromUtf8, isAscii, toBytes } from "./byte-string.ts";
import { ByteSink } from "./byte-sink.ts";
import { quoteGo } from "./go-quote.ts";
import { ID_BYTES } from "./ids.ts";
import { escapeJsonBytes } from "./json.ts";
import { CLOSE_ARRAY, CLOSE_OBJECT, COMMA, OPEN_ARRAY, QUOTE } from "./json-scan.ts";
import type { NodeType } from "./mode.ts";
import { MAX_TIME_CHARS, writeTime } from "./time.ts";

/** A whole number from 0 to 2^64-1: a `number` up to 2^53-1, a `bigint` above. Never a `bigint` that a `number` could hold. */
export type Uint64 = number | bigint;

export interface ExtendedAttribute {
  readonly name: string;
  readonly value: Uint8Array;
}

/** What a node says before its content. Zero and the empty string mean that a field is not there. */
export interface NodeHead {
  readonly name: ByteString;
  readonly type: NodeType;
  /** Go's file mode; see mode.ts. */
  readonly mode: number;
  /** Whole seconds since 1970, rounded down, and 0 to 999,999,999 nanoseconds above them. */
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly atimeSeconds: number;
  readonly atimeNanos: number;
  readonly ctimeSeconds: number;
  readonly ctimeNanos: number;
  readonly uid: number;
  readonly gid: number;
  readonly user: string;
  readonly group: string;
  readonly inode: Uint64;
  /** `st_dev`; matters for hard links only. */
  readonly deviceId: Uint64;
  readonly size: Uint64;
  readonly links: Uint64;
  /** Where a symbolic link points. */
  readonly linkTarget: ByteString;
  readonly extendedAttributes: readonly ExtendedAttribute[];
  /** A JSON object as it was found, or "". */
  readonly genericAttributes: string;
  /** `st_rdev` of a device. */
  readonly device: Uint64;
}

/** A whole node. */
export interface TreeNode extends NodeHead {
  /** Ids of the data blobs, 32 bytes each, one after the other; empty for an empty file; `null` for what is no file. */
  readonly content: Uint8Array | null;
  /** Id of the directory's tree blob, 32 bytes; `null` for what is no directory. */
  readonly subtree: Uint8Array | null;
  /** What the writer could not read of this entry, or "". */
  readonly error: string;
}

/** Seconds of Go's zero time, 0001-01-01, which a missing time stands for. */
export const ZERO_TIME_SECONDS = -62_135_596_800;

// Printable ASCII that neither Go's quoting nor JSON changes.
const PLAIN_NAME = /^[ !#-%'-;=?-[\]-~]*$/;

const part = (text: string): Uint8Array => Buffer.from(text, "latin1");

const NAME = part('{"name":"');
const TYPES: Readonly<Record<NodeType, Uint8Array>> = {
  file: part('","type":"file"'),
  dir: part('","type":"dir"'),
  symlink: part('","type":"symlink"'),
  dev: part('","type":"dev"'),
  chardev: part('","type":"chardev"'),
  fifo: part('","type":"fifo"'),
  socket: part('","type":"socket"'),
  irregular: part('","type":"irregular"'),
};
const MODE = part(',"mode":');
const MTIME = part(',"mtime":"');
const ATIME = part('","atime":"');
const CTIME = part('","ctime":"');
const UID = part('","uid":');
const GID = part(',"gid":');
const INODE = part(',"inode":');
const DEVICE_ID = part(',"device_id":');
const SIZE = part(',"size":');
const LINKS = part(',"links":');
const DEVICE = part(',"device":');
const CONTENT = part(',"content":');

/** Writes a node's head: all from its opening brace up to and including `"content":`. */
export function writeNodeHead(sink: ByteSink, head: NodeHead): void {
  sink.writePart(NAME);
  sink.writeLatin1(PLAIN_NAME.test(head.name) ? head.name : escapeJsonBytes(quoteGo(head.name)));
  sink.writePart(TYPES[head.type]);
  writeNumber(sink, MODE, head.mode);
  sink.writePart(MTIME);
  writeTimeText(sink, head.mtimeSeconds, head.mtimeNanos);
  sink.writePart(ATIME);
  writeTimeText(sink, head.atimeSeconds, head.atimeNanos);
  sink.writePart(CTIME);
  writeTimeText(sink, head.ctimeSeconds, head.ctimeNanos);
  sink.writePart(UID);
  sink.writeInteger(head.uid);
  sink.writePart(GID);
  sink.writeInteger(head.gid);
  if (head.user !== "") sink.writePart(memberOfUser(head.user));
  if (head.group !== "") sink.writePart(memberOfGroup(head.group));
  writeNumber(sink, INODE, head.inode);
  writeNumber(sink, DEVICE_ID, head.deviceId);
  writeNumber(sink, SIZE, head.size);
  writeNumber(sink, LINKS, head.links);
  if (head.linkTarget !== "") writeLinkTarget(sink, head.linkTarget);
  if (head.extendedAttributes.length > 0) writeExtendedAttributes(sink, head.extendedAttributes);
  if (head.genericAttributes !== "") {
    sink.writeLatin1(',"generic_attributes":');
    sink.writeLatin1(fromUtf8(head.genericAttributes));
  }
  writeNumber(sink, DEVICE, head.device);
  sink.writePart(CONTENT);
}

function writeNumber(sink: ByteSink, key: Uint8Array, value: Uint64): void {
  if (value === 0) return;
  sink.writePart(key);
  sink.writeInteger(value);
}

function writeTimeText(sink: ByteSink, seconds: number, nanos: number): void {
  sink.reserve(MAX_TIME_CHARS);
  sink.length = writeTime(sink.bytes, sink.length, seconds, nanos);
}

const memberOfUser = rememberMember(',"user":"');
const memberOfGroup = rememberMember(',"group":"');

/** The bytes of a text member; those of the last text are kept, since the files of a folder mostly have one owner. */
function rememberMember(key: string): (text: string) => Uint8Array {
  let last = "";
  let bytes: Uint8Array = part(`${key}"`);
  return (text) => {
    if (text !== last) {
      bytes = part(`${key}${escapeJsonBytes(fromUtf8(text))}"`);
      last = text;
    }
    return bytes;
  };
}

// A target that is no UTF-8 is written twice: readable with replacements, and exact.
function writeLinkTarget(sink: ByteSink, target: ByteString): void {
  sink.writeLatin1(',"linktarget":"');
  sink.writeLatin1(escapeJsonBytes(target));
  sink.writeByte(QUOTE);
  if (isAscii(target) || findUtf8(target) !== undefined) return;
  sink.writeLatin1(',"linktarget_raw":"');
  sink.writeLatin1(toBytes(target).toString("base64"));
  sink.writeByte(QUOTE);
}

function writeExtendedAttributes(sink: ByteSink, attributes: readonly ExtendedAttribute[]): void {
  let separator = ',"extended_attributes":[';
  for (const { name, value } of attributes) {
    sink.writeLatin1(separator);
    sink.writeLatin1('{"name":"');
    sink.writeLatin1(escapeJsonBytes(fromUtf8(name)));
    sink.writeLatin1('","value":"');
    sink.writeLatin1(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64"));
    sink.writeLatin1('"}');
    separator = ",";
  }
  sink.writeByte(CLOSE_ARRAY);
}

/** Writes a node's content: `null`, or the ids. @param content as in {@link TreeNode} */
export function writeNodeContent(sink: ByteSink, content: Uint8Array | null): void {
  if (content === null) {
    sink.writeLatin1("null");
    return;
  }
  sink.writeByte(OPEN_ARRAY);
  for (let at = 0; at < content.length; at += ID_BYTES) {
    if (at > 0) sink.writeByte(COMMA);
    sink.writeQuotedId(content, at);
  }
  sink.writeByte(CLOSE_ARRAY);
}

/** Writes what follows a node's content, with the closing brace. */
export function writeNodeTail(sink: ByteSink, subtree: Uint8Array | null, error: string): void {
  if (subtree !== null) {
    sink.writeLatin1(',"subtree":');
    sink.writeQuotedId(subtree);
  }
  if (error !== "") sink.writeLatin1(`,"error":"${escapeJsonBytes(fromUtf8(error))}"`);
  sink.writeByte(CLOSE_OBJECT);
}

/** Writes a whole node. */
export function writeNode(sink: ByteSink, node: TreeNode): void {
  writeNodeHead(sink, node);
  writeNodeContent(sink, node.content);
  writeNodeTail(sink, node.subtree, node.error);
}

const scratch = new ByteSink();

/** A node's head as {@link writeNodeHead} writes it: UTF-8 bytes in a string, which is the quickest and smallest way to keep many. */
export function encodeNodeHead(head: NodeHead): ByteString {
  scratch.reset();
  writeNodeHead(scratch, head);
  return scratch.bytes.latin1Slice(0, scratch.length);
}

/** A whole node as {@link writeNode} writes it; the caller owns the bytes. */
export function encodeNode(node: TreeNode): Buffer {
  scratch.reset();
  writeNode(scratch, node);
  return scratch.copy();
}
