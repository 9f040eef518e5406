/**
 * Writes zip archives as a stream, so that sizes and checksum of a file can only follow its content.
 *
 * ```
 * archive := entries | central directory | [zip64 end | zip64 locator] | end
 * entry   := local header | content [| data descriptor]
 * ```
 *
 * Files are deflated in pieces that do not depend on each other, so that several can be compressed at once. Entries that may pass 4 GiB,
 * and archives with more than 65,534 entries, use zip64. Names are raw bytes, marked as UTF-8 when they are. Modes, symbolic links and
 * times in seconds are kept; owners, attributes and special files have no place in a zip.
 *
 * Memory: about 100 bytes and the name of each entry, for the central directory.
 *
 * @see APPNOTE.TXT 6.3.9; Info-ZIP's proginfo/extrafld.txt for 0x5455
 */
import { promisify } from "node:util";
import { constants, crc32, deflateRaw } from "node:zlib";
import { Failure } from "@granary/base/errors";
import { type ByteString, findUtf8, isAscii, toBytes } from "../format/byte-string.ts";
import { stModeOf } from "../format/mode.ts";
import type { TreeNode } from "../format/node.ts";

const deflate = promisify(deflateRaw);

/** A piece of a file's content, ready to be written. */
export interface ZipPiece {
  readonly plain: Uint8Array;
  readonly deflated: Uint8Array;
}

/** Deflates a piece by itself, so that it can stand beside others. Runs outside the main thread. */
export async function deflatePiece(plain: Uint8Array): Promise<ZipPiece> {
  return { plain, deflated: await deflate(plain, { level: 6, finishFlush: constants.Z_FULL_FLUSH }) };
}

/** An empty last block: ends what {@link deflatePiece} makes. */
const deflateEnd = Uint8Array.of(3, 0);
const METHOD_STORED = 0;
const METHOD_DEFLATED = 8;
const MAX_UINT32 = 0xffffffff;
/** From this plain size on an entry gets room for 64-bit sizes, since deflating may make it a little larger. */
const ZIP64_FROM_BYTES = 0xf0000000;

/** Whether zip can hold a node: files, directories and symbolic links. */
export function fitsZip(node: TreeNode): boolean {
  return node.type === "file" || node.type === "dir" || node.type === "symlink";
}

/** What is stored of a file. */
export interface ZipFile {
  /** What the content has; 0 for what is no file. */
  readonly sizeBytes: number;
  readonly content: AsyncIterable<ZipPiece> | Iterable<ZipPiece>;
}

/** An entry on its way. */
interface Entry {
  readonly name: Buffer;
  readonly flags: number;
  readonly method: number;
  readonly dosTime: number;
  readonly extra: Buffer;
  readonly isZip64: boolean;
  readonly attributes: number;
  readonly offsetBytes: number;
}

/** Writes one archive: what its methods return is written to it in the order of the calls. */
export class ZipWriter {
  #offsetBytes = 0;
  #entryCount = 0;
  readonly #directory: Buffer[] = [];

  /**
   * An entry with its content; the target of a link is taken from its node.
   *
   * @param path relative, without a slash before or behind
   */
  async *add(path: ByteString, node: TreeNode, file: ZipFile): AsyncGenerator<Uint8Array, void, undefined> {
    const isStreamed = node.type === "file" && file.sizeBytes > 0;
    const target = node.type === "symlink" ? toBytes(node.linkTarget) : Buffer.alloc(0);
    const entry = this.#openEntry(path, node, isStreamed ? file.sizeBytes : undefined);
    const known = { crc: crc32(target), plainBytes: target.length, storedBytes: target.length };
    const header = encodeLocalHeader(entry, isStreamed ? undefined : known);
    yield header;
    if (target.length > 0) yield target;
    const sizes = isStreamed ? yield* writeContent(file.content) : known;
    const descriptor = isStreamed ? encodeDescriptor(sizes, entry.isZip64) : Buffer.alloc(0);
    if (!entry.isZip64 && Math.max(sizes.plainBytes, sizes.storedBytes) >= MAX_UINT32) {
      throw new Failure("Bug", `Cannot write zip entry: ${sizes.plainBytes} bytes came, ${file.sizeBytes} were announced`);
    }
    if (isStreamed) yield descriptor;
    this.#directory.push(encodeDirectoryEntry(entry, sizes));
    this.#entryCount++;
    this.#offsetBytes += header.length + sizes.storedBytes + descriptor.length;
  }

