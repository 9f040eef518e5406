/**
 * Index files: which blobs lie where in which packs.
 *
 * ```
 * {"packs":[{"id":…,"blobs":[{"id":…,"type":"data"|"tree","offset":…,"length":…,"uncompressed_length"?:…},…]},…]} + line feed
 * ```
 *
 * `length` is that of the sealed blob; `uncompressed_length` is there only when it is compressed. A repository has millions of blobs, so
 * neither direction builds objects: entries are {@link INDEX_ENTRY_BYTES} of packed binary on the way out, and calls with plain numbers
 * on the way in.
 *
 * @see restic design.rst, "Indexing"
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { fromUtf8, sliceUtf8, toUtf8OrEscaped } from "./byte-string.ts";
import { ByteSink, writeDigits, writePart } from "./byte-sink.ts";
import { ID_BYTES, ID_CHARS, readHex, writeHex } from "./ids.ts";
import {
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  isTokenAt,
  NULL_START,
  OPEN_ARRAY,
  OPEN_OBJECT,
  QUOTE,
  skipColon,
  skipKey,
  skipSpace,
  skipValue,
} from "./json-scan.ts";
import { type HeaderEntry, MAX_PACK_BYTES, readUint32, SEAL_BYTES, writeUint32 } from "./pack.ts";

/**
 * Bytes of one packed entry.
 *
 * ```
 * id(32) | offset(4 LE) | sealed_bytes(4 LE) | plain_bytes(4 LE), 0 when not compressed | 0 data, 1 tree (1)
 * ```
 */
export const INDEX_ENTRY_BYTES: number = ID_BYTES + 13;

/** How many blobs an index file should hold at most; restic closes its own there. */
export const INDEX_TARGET_BLOBS = 50_000;

/** A pack and its blobs, as {@link encodeIndex} takes them. */
export interface IndexPack {
  /** 32 bytes. */
  readonly packId: Uint8Array;
  /** Packed entries, one after the other, {@link INDEX_ENTRY_BYTES} each. */
  readonly entries: Uint8Array;
}

/** Writes a packed entry; the caller makes sure of the room. @returns the offset behind it */
export function writeIndexEntry(target: Uint8Array, at: number, entry: HeaderEntry): number {
  target.set(entry.id, at);
  at = writeUint32(target, at + ID_BYTES, entry.offsetBytes);
  at = writeUint32(target, at, entry.sealedBytes);
  at = writeUint32(target, at, entry.plainBytes);
  target[at] = entry.type === "tree" ? 1 : 0;
  return at + 1;
}

// The fixed parts of an entry's text. The longest entry has an id and three numbers of ten digits.
const ENTRY_HEAD = Buffer.from('{"id":"', "latin1");
const DATA_TO_OFFSET = Buffer.from('","type":"data","offset":', "latin1");
const TREE_TO_OFFSET = Buffer.from('","type":"tree","offset":', "latin1");
const TO_LENGTH = Buffer.from(',"length":', "latin1");
const TO_PLAIN = Buffer.from(',"uncompressed_length":', "latin1");
const MAX_ENTRY_CHARS = 192;
const MAX_PACK_CHARS = 128;

/**
 * The JSON of an index file, with its line feed; the caller owns it. An index without packs is legal, a pack without blobs too.
 *
 * @throws Bug when ids or entries have a wrong length
 */
export function encodeIndex(packs: readonly IndexPack[]): Buffer {
  // Room for the longest text at once: memory is only used where it is written, growing would use it twice.
  const blobs = packs.reduce((sum, { entries }) => sum + entries.length / INDEX_ENTRY_BYTES, 0);
  const sink = new ByteSink(64 + packs.length * MAX_PACK_CHARS + blobs * MAX_ENTRY_CHARS);
  let separator = '{"packs":[';
  for (const { packId, entries } of packs) {
    if (packId.length !== ID_BYTES || entries.length % INDEX_ENTRY_BYTES !== 0) {
      throw new Failure("Bug", `Cannot write index: a pack id of ${packId.length} bytes with ${entries.length} bytes of entries was given`);
    }
    sink.writeLatin1(`${separator}{"id":`);
    sink.writeQuotedId(packId);
    sink.writeLatin1(',"blobs":[');
    writeEntries(sink, entries);
    sink.writeLatin1("]}");
    separator = ",";
  }
  sink.writeLatin1(separator === "," ? "]}\n" : `${separator}]}\n`);
  return sink.bytes.subarray(0, sink.length);
}

