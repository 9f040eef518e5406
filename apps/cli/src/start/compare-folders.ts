/**
 * Compares two folders entry by entry: type, content, permissions, owner, modification time, link target, device, extended attributes
 * (access control lists are among them), and which names are one file. An independent look with Node's own file functions, so that a fault
 * that backup and restore have in common does not hide.
 *
 * Directories are gone through by handle (`/proc/self/fd`), so that paths may have any length. Sockets are left out: no backup has them.
 * Memory: the names of the directories that are open, and one entry for each file with several names.
 */

import { type BigIntStats, closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { throwIfCancelled } from "@granary/base/cancel";
import { messageOf } from "@granary/base/errors";
import { type ByteString, fromBytes, listAttributes, readAttribute, toBytes } from "@granary/engine";

/** One thing that is not the same. */
export interface FolderDifference {
  /** Relative to the folders, raw bytes; "" is the folders themselves. */
  readonly path: ByteString;
  /** What differs, in words. */
  readonly what: string;
  /** When the first folder's entry was last changed, or 0n: perhaps after the copy was made. */
  readonly changedNs: bigint;
}

/** How far a comparison has come, or what it came to. */
export interface ComparisonCounts {
  readonly files: number;
  readonly folders: number;
  readonly others: number;
  readonly bytes: number;
  readonly differences: number;
}

export interface CompareOptions {
  /** A folder inside the first one that is left out; absolute. */
  readonly except?: string;
  /** Told of each difference; must not throw. */
  readonly onDifference: (difference: FolderDifference) => void;
  /** Called now and then; must not throw. */
  readonly onProgress?: (counts: ComparisonCounts) => void;
  readonly signal?: AbortSignal;
}

/** Compares the second folder with the first. @throws Cancelled */
export async function compareFolders(first: ByteString, second: ByteString, options: CompareOptions): Promise<ComparisonCounts> {
  const comparison = new Comparison(options);
  await comparison.compare({ path: "", first, second });
  return comparison.counts;
}

/** One entry on both sides; the places are paths of any directory handle and a name. */
interface Pair {
  readonly path: ByteString;
  readonly first: ByteString;
  readonly second: ByteString;
}

const typeMask = BigInt(constants.S_IFMT);
const types = new Map([
  [BigInt(constants.S_IFREG), "file"],
  [BigInt(constants.S_IFDIR), "folder"],
  [BigInt(constants.S_IFLNK), "symbolic link"],
  [BigInt(constants.S_IFIFO), "fifo"],
  [BigInt(constants.S_IFSOCK), "socket"],
  [BigInt(constants.S_IFBLK), "block device"],
  [BigInt(constants.S_IFCHR), "character device"],
]);
const permissionMask = 0o7777n;
const pieceBytes = 1 << 20;
const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const fileFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

class Comparison {
  readonly #options: CompareOptions;
  readonly #except: string;
  /** Of files with several names: the file on the first side, and the one that it was on the second. */
  readonly #linked = new Map<string, string>();
  readonly #pieces = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)] as const;
  #sinceBreak = 0;
  readonly counts: { -readonly [K in keyof ComparisonCounts]: number } = { files: 0, folders: 0, others: 0, bytes: 0, differences: 0 };

  constructor(options: CompareOptions) {
    this.#options = options;
    const { except } = options;
    this.#except = except === undefined ? "" : identityOf(lstatSync(except, { bigint: true }));
  }

  async compare(pair: Pair): Promise<void> {
    const [before, after] = [look(pair.first), look(pair.second)];
    const type = typeof before === "string" ? "" : typeOf(before);
    if (type === "socket" || (typeof before !== "string" && identityOf(before) === this.#except)) return;
    const tell = (what: string): void => this.#tell(pair.path, what, typeof before === "string" ? 0n : before.ctimeNs);
    if (typeof before === "string" || typeof after === "string") {
      if (typeof before === "string") tell(`the original cannot be looked at: ${before}`);
      if (typeof after === "string") tell(after === "ENOENT" ? "missing in the copy" : `the copy cannot be looked at: ${after}`);
      return;
    }
    if (typeOf(after) !== type) return tell(`a ${type} became a ${typeOf(after)}`);
    for (const what of compareStatus(before, after)) tell(what);
    for (const what of compareAttributes(pair)) tell(what);
    await this.#pause(1);
    if (type === "folder") return this.#compareFolder(pair, tell);
    this.#compareLinks(before, after, tell);
    if (type === "file") {
      this.counts.files++;
      await this.#compareContent(pair, Number(before.size), tell);
    } else {
      this.counts.others++;
      if (type === "symbolic link" && !readLink(pair.first).equals(readLink(pair.second))) tell("the link points elsewhere");
    }
  }

  async #compareFolder(pair: Pair, tell: (what: string) => void): Promise<void> {
    this.counts.folders++;
    const handles: number[] = [];
    try {
      for (const place of [pair.first, pair.second]) handles.push(openSync(toBytes(place), directoryFlags));
      const [first = 0, second = 0] = handles;
      const [names, copies] = [listNames(first), new Set(listNames(second))];
      for (const name of names) {
        copies.delete(name);
        await this.compare({
          path: pair.path === "" ? name : `${pair.path}/${name}`,
          first: below(first, name),
          second: below(second, name),
        });
      }
      for (const name of copies) this.#tell(pair.path === "" ? name : `${pair.path}/${name}`, "only in the copy", 0n);
    } catch (error) {
      throwIfCancelled(this.#options.signal);
      tell(`cannot be read: ${messageOf(error)}`);
    } finally {
      for (const handle of handles) closeSync(handle);
    }
  }

  async #compareContent(pair: Pair, sizeBytes: number, tell: (what: string) => void): Promise<void> {
    const handles: number[] = [];
    try {
      for (const place of [pair.first, pair.second]) handles.push(openSync(toBytes(place), fileFlags));
      const [first = 0, second = 0] = handles;
      for (let at = 0; at < sizeBytes; at += pieceBytes) {
        const [one, other] = this.#pieces;
        const [got, copied] = [readFully(first, one, at), readFully(second, other, at)];
        this.counts.bytes += got;
        if (got !== copied || one.compare(other, 0, copied, 0, got) !== 0)
          return tell(`the content differs from byte ${at} on, or a little after`);
        await this.#pause(got);
      }
    } catch (error) {
      throwIfCancelled(this.#options.signal);
      tell(`the content cannot be read: ${messageOf(error)}`);
    } finally {
      for (const handle of handles) closeSync(handle);
    }
  }

  #compareLinks(before: BigIntStats, after: BigIntStats, tell: (what: string) => void): void {
    if (before.nlink === 1n) return;
    const [original, copy] = [identityOf(before), identityOf(after)];
    const known = this.#linked.get(original);
    if (known === undefined) this.#linked.set(original, copy);
    else if (known !== copy) tell("was another name of a file, and is a file of its own now");
  }

  #tell(path: ByteString, what: string, changedNs: bigint): void {
    this.counts.differences++;
    this.#options.onDifference({ path, what, changedNs });
  }

  /** Lets signals and progress in after some work. */
  async #pause(work: number): Promise<void> {
    throwIfCancelled(this.#options.signal);
    this.#sinceBreak += work + 20_000;
    if (this.#sinceBreak < 16 << 20) return;
    this.#sinceBreak = 0;
    this.#options.onProgress?.(this.counts);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function look(place: ByteString): BigIntStats | string {
  try {
    return lstatSync(toBytes(place), { bigint: true });
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : messageOf(error);
  }
}

function typeOf({ mode }: BigIntStats): string {
  return types.get(mode & typeMask) ?? "thing of no known type";
}

function identityOf({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

function below(handle: number, name: ByteString): ByteString {
  return `/proc/self/fd/${handle}/${name}`;
}

function listNames(handle: number): ByteString[] {
  return readdirSync(`/proc/self/fd/${handle}`, { encoding: "buffer" }).map(fromBytes).sort();
}

function readLink(place: ByteString): Buffer {
  return readlinkSync(toBytes(place), { encoding: "buffer" });
}

function readFully(handle: number, piece: Buffer, at: number): number {
  let got = 0;
  for (let more = 1; more > 0 && got < piece.length; got += more) more = readSync(handle, piece, got, piece.length - got, at + got);
  return got;
}

function* compareStatus(before: BigIntStats, after: BigIntStats): Generator<string> {
  const type = typeOf(before);
  const octal = (mode: bigint): string => (mode & permissionMask).toString(8);
  if ((before.mode & permissionMask) !== (after.mode & permissionMask)) yield `mode ${octal(before.mode)} became ${octal(after.mode)}`;
  if (before.uid !== after.uid || before.gid !== after.gid) yield `owner ${before.uid}:${before.gid} became ${after.uid}:${after.gid}`;
  if (before.mtimeNs !== after.mtimeNs) yield `modification time ${before.mtimeNs} ns became ${after.mtimeNs}`;
  if (type === "file" && before.size !== after.size) yield `size ${before.size} became ${after.size}`;
  if (type.endsWith("device") && before.rdev !== after.rdev) yield "it is another device";
}

function* compareAttributes({ first, second }: Pair): Generator<string> {
  const [names, copies] = [listAttributes(first), listAttributes(second)];
  if (typeof names === "number" || typeof copies === "number") {
    if (names !== copies) yield "extended attributes cannot be listed";
    return;
  }
  for (const name of new Set([...names, ...copies])) {
    const [value, copied] = [readAttribute(first, name), readAttribute(second, name)];
    const isSame = typeof value !== "number" && typeof copied !== "number" && value.equals(copied);
    if (!isSame) yield `extended attribute ${name} differs`;
  }
}
