/** What the file system says of an entry, as the head of its node: the fields that restic writes for each type. */
import { type ByteString, findUtf8, toUtf8OrEscaped } from "../format/byte-string.ts";
import { goModeOf, nodeTypeOfMode } from "../format/mode.ts";
import type { ExtendedAttribute, NodeHead } from "../format/node.ts";
import { errno, type FileStatus, findGroupName, findUserName, listAttributes, pathBelow, readAttribute } from "../native/libc.ts";

/** Longest path given to calls that take whole paths: PATH_MAX with room for a name. */
export const longestPath = 4000;
const enoent = errno["ENOENT"] ?? 2;
const enodata = errno["ENODATA"] ?? 61;
const noAttributes: readonly ExtendedAttribute[] = [];

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** An entry, by its name below an open directory and by its path. */
export interface EntryPlace {
  readonly directory: number;
  readonly name: ByteString;
  readonly path: ByteString;
}

export interface HeadReaderOptions {
  /** Else the access time is that of the modification, so that reading a file does not change its node. */
  readonly withAtime: boolean;
  /** Told of attributes that cannot be read. @param status a negated errno */
  readonly onTrouble: (path: ByteString, status: number, what: string) => void;
}

export class HeadReader {
  readonly #options: HeadReaderOptions;
  readonly #head: Writable<NodeHead> = emptyHead();

  constructor(options: HeadReaderOptions) {
    this.#options = options;
  }

  /** The head for an entry that was looked at, without a link's target. Valid until the next call. */
  read(status: FileStatus, place: EntryPlace): NodeHead {
    const head = this.#head;
    const { mode } = status;
    head.name = place.name;
    head.type = nodeTypeOfMode(mode);
    head.mode = goModeOf(mode);
    head.mtimeSeconds = status.mtimeSeconds;
    head.mtimeNanos = status.mtimeNanos;
    head.atimeSeconds = this.#options.withAtime ? status.atimeSeconds : head.mtimeSeconds;
    head.atimeNanos = this.#options.withAtime ? status.atimeNanos : head.mtimeNanos;
    head.ctimeSeconds = status.ctimeSeconds;
    head.ctimeNanos = status.ctimeNanos;
    head.uid = status.uid;
    head.gid = status.gid;
    head.user = findUserName(head.uid);
    head.group = findGroupName(head.gid);
    head.inode = toUint64(status.inode);
    head.links = head.type === "dir" || head.type === "fifo" ? 0 : status.links;
    // Only hard links need it, and it changes when a disk gets another number: then every tree would change.
    head.deviceId = head.links > 1 ? toUint64(status.fileSystem) : 0;
    head.size = head.type === "file" ? status.sizeBytes : 0;
    head.device = head.type === "dev" || head.type === "chardev" ? toUint64(status.device) : 0;
    head.extendedAttributes = this.#readAttributes(place);
    return head;
  }

  #readAttributes({ directory, name, path }: EntryPlace): readonly ExtendedAttribute[] {
    let place = path.length < longestPath ? path : pathBelow(directory, name);
    let names = listAttributes(place);
    if (names === -enoent) {
      // Perhaps only the path has changed: a directory above was renamed while the backup is in it.
      place = pathBelow(directory, name);
      names = listAttributes(place);
    }
    if (typeof names === "number") {
      if (names !== -enoent) this.#options.onTrouble(path, names, "list the extended attributes");
      return noAttributes;
    }
    if (names.length === 0) return noAttributes;
    const attributes: ExtendedAttribute[] = [];
    for (const attribute of names) {
      const value = readAttribute(place, attribute);
      if (typeof value !== "number") attributes.push({ name: findUtf8(attribute) ?? attribute, value });
      else if (value !== -enodata) this.#options.onTrouble(path, value, `read the extended attribute "${toUtf8OrEscaped(attribute)}"`);
    }
    return attributes;
  }
}

/** The name of an error number, for messages. */
export function describeErrno(number: number): string {
  for (const [name, value] of Object.entries(errno)) if (value === number) return name;
  return `error ${number}`;
}

function toUint64(value: bigint): number | bigint {
  return value <= 0x1f_ffff_ffff_ffffn ? Number(value) : value;
}

/** A head with every field zero or empty. */
export function emptyHead(): Writable<NodeHead> {
  return {
    name: "",
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
    extendedAttributes: noAttributes,
    genericAttributes: "",
    device: 0,
  };
}