function writeEntries(sink: ByteSink, entries: Uint8Array): void {
  sink.reserve((entries.length / INDEX_ENTRY_BYTES) * MAX_ENTRY_CHARS);
  const target = sink.bytes;
  let at = sink.length;
  for (let from = 0; from < entries.length; from += INDEX_ENTRY_BYTES) {
    if (from > 0) target[at++] = COMMA;
    at = writePart(target, at, ENTRY_HEAD);
    writeHex(target, at, entries, from);
    const isTree = entries[from + ID_BYTES + 12] === 1;
    at = writePart(target, at + ID_CHARS, isTree ? TREE_TO_OFFSET : DATA_TO_OFFSET);
    at = writeDigits(target, at, readUint32(entries, from + ID_BYTES));
    at = writePart(target, at, TO_LENGTH);
    at = writeDigits(target, at, readUint32(entries, from + ID_BYTES + 4));
    const plainBytes = readUint32(entries, from + ID_BYTES + 8);
    if (plainBytes !== 0) {
      at = writePart(target, at, TO_PLAIN);
      at = writeDigits(target, at, plainBytes);
    }
    target[at++] = CLOSE_OBJECT;
  }
  sink.length = at;
}

/** A blob as {@link scanIndex} gives it: one object for all, so take what is needed before the visit ends. */
export interface IndexBlob {
  /** 32 bytes. */
  readonly id: Uint8Array;
  readonly isTree: boolean;
  /** Where the sealed blob begins in its pack. It ends below 2^32. */
  readonly offsetBytes: number;
  /** Bytes of the sealed blob, at least 32. */
  readonly sealedBytes: number;
  /** Bytes before compression, or 0 when it is not compressed. */
  readonly plainBytes: number;
}

/** Told what an index file holds, in its order. */
export interface IndexVisitor {
  /** A pack begins; the blobs that follow, until the next one, lie in it. @param packId 32 bytes, valid during the call only */
  pack(packId: Uint8Array): void;
  blob(blob: IndexBlob): void;
}

/**
 * Reads an index file.
 *
 * Accepts any white space, order of fields and unknown fields, `supersedes`, which restic ignores too, among them; also the form of
 * the first restic versions, where the array of packs is all there is.
 *
 * @throws IndexInvalid; what comes before the fault has been visited
 */
export function scanIndex(bytes: Uint8Array, visitor: IndexVisitor): void {
  const start = skipSpace(bytes, 0);
  const at = bytes[start] === OPEN_ARRAY ? scanPacks(bytes, start, visitor) : scanOuter(bytes, start, visitor);
  if (skipSpace(bytes, at) !== bytes.length) throw notIndex(bytes, at, "the end");
}

const PACKS = Buffer.from('"packs"', "latin1");
const ID = Buffer.from('"id"', "latin1");
const BLOBS = Buffer.from('"blobs"', "latin1");
const TYPE = Buffer.from('"type"', "latin1");
const OFFSET = Buffer.from('"offset"', "latin1");
const LENGTH = Buffer.from('"length"', "latin1");
const PLAIN = Buffer.from('"uncompressed_length"', "latin1");
const DATA = Buffer.from('"data"', "latin1");
const TREE = Buffer.from('"tree"', "latin1");

/** Offset of the first member of an object, or of its closing brace. */
function enterObject(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== OPEN_OBJECT) throw notIndex(bytes, at, "an object");
  return skipSpace(bytes, at + 1);
}

/** From behind a member or element: the offset of the next one, or of the closing bracket. */
function nextMember(bytes: Uint8Array, at: number, close: number): number {
  at = skipSpace(bytes, at);
  if (bytes[at] === close) return at;
  if (bytes[at] !== COMMA) throw notIndex(bytes, at, "a comma or a closing bracket");
  at = skipSpace(bytes, at + 1);
  if (bytes[at] === close) throw notIndex(bytes, at, "a value");
  return at;
}

function passKey(bytes: Uint8Array, at: number): number {
  const keyEnd = skipKey(bytes, at);
  if (keyEnd < 0) throw notIndex(bytes, at, "a field");
  return keyEnd;
}

function passColon(bytes: Uint8Array, at: number): number {
  const valueAt = skipColon(bytes, at);
  if (valueAt < 0) throw notIndex(bytes, at, "a colon");
  return valueAt;
}

function passValue(bytes: Uint8Array, at: number): number {
  const valueEnd = skipValue(bytes, at, 4);
  if (valueEnd < 0) throw notIndex(bytes, at, "a JSON value");
  return valueEnd;
}

