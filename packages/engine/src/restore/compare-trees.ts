/** Compares two folders entry by entry, for tests: the oracle of a restore. Reads with plain system calls and trusts nothing of the engine's. */
import { Buffer } from "node:buffer";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import { nodeTypeOfMode } from "../format/mode.ts";
import {
  closeHandle,
  FileStatus,
  listAttributes,
  openAt,
  openFlags,
  pathBelow,
  readAttribute,
  readHandleAt,
  readLinkAt,
  readNames,
  seekData,
  seekHole,
  statAt,
  workingDirectory,
} from "../native/libc.ts";
import { describeError } from "./errno-text.ts";

/** What {@link compareTrees} looks at beside names, types, sizes and content. All but holes by default. */
export interface CompareTreesOptions {
  readonly owners?: boolean;
  readonly modes?: boolean;
  /** Modification times, in nanoseconds. */
  readonly times?: boolean;
  readonly attributes?: boolean;
  /** Which names are names of one file. */
  readonly links?: boolean;
  /** Where the data is, as the file system tells it. */
  readonly holes?: boolean;
  /** Differences told at most. */
  readonly limit?: number;
}

interface Side {
  readonly handle: number;
  readonly status: FileStatus;
  /** First path of each inode that has several names. */
  readonly inodes: Map<string, ByteString>;
  readonly data: Buffer;
}

const pieceBytes = 1024 * 1024;
const folderFlags = openFlags.readOnly | openFlags.directory | openFlags.noFollow;

/**
 * The differences between two folders, as `path: what differs`; names are raw bytes, shown escaped. The folders themselves (owner, mode, time)
 * are not compared. Attributes that the system gives by itself (`security.selinux`) are not looked at.
 *
 * @param a @param b paths
 */
export async function compareTrees(a: string, b: string, options: CompareTreesOptions = {}): Promise<string[]> {
  const comparer = new Comparer({
    owners: true,
    modes: true,
    times: true,
    attributes: true,
    links: true,
    holes: false,
    limit: 200,
    ...options,
  });
  comparer.compare(a, b);
  return await Promise.resolve(comparer.differences);
}

class Comparer {
  readonly differences: string[] = [];
  readonly #options: Required<CompareTreesOptions>;
  readonly #inodes: readonly [Map<string, ByteString>, Map<string, ByteString>] = [new Map(), new Map()];
  readonly #statuses: readonly [FileStatus, FileStatus] = [new FileStatus(), new FileStatus()];
  readonly #data: readonly [Buffer, Buffer] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];

  constructor(options: Required<CompareTreesOptions>) {
    this.#options = options;
  }

  compare(a: string, b: string): void {
    const open = (path: string): number =>
      openAt(workingDirectory, Buffer.from(path).latin1Slice(), openFlags.readOnly | openFlags.directory);
    const handles = [open(a), open(b)] as const;
    if (handles[0] < 0 || handles[1] < 0) this.#tell("", `cannot open: ${describeError(Math.min(...handles))}`);
    else this.#compareFolders("", this.#side(0, handles[0]), this.#side(1, handles[1]));
    for (const handle of handles) if (handle >= 0) closeHandle(handle);
  }

  #side(which: 0 | 1, handle: number): Side {
    return { handle, status: this.#statuses[which], inodes: this.#inodes[which], data: this.#data[which] };
  }

  #tell(path: ByteString, what: string): void {
    if (this.differences.length < this.#options.limit) this.differences.push(`${toUtf8OrEscaped(path === "" ? "/" : path)}: ${what}`);
  }