  /** The end of the archive. */
  *finish(): Generator<Uint8Array, void, undefined> {
    let sizeBytes = 0;
    for (const entry of this.#directory) {
      sizeBytes += entry.length;
      yield entry;
    }
    yield encodeEnd({ entryCount: this.#entryCount, sizeBytes, offsetBytes: this.#offsetBytes });
  }

  /** @param sizeBytes of content that follows; `undefined` when it is known now */
  #openEntry(path: ByteString, node: TreeNode, sizeBytes: number | undefined): Entry {
    const name = node.type === "dir" ? `${path}/` : path;
    if (name.length > 0xffff)
      throw new Failure("InvalidArgument", `Cannot put a path of ${name.length} bytes into a zip: 65,535 are the most`);
    const utf8Flag = !isAscii(name) && findUtf8(name) !== undefined ? 0x800 : 0;
    return {
      name: toBytes(name),
      flags: (sizeBytes === undefined ? 0 : 8) | utf8Flag,
      method: sizeBytes === undefined ? METHOD_STORED : METHOD_DEFLATED,
      dosTime: dosTimeOf(node.mtimeSeconds),
      extra: encodeTimestamp(node.mtimeSeconds),
      isZip64: sizeBytes !== undefined && sizeBytes >= ZIP64_FROM_BYTES,
      attributes: ((stModeOf(node.type, node.mode) << 16) | (node.type === "dir" ? 0x10 : 0)) >>> 0,
      offsetBytes: this.#offsetBytes,
    };
  }
}

async function* writeContent(content: ZipFile["content"]): AsyncGenerator<Uint8Array, Sizes, undefined> {
  let crc = 0;
  let plainBytes = 0;
  let storedBytes = deflateEnd.length;
  for await (const { plain, deflated } of content) {
    crc = crc32(plain, crc);
    plainBytes += plain.length;
    storedBytes += deflated.length;
    yield deflated;
  }
  yield deflateEnd;
  return { crc, plainBytes, storedBytes };
}

/** Little-endian numbers, one after the other: how many bytes each, and which. */
function encodeNumbers(...numbers: readonly (readonly [bytes: 2 | 4 | 8, value: number])[]): Buffer {
  const target = Buffer.alloc(numbers.reduce((sum, [bytes]) => sum + bytes, 0));
  let at = 0;
  for (const [bytes, value] of numbers) {
    if (bytes === 8) target.writeBigUInt64LE(BigInt(value), at);
    else target.writeUIntLE(value, at, bytes);
    at += bytes;
  }
  return target;
}

function versionOf(entry: Entry): number {
  return entry.isZip64 ? 45 : 20;
}

/** @param sizes where they are known before the content */
function encodeLocalHeader(entry: Entry, sizes: Sizes | undefined): Buffer {
  const unknown = entry.isZip64 ? MAX_UINT32 : 0;
  const extra = entry.isZip64 ? Buffer.concat([encodeNumbers([2, 1], [2, 16], [8, 0], [8, 0]), entry.extra]) : entry.extra;
  const head = encodeNumbers(
    [4, 0x04034b50],
    [2, versionOf(entry)],
    [2, entry.flags],
    [2, entry.method],
    [4, entry.dosTime],
    [4, sizes?.crc ?? 0],
    [4, sizes?.storedBytes ?? unknown],
    [4, sizes?.plainBytes ?? unknown],
    [2, entry.name.length],
    [2, extra.length],
  );
  return Buffer.concat([head, entry.name, extra]);
}

interface Sizes {
  readonly crc: number;
  readonly plainBytes: number;
  readonly storedBytes: number;
}

function encodeDescriptor({ crc, plainBytes, storedBytes }: Sizes, isZip64: boolean): Buffer {
  const width = isZip64 ? 8 : 4;
  return encodeNumbers([4, 0x08074b50], [4, crc], [width, storedBytes], [width, plainBytes]);
}

function encodeDirectoryEntry(entry: Entry, { crc, plainBytes, storedBytes }: Sizes): Buffer {
  const isFar = entry.offsetBytes >= MAX_UINT32;
  const wide: [8, number][] = [];
  if (entry.isZip64) wide.push([8, plainBytes], [8, storedBytes]);
  if (isFar) wide.push([8, entry.offsetBytes]);
  const zip64 = wide.length === 0 ? Buffer.alloc(0) : encodeNumbers([2, 1], [2, wide.length * 8], ...wide);
  const extra = Buffer.concat([zip64, entry.extra]);
  const head = encodeNumbers(
    [4, 0x02014b50],
    [2, (3 << 8) | 45], // Unix, so that the attributes are a mode
    [2, wide.length > 0 ? 45 : versionOf(entry)],
    [2, entry.flags],
    [2, entry.method],
    [4, entry.dosTime],
    [4, crc],
    [4, entry.isZip64 ? MAX_UINT32 : storedBytes],
    [4, entry.isZip64 ? MAX_UINT32 : plainBytes],
    [2, entry.name.length],
    [2, extra.length],
    [2, 0], // comment
    [2, 0], // disk
    [2, 0], // internal attributes
    [4, entry.attributes],
    [4, isFar ? MAX_UINT32 : entry.offsetBytes],
  );
  return Buffer.concat([head, entry.name, extra]);
}

function encodeEnd(directory: { readonly entryCount: number; readonly sizeBytes: number; readonly offsetBytes: number }): Buffer {
  const { entryCount, sizeBytes, offsetBytes } = directory;
  const isZip64 = entryCount >= 0xffff || sizeBytes >= MAX_UINT32 || offsetBytes >= MAX_UINT32;
  const zip64 = encodeNumbers(
    [4, 0x06064b50],
    [8, 44], // of this record, from here on
    [2, (3 << 8) | 45],
    [2, 45],
    [4, 0],
    [4, 0],
    [8, entryCount],
    [8, entryCount],
    [8, sizeBytes],
    [8, offsetBytes],
    [4, 0x07064b50], // locator
    [4, 0],
    [8, offsetBytes + sizeBytes],
    [4, 1],
  );
  const end = encodeNumbers(
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, Math.min(entryCount, 0xffff)],
    [2, Math.min(entryCount, 0xffff)],
    [4, Math.min(sizeBytes, MAX_UINT32)],
    [4, Math.min(offsetBytes, MAX_UINT32)],
    [2, 0],
  );
  return isZip64 ? Buffer.concat([zip64, end]) : end;
}

/** Date and time in the DOS form, UTC, two seconds fine, from 1980 to 2107. */
function dosTimeOf(seconds: number): number {
  const first = Date.UTC(1980, 0, 1);
  const last = Date.UTC(2107, 11, 31, 23, 59, 58);
  const date = new Date(Math.min(last, Math.max(first, seconds * 1000)));
  const time = (date.getUTCHours() << 11) | (date.getUTCMinutes() << 5) | (date.getUTCSeconds() >> 1);
  const day = ((date.getUTCFullYear() - 1980) << 9) | ((date.getUTCMonth() + 1) << 5) | date.getUTCDate();
  return ((day << 16) | time) >>> 0;
}

/** The extended timestamp, where a time fits into it. */
function encodeTimestamp(seconds: number): Buffer {
  const extra = Buffer.alloc(9);
  extra.writeUInt16LE(0x5455, 0);
  extra.writeUInt16LE(5, 2);
  extra.writeUInt8(1, 4);
  if (seconds < -(2 ** 31) || seconds >= 2 ** 31) return Buffer.alloc(0);
  extra.writeInt32LE(seconds, 5);
  return extra;
}