function scanOuter(bytes: Uint8Array, start: number, visitor: IndexVisitor): number {
  let at = enterObject(bytes, start);
  let found = false;
  while (bytes[at] !== CLOSE_OBJECT) {
    const keyAt = at;
    const keyEnd = passKey(bytes, at);
    const valueAt = passColon(bytes, keyEnd);
    if (!isTokenAt(bytes, keyAt, PACKS)) at = passValue(bytes, valueAt);
    else if (found) throw notIndex(bytes, keyAt, '"packs" only once');
    else {
      found = true;
      at = scanPacks(bytes, valueAt, visitor);
    }
    at = nextMember(bytes, at, CLOSE_OBJECT);
  }
  if (!found) throw notIndex(bytes, at, '"packs"');
  return at + 1;
}

function scanPacks(bytes: Uint8Array, start: number, visitor: IndexVisitor): number {
  if (bytes[start] === NULL_START) return passValue(bytes, start);
  if (bytes[start] !== OPEN_ARRAY) throw notIndex(bytes, start, "an array of packs");
  let at = skipSpace(bytes, start + 1);
  while (bytes[at] !== CLOSE_ARRAY) {
    at = scanPack(bytes, at, visitor);
    at = nextMember(bytes, at, CLOSE_ARRAY);
  }
  return at + 1;
}

const idScratch = new Uint8Array(ID_BYTES);

function readId(bytes: Uint8Array, at: number): void {
  if (bytes[at] !== QUOTE || bytes[at + 1 + ID_CHARS] !== QUOTE || !readHex(bytes, at + 1, idScratch)) {
    throw notIndex(bytes, at, "64 lower-case hex characters");
  }
}

function scanPack(bytes: Uint8Array, start: number, visitor: IndexVisitor): number {
  let at = enterObject(bytes, start);
  let hasId = false;
  let lateBlobsAt = -1;
  let hasBlobs = false;
  while (bytes[at] !== CLOSE_OBJECT) {
    const keyAt = at;
    const keyEnd = passKey(bytes, at);
    const valueAt = passColon(bytes, keyEnd);
    if (isTokenAt(bytes, keyAt, ID)) {
      if (hasId) throw notIndex(bytes, keyAt, "a pack's id only once");
      hasId = true;
      readId(bytes, valueAt);
      visitor.pack(idScratch);
      at = valueAt + ID_CHARS + 2;
    } else if (isTokenAt(bytes, keyAt, BLOBS)) {
      if (hasBlobs) throw notIndex(bytes, keyAt, "a pack's blobs only once");
      hasBlobs = true;
      if (hasId) at = scanBlobs(bytes, valueAt, visitor);
      else {
        lateBlobsAt = valueAt;
        at = passValue(bytes, valueAt);
      }
    } else at = passValue(bytes, valueAt);
    at = nextMember(bytes, at, CLOSE_OBJECT);
  }
  if (!hasId) throw notIndex(bytes, at, "a pack's id");
  if (lateBlobsAt >= 0) scanBlobs(bytes, lateBlobsAt, visitor);
  return at + 1;
}

function scanBlobs(bytes: Uint8Array, start: number, visitor: IndexVisitor): number {
  if (bytes[start] === NULL_START) return passValue(bytes, start);
  if (bytes[start] !== OPEN_ARRAY) throw notIndex(bytes, start, "an array of blobs");
  let at = skipSpace(bytes, start + 1);
  while (bytes[at] !== CLOSE_ARRAY) {
    if (!readPlainBlob(bytes, at)) readAnyBlob(bytes, at);
    checkRange(bytes, at);
    visitor.blob(blob);
    at = blobEnd;
    // the common case first
    if (bytes[at] === COMMA && bytes[at + 1] === OPEN_OBJECT) at++;
    else at = nextMember(bytes, at, CLOSE_ARRAY);
  }
  return at + 1;
}

// The blob that was read last, and the offset behind it.
const blob = { id: idScratch, isTree: false, offsetBytes: 0, sealedBytes: 0, plainBytes: 0 };
let blobEnd = 0;

function checkRange(bytes: Uint8Array, at: number): void {
  if (blob.sealedBytes < SEAL_BYTES) throw notIndex(bytes, at, `a blob of at least ${SEAL_BYTES} bytes`);
  if (blob.offsetBytes + blob.sealedBytes > MAX_PACK_BYTES) throw notIndex(bytes, at, `a blob that ends at most at ${MAX_PACK_BYTES}`);
  if (blob.plainBytes > MAX_PACK_BYTES) throw notIndex(bytes, at, `an uncompressed length of at most ${MAX_PACK_BYTES}`);
}