  #compareFolders(path: ByteString, a: Side, b: Side): void {
    const names: [ByteString[], ByteString[]] = [[], []];
    const listed = Math.min(readNames(a.handle, names[0]), readNames(b.handle, names[1]));
    if (listed < 0) return this.#tell(path, `cannot list: ${describeError(listed)}`);
    const inB = new Set(names[1]);
    for (const name of names[0].sort()) {
      if (inB.delete(name)) this.#compareEntries(path, name, [a, b]);
      else this.#tell(`${path}/${name}`, "only in the first");
    }
    for (const name of inB) this.#tell(`${path}/${name}`, "only in the second");
  }

  #compareEntries(folder: ByteString, name: ByteString, [a, b]: readonly [Side, Side]): void {
    const path = `${folder}/${name}`;
    const looked = Math.min(statAt(a.handle, name, a.status), statAt(b.handle, name, b.status));
    if (looked < 0) return this.#tell(path, `cannot look at it: ${describeError(looked)}`);
    const type = nodeTypeOfMode(a.status.mode);
    const other = nodeTypeOfMode(b.status.mode);
    if (type !== other) return this.#tell(path, `type ${type} and ${other}`);
    this.#compareStatus(path, type, [a, b]);
    if (this.#options.links && type !== "dir") this.#compareLinks(path, a, b);
    if (this.#options.attributes) this.#compareAttributes(path, name, [a, b]);
    if (type === "symlink") {
      const targets = [readLinkAt(a.handle, name), readLinkAt(b.handle, name)];
      if (targets[0] !== targets[1]) this.#tell(path, `leads to ${JSON.stringify(targets[0])} and ${JSON.stringify(targets[1])}`);
    } else if (type === "file" || type === "dir") this.#compareInside(path, name, { type, sides: [a, b] });
  }

  #compareStatus(path: ByteString, type: string, [a, b]: readonly [Side, Side]): void {
    const { owners, modes, times } = this.#options;
    const show = (status: FileStatus): string => {
      const parts: string[] = [];
      if (owners) parts.push(`owner ${status.uid}:${status.gid}`);
      if (modes && type !== "symlink") parts.push(`mode ${(status.mode & 0o7777).toString(8)}`);
      if (times) parts.push(`mtime ${status.mtimeSeconds}.${String(status.mtimeNanos).padStart(9, "0")}`);
      if (type === "file") parts.push(`${status.sizeBytes} bytes`);
      if (type === "dev" || type === "chardev") parts.push(`device ${status.device}`);
      return parts.join(", ");
    };
    if (show(a.status) !== show(b.status)) this.#tell(path, `${show(a.status)} and ${show(b.status)}`);
  }

  #compareLinks(path: ByteString, a: Side, b: Side): void {
    const first = (side: Side): ByteString => {
      if (side.status.links < 2) return path;
      const key = `${side.status.fileSystem}:${side.status.inode}`;
      const found = side.inodes.get(key) ?? path;
      side.inodes.set(key, found);
      return found;
    };
    const [one, other] = [first(a), first(b)];
    if (one !== other) this.#tell(path, `another name of ${toUtf8OrEscaped(one)} and of ${toUtf8OrEscaped(other)}`);
  }

  #compareAttributes(path: ByteString, name: ByteString, [a, b]: readonly [Side, Side]): void {
    const read = (side: Side): string => {
      const file = pathBelow(side.handle, name);
      const names = listAttributes(file);
      if (typeof names === "number") return describeError(names);
      const values = names
        .filter((attribute) => attribute !== "security.selinux")
        .map((attribute) => {
          const value = readAttribute(file, attribute);
          return `${toUtf8OrEscaped(attribute)}=${typeof value === "number" ? describeError(value) : value.toString("base64")}`;
        });
      return values.join(" ");
    };
    const [one, other] = [read(a), read(b)];
    if (one !== other) this.#tell(path, `attributes [${one}] and [${other}]`);
  }

  #compareInside(path: ByteString, name: ByteString, entry: { type: "file" | "dir"; sides: readonly [Side, Side] }): void {
    const [a, b] = entry.sides;
    const flags = entry.type === "dir" ? folderFlags : openFlags.readOnly | openFlags.noFollow | openFlags.nonBlock;
    const handles = [openAt(a.handle, name, flags), openAt(b.handle, name, flags)] as const;
    const sides = [this.#side(0, handles[0]), this.#side(1, handles[1])] as const;
    if (handles[0] < 0 || handles[1] < 0) this.#tell(path, `cannot open: ${describeError(Math.min(...handles))}`);
    else if (entry.type === "dir") this.#compareFolders(path, ...sides);
    else {
      this.#compareContent(path, ...sides);
      if (this.#options.holes) this.#compareHoles(path, ...sides);
    }
    for (const handle of handles) if (handle >= 0) closeHandle(handle);
  }

  #compareContent(path: ByteString, a: Side, b: Side): void {
    for (let offset = 0; ; ) {
      const got = readHandleAt(a.handle, a.data, offset);
      const gotOther = readHandleAt(b.handle, b.data, offset);
      if (got < 0 || gotOther < 0) return this.#tell(path, `cannot read: ${describeError(Math.min(got, gotOther))}`);
      const length = Math.min(got, gotOther);
      if (a.data.compare(b.data, 0, length, 0, length) !== 0) {
        const at = a.data.subarray(0, length).findIndex((byte, index) => byte !== b.data[index]);
        return this.#tell(path, `content differs at byte ${offset + at}`);
      }
      if (length === 0) {
        if (got !== gotOther) this.#tell(path, `one ends at byte ${offset}`);
        return;
      }
      offset += length;
    }
  }

  #compareHoles(path: ByteString, a: Side, b: Side): void {
    const [one, other] = [findData(a.handle), findData(b.handle)];
    if (one !== other) this.#tell(path, `data at ${one} and at ${other}`);
  }
}

/** Where a file has data, as `from-to` pairs. */
function findData(handle: number): string {
  const spans: string[] = [];
  for (let at = seekData(handle, 0); at >= 0; ) {
    const end = seekHole(handle, at);
    spans.push(`${at}-${end}`);
    at = end < 0 ? end : seekData(handle, end);
  }
  return spans.join(" ");
}