/** Reads a blob written exactly as restic and {@link encodeIndex} do. @returns false, having done nothing that lasts, otherwise */
function readPlainBlob(bytes: Uint8Array, start: number): boolean {
  if (!isTokenAt(bytes, start, ENTRY_HEAD)) return false;
  let at = start + ENTRY_HEAD.length;
  if (!readHex(bytes, at, idScratch)) return false;
  at += ID_CHARS;
  blob.isTree = bytes[at + 10] === 0x74; // the t of tree
  if (!isTokenAt(bytes, at, blob.isTree ? TREE_TO_OFFSET : DATA_TO_OFFSET)) return false;
  at = readNumber(bytes, at + DATA_TO_OFFSET.length);
  if (at < 0 || !isTokenAt(bytes, at, TO_LENGTH)) return false;
  blob.offsetBytes = lastNumber;
  at = readNumber(bytes, at + TO_LENGTH.length);
  if (at < 0) return false;
  blob.sealedBytes = lastNumber;
  blob.plainBytes = 0;
  if (bytes[at] === COMMA) {
    if (!isTokenAt(bytes, at, TO_PLAIN)) return false;
    at = readNumber(bytes, at + TO_PLAIN.length);
    if (at < 0) return false;
    blob.plainBytes = lastNumber;
  }
  blobEnd = at + 1;
  return bytes[at] === CLOSE_OBJECT;
}

let lastNumber = 0;

/** Reads a whole number below 10^10 into lastNumber. @returns the offset behind it, or -1 */
function readNumber(bytes: Uint8Array, start: number): number {
  let at = start;
  let value = 0;
  for (;;) {
    const digit = (bytes[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
    at++;
  }
  const digits = at - start;
  if (digits === 0 || digits > 10 || (digits > 1 && bytes[start] === 0x30)) return -1;
  lastNumber = value;
  return at;
}

/** Reads a blob with any white space, order of fields, and unknown fields. */
function readAnyBlob(bytes: Uint8Array, start: number): void {
  let at = enterObject(bytes, start);
  let hasId = false;
  let hasType = false;
  blob.offsetBytes = -1;
  blob.sealedBytes = -1;
  blob.plainBytes = 0;
  while (bytes[at] !== CLOSE_OBJECT) {
    const keyAt = at;
    const keyEnd = passKey(bytes, at);
    const valueAt = passColon(bytes, keyEnd);
    at = passValue(bytes, valueAt);
    if (isTokenAt(bytes, keyAt, ID)) {
      readId(bytes, valueAt);
      hasId = true;
    } else if (isTokenAt(bytes, keyAt, TYPE)) {
      blob.isTree = isTokenAt(bytes, valueAt, TREE);
      if (!blob.isTree && !isTokenAt(bytes, valueAt, DATA)) throw notIndex(bytes, valueAt, '"data" or "tree"');
      hasType = true;
    } else if (isTokenAt(bytes, keyAt, OFFSET)) blob.offsetBytes = readWhole(bytes, valueAt, at);
    else if (isTokenAt(bytes, keyAt, LENGTH)) blob.sealedBytes = readWhole(bytes, valueAt, at);
    else if (isTokenAt(bytes, keyAt, PLAIN) && bytes[valueAt] !== NULL_START) blob.plainBytes = readWhole(bytes, valueAt, at);
    at = nextMember(bytes, at, CLOSE_OBJECT);
  }
  if (!hasId || !hasType || blob.offsetBytes < 0 || blob.sealedBytes < 0)
    throw notIndex(bytes, start, "a blob with id, type, offset and length");
  blobEnd = at + 1;
}

function readWhole(bytes: Uint8Array, start: number, end: number): number {
  if (readNumber(bytes, start) !== end) throw notIndex(bytes, start, "a whole number below 2^32");
  return lastNumber;
}

function notIndex(bytes: Uint8Array, at: number, needed: string): Failure {
  const end = Math.min(bytes.length, at + 40);
  const found = at < end ? `"${toUtf8OrEscaped(fromUtf8(sliceUtf8(bytes, at, end)))}"` : "the end";
  return new Failure("IndexInvalid", `Cannot read index: found ${found} at byte ${at} of ${bytes.length}, ${needed} needed`, {
    details: { offsetBytes: at, sizeBytes: bytes.length },
  });
}
