/**
 * The file system calls that Node lacks or makes slow: entries by raw byte names relative to an open directory, statx, extended attributes,
 * holes, special files, and paths that cannot leave a folder. Linux on x64 and arm64, glibc or musl.
 *
 * Names are `ByteString`s (one character per raw byte), so any name the kernel allows goes through unchanged. Each function answers a
 * non-negative result, or the negated errno; nothing throws but `PlatformUnsupported` on other systems. Declarations: the manual pages of section 2, `linux/stat.h`, `linux/openat2.h`.
 */
import { Buffer } from "node:buffer";
import { constants as osConstants } from "node:os";
import { Failure } from "@granary/base/errors";
import { bindSymbol, lastErrno, type NativeFunction, readCString } from "./symbols.ts";
import { enterHandle, strikeHandle } from "./thread-ledger.ts";

/** Error numbers of this system by name (ENOENT, EACCES …). */
export const errno: Readonly<Record<string, number>> = osConstants.errno;

const arm = process.arch === "arm64";
/** Flags of `open`; those that differ between architectures are chosen here. */
export const openFlags: Readonly<
  Record<
    | "readOnly"
    | "writeOnly"
    | "create"
    | "exclusive"
    | "truncate"
    | "nonBlock"
    | "directory"
    | "noFollow"
    | "closeOnExec"
    | "path"
    | "noAtime",
    number
  >
> = {
  readOnly: 0,
  writeOnly: 1,
  create: 0o100,
  exclusive: 0o200,
  truncate: 0o1000,
  nonBlock: 0o4000,
  directory: arm ? 0o40000 : 0o200000,
  noFollow: arm ? 0o100000 : 0o400000,
  closeOnExec: 0o2000000,
  path: 0o10000000,
  noAtime: 0o1000000,
};

/** The directory handle that means the working directory. */
export const workingDirectory = -100;
const atSymlinkNoFollow = 0x100;
const atEmptyPath = 0x1000;
const duplicateCloseOnExec = 1030; // F_DUPFD_CLOEXEC of linux/fcntl.h
const openat2Number = 437; // the same on every architecture

// Scratch for C strings; two, for calls that take two names. Longer names get memory of their own.
const scratch = [Buffer.alloc(8192), Buffer.alloc(8192)] as const;
function cString(text: string, slot: 0 | 1 = 0): Uint8Array {
  const target = text.length < 8191 ? scratch[slot] : Buffer.alloc(text.length + 1);
  target.latin1Write(text, 0, text.length);
  target[text.length] = 0;
  return target;
}

// Bound once per thread, at the first call. Sizes are int64, everything else int.
const bindAll = () => {
  const functions = {
    openat: bindSymbol("openat", "int", ["int", "void *", "int", "uint"]),
    syscall5: bindSymbol("syscall", "int64", ["int64", "int64", "void *", "void *", "int64", "int64"]),
    statx: bindSymbol("statx", "int", ["int", "void *", "int", "uint", "void *"]),
    getdents: bindSymbol("getdents64", "int64", ["int", "void *", "size_t"]),
    readCall: bindSymbol("read", "int64", ["int", "void *", "size_t"]),
    preadCall: bindSymbol("pread", "int64", ["int", "void *", "size_t", "int64"]),
    pwriteCall: bindSymbol("pwrite", "int64", ["int", "void *", "size_t", "int64"]),
    fcntlCall: bindSymbol("fcntl", "int", ["int", "int", "int"]),
    pollCall: bindSymbol("poll", "int", ["void *", "uint64", "int"]),
    closeCall: bindSymbol("close", "int", ["int"]),
    lseek: bindSymbol("lseek", "int64", ["int", "int64", "int"]),
    readlinkat: bindSymbol("readlinkat", "int64", ["int", "void *", "void *", "size_t"]),
    mkdirat: bindSymbol("mkdirat", "int", ["int", "void *", "uint"]),
    symlinkat: bindSymbol("symlinkat", "int", ["void *", "int", "void *"]),
    mknodat: bindSymbol("mknodat", "int", ["int", "void *", "uint", "uint64"]),
    linkat: bindSymbol("linkat", "int", ["int", "void *", "int", "void *", "int"]),
    unlinkat: bindSymbol("unlinkat", "int", ["int", "void *", "int"]),
    renameat: bindSymbol("renameat", "int", ["int", "void *", "int", "void *"]),
    fchownat: bindSymbol("fchownat", "int", ["int", "void *", "uint", "uint", "int"]),
    fchmod: bindSymbol("fchmod", "int", ["int", "uint"]),
    fchmodat: bindSymbol("fchmodat", "int", ["int", "void *", "uint", "int"]),
    utimensat: bindSymbol("utimensat", "int", ["int", "void *", "void *", "int"]),
    futimens: bindSymbol("futimens", "int", ["int", "void *"]),
    ftruncate: bindSymbol("ftruncate", "int", ["int", "int64"]),
    fsyncCall: bindSymbol("fsync", "int", ["int"]),
    llistxattr: bindSymbol("llistxattr", "int64", ["void *", "void *", "size_t"]),
    lgetxattr: bindSymbol("lgetxattr", "int64", ["void *", "void *", "void *", "size_t"]),
    lsetxattr: bindSymbol("lsetxattr", "int", ["void *", "void *", "void *", "size_t", "int"]),
    getpwuidR: bindSymbol("getpwuid_r", "int", ["uint", "void *", "void *", "size_t", "void *"]),
    getgrgidR: bindSymbol("getgrgid_r", "int", ["uint", "void *", "void *", "size_t", "void *"]),
    lremovexattr: bindSymbol("lremovexattr", "int", ["void *", "void *"]),
  } satisfies Record<string, NativeFunction>;
  return functions;
};
let functions: ReturnType<typeof bindAll> | undefined;
function libc(): NonNullable<typeof functions> {
  functions ??= bindSupported();
  return functions;
}

/** @throws PlatformUnsupported where the declarations above do not hold */
function bindSupported(): ReturnType<typeof bindAll> {
  const { platform, arch } = process;
  if (platform === "linux" && (arch === "x64" || arch === "arm64")) return bindAll();
  throw new Failure("PlatformUnsupported", `Cannot work on the file system of ${platform} on ${arch}: Linux on x64 or arm64 is needed`, {
    details: { platform, arch },
  });
}

/** The result of a call as a number, -1 replaced by the negated errno. */
function done(result: unknown): number {
  const answer = Number(result);
  // A failure is never 0, which would be a handle, or success.
  return answer >= 0 ? answer : -(lastErrno() || (errno["EIO"] ?? 5));
}

/** Opens `name` below a directory handle. @returns a handle to close, or -errno */
export function openAt(directory: number, name: string, flags: number, mode = 0): number {
  return enter(done(libc().openat(directory, cString(name), flags | openFlags.closeOnExec, mode)));
}

const openHow = Buffer.alloc(24);
const resolveNoMagicLinks = 0x02;
const resolveNoSymlinks = 0x04;
const resolveBeneath = 0x08;

/**
 * Opens a relative path that may not leave the directory nor pass any symbolic link (openat2, RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS).
 *
 * @returns a handle to close, or -errno: -ELOOP for a link on the way, -EXDEV for an escape, -ENOSYS before Linux 5.6
 */
export function openBeneath(directory: number, path: string, flags: number, mode = 0): number {
  openHow.writeBigUInt64LE(BigInt(flags | openFlags.closeOnExec), 0);
  openHow.writeBigUInt64LE(BigInt(mode), 8);
  openHow.writeBigUInt64LE(BigInt(resolveNoMagicLinks | resolveNoSymlinks | resolveBeneath), 16);
  return enter(done(libc().syscall5(openat2Number, directory, cString(path), openHow, openHow.length, 0)));
}

function enter(handle: number): number {
  enterHandle(handle);
  return handle;
}

/** Makes a second handle of the same open file. @returns a handle to close or to surrender, or -errno */
export function duplicateHandle(handle: number): number {
  return enter(done(libc().fcntlCall(handle, duplicateCloseOnExec, 0)));
}

/** Gives up a handle that is being passed to another thread, which calls {@link adoptHandle} and closes it. */
export function surrenderHandle(handle: number): void {
  strikeHandle(handle);
}

/** Takes over a handle that another thread surrendered. */
export function adoptHandle(handle: number): void {
  enterHandle(handle);
}

/** Closes a handle. @returns 0 or -errno; the handle is gone in either case */
export function closeHandle(handle: number): number {
  strikeHandle(handle);
  return done(libc().closeCall(handle));
}

/** What `statAt` found. Reused between calls: copy what must last. Integers up to 2^53; inode and device numbers are exact. */
export class FileStatus {
  readonly #raw: Buffer = Buffer.alloc(256);
  get raw(): Buffer {
    return this.#raw;
  }
  /** st_mode: type and permission bits. */
  get mode(): number {
    return this.#raw.readUInt16LE(28);
  }
  get links(): number {
    return this.#raw.readUInt32LE(16);
  }
  get uid(): number {
    return this.#raw.readUInt32LE(20);
  }
  get gid(): number {
    return this.#raw.readUInt32LE(24);
  }
  get inode(): bigint {
    return this.#raw.readBigUInt64LE(32);
  }
  get sizeBytes(): number {
    return this.#long(40);
  }
  /** Allocated space in units of 512 bytes. */
  get blocks(): number {
    return this.#long(48);
  }
  get atimeSeconds(): number {
    return this.#long(64);
  }
  get atimeNanos(): number {
    return this.#raw.readUInt32LE(72);
  }
  get ctimeSeconds(): number {
    return this.#long(96);
  }
  get ctimeNanos(): number {
    return this.#raw.readUInt32LE(104);
  }
  get mtimeSeconds(): number {
    return this.#long(112);
  }
  get mtimeNanos(): number {
    return this.#raw.readUInt32LE(120);
  }
  /** The device a special file stands for, as glibc's dev_t. */
  get device(): bigint {
    return makeDevice(this.#raw.readUInt32LE(128), this.#raw.readUInt32LE(132));
  }
  /** The file system the file is on, as glibc's dev_t. */
  get fileSystem(): bigint {
    return makeDevice(this.#raw.readUInt32LE(136), this.#raw.readUInt32LE(140));
  }
  #long(at: number): number {
    return this.#raw.readInt32LE(at + 4) * 0x1_0000_0000 + this.#raw.readUInt32LE(at);
  }
}

/** dev_t from its halves (glibc `sys/sysmacros.h`, gnu_dev_makedev). */
function makeDevice(major: number, minor: number): bigint {
  const ma = BigInt(major);
  const mi = BigInt(minor);
  return ((ma & 0xfff_ff000n) << 32n) | ((ma & 0xfffn) << 8n) | ((mi & 0xffff_ff00n) << 12n) | (mi & 0xffn);
}

const basicStats = 0x7ff;

/** Looks at `name` below a directory handle, not following a symbolic link. @returns 0 or -errno */
export function statAt(directory: number, name: string, target: FileStatus): number {
  return done(libc().statx(directory, cString(name), atSymlinkNoFollow, basicStats, target.raw));
}

/** Looks at an open file. @returns 0 or -errno */
export function statHandle(handle: number, target: FileStatus): number {
  return done(libc().statx(handle, cString(""), atEmptyPath, basicStats, target.raw));
}

const direntBuffer = Buffer.alloc(65536);

/**
 * Appends the names in an open directory to `names`, in the file system's order, without `.` and `..`.
 *
 * @param types when given, gets the d_type of each name (4 directory, 8 file, 10 link, 0 unknown)
 * @returns 0 or -errno
 */
export function readNames(directory: number, names: string[], types?: number[]): number {
  for (;;) {
    const got = done(libc().getdents(directory, direntBuffer, direntBuffer.length));
    if (got <= 0) return got;
    for (let at = 0; at < got; ) {
      const recordBytes = direntBuffer.readUInt16LE(at + 16);
      let end = at + 19;
      while (direntBuffer[end] !== 0) end++;
      const name = direntBuffer.latin1Slice(at + 19, end);
      if (name !== "." && name !== "..") {
        names.push(name);
        types?.push(direntBuffer[at + 18] ?? 0);
      }
      at += recordBytes;
    }
  }
}

const pollRecord = Buffer.alloc(8);
const pollIn = 1;

/** Waits until a read of a pipe, socket or terminal would not block: there is something, or its end. @returns 1, 0 when the time is up, or -errno */
export function waitReadable(handle: number, timeoutMs: number): number {
  pollRecord.writeInt32LE(handle, 0); // struct pollfd of poll.h: fd, events, revents
  pollRecord.writeInt16LE(pollIn, 4);
  return done(libc().pollCall(pollRecord, 1, timeoutMs));
}

/** Reads from the current position into all of `target`. @returns bytes read, 0 at the end, or -errno */
export function readHandle(handle: number, target: Uint8Array): number {
  return done(libc().readCall(handle, target, target.length));
}

/** Reads at a position. @returns bytes read, 0 at the end, or -errno */
export function readHandleAt(handle: number, target: Uint8Array, offsetBytes: number): number {
  return done(libc().preadCall(handle, target, target.length, offsetBytes));
}

/** Writes all of `data` at a position. @returns 0 or -errno */
export function writeHandleAt(handle: number, data: Uint8Array, offsetBytes: number): number {
  for (let from = 0; from < data.length; ) {
    const put = done(libc().pwriteCall(handle, from === 0 ? data : data.subarray(from), data.length - from, offsetBytes + from));
    if (put < 0) return put;
    from += put;
  }
  return 0;
}

/** Where data begins at or after an offset. @returns the offset; -ENXIO: only a hole is left; -EINVAL: not supported there */
export function seekData(handle: number, offsetBytes: number): number {
  return done(libc().lseek(handle, offsetBytes, 3));
}

/** Where the next hole begins at or after an offset (the end of the file counts as one). @returns the offset or -errno */
export function seekHole(handle: number, offsetBytes: number): number {
  return done(libc().lseek(handle, offsetBytes, 4));
}

/** Sets the read position. @returns the offset or -errno */
export function seekTo(handle: number, offsetBytes: number): number {
  return done(libc().lseek(handle, offsetBytes, 0));
}

const linkBuffer = Buffer.alloc(65536);

/** The target of a symbolic link as raw bytes, or -errno. */
export function readLinkAt(directory: number, name: string): string | number {
  const got = done(libc().readlinkat(directory, cString(name), linkBuffer, linkBuffer.length));
  return got < 0 ? got : linkBuffer.latin1Slice(0, got);
}

/** @returns 0 or -errno */
export function makeDirectoryAt(directory: number, name: string, mode: number): number {
  return done(libc().mkdirat(directory, cString(name), mode));
}

/** @returns 0 or -errno */
export function makeLinkAt(directory: number, name: string, target: string): number {
  return done(libc().symlinkat(cString(target, 1), directory, cString(name)));
}

/** Makes a fifo, socket or device; `mode` carries the type. @returns 0 or -errno */
export function makeNodeAt(directory: number, name: string, node: { mode: number; device: bigint }): number {
  return done(libc().mknodat(directory, cString(name), node.mode, node.device));
}

/** A file by its directory handle and name. */
export interface Place {
  readonly directory: number;
  readonly name: string;
}

/** Gives an existing file a second name; does not follow links. @returns 0 or -errno */
export function linkFile(from: Place, to: Place): number {
  return done(libc().linkat(from.directory, cString(from.name), to.directory, cString(to.name, 1), 0));
}

/** Removes a name (an empty directory with `isDirectory`). @returns 0 or -errno */
export function unlinkAt(directory: number, name: string, isDirectory = false): number {
  return done(libc().unlinkat(directory, cString(name), isDirectory ? 0x200 : 0));
}

/** @returns 0 or -errno */
export function renameFile(from: Place, to: Place): number {
  return done(libc().renameat(from.directory, cString(from.name), to.directory, cString(to.name, 1)));
}

/** Sets owner and group without following a link; an empty name means the handle itself. @returns 0 or -errno */
export function chownAt(directory: number, name: string, owner: { uid: number; gid: number }): number {
  return done(libc().fchownat(directory, cString(name), owner.uid, owner.gid, atSymlinkNoFollow | (name === "" ? atEmptyPath : 0)));
}

/** Sets the permission bits of an open file. @returns 0 or -errno */
export function chmodHandle(handle: number, mode: number): number {
  return done(libc().fchmod(handle, mode));
}

/** Sets the permission bits of a name that is known not to be a link (fchmodat follows). @returns 0 or -errno */
export function chmodAt(directory: number, name: string, mode: number): number {
  return done(libc().fchmodat(directory, cString(name), mode, 0));
}

const timesBuffer = Buffer.alloc(32);

/** Access and modification time: whole seconds since 1970, rounded down, and nanoseconds above them. */
export interface FileTimes {
  readonly atimeSeconds: number;
  readonly atimeNanos: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
}

/**
 * Sets access and modification time without following a link; an empty name means the handle itself, which must not be a path handle.
 *
 * @returns 0 or -errno
 */
export function setTimesAt(directory: number, name: string, times: FileTimes): number {
  writeTimespec(0, times.atimeSeconds, times.atimeNanos);
  writeTimespec(16, times.mtimeSeconds, times.mtimeNanos);
  // glibc refuses the null name by which the kernel would know the handle itself
  if (name === "") return done(libc().futimens(directory, timesBuffer));
  return done(libc().utimensat(directory, cString(name), timesBuffer, atSymlinkNoFollow));
}

function writeTimespec(at: number, seconds: number, nanos: number): void {
  const high = Math.floor(seconds / 0x1_0000_0000);
  timesBuffer.writeUInt32LE(seconds - high * 0x1_0000_0000, at);
  timesBuffer.writeInt32LE(high, at + 4);
  timesBuffer.writeUInt32LE(nanos, at + 8); // the upper half stays zero
}

/** Sets a file's length; what is added is a hole. @returns 0 or -errno */
export function truncateHandle(handle: number, sizeBytes: number): number {
  return done(libc().ftruncate(handle, sizeBytes));
}

/** @returns 0 once the file's data and metadata are on disk, or -errno */
export function syncHandle(handle: number): number {
  return done(libc().fsyncCall(handle));
}

const attributeNames = Buffer.alloc(65536);
const attributeValue = Buffer.alloc(65536);

/**
 * A short path to `name` below a directory handle, for the attribute calls, which know no handles: it never exceeds PATH_MAX, and the last
 * component is not followed. Slower than a plain path (the kernel resolves /proc), so use it where a path may be too long or must be safe.
 */
export function pathBelow(directory: number, name: string): string {
  return `/proc/self/fd/${directory}/${name === "" ? "." : name}`;
}

/** Names of the extended attributes of a file, a link itself included; sorted. Empty where unsupported; -errno otherwise. */
export function listAttributes(path: string): readonly string[] | number {
  const got = done(libc().llistxattr(cString(path), attributeNames, attributeNames.length));
  if (got === 0 || got === -(errno["EOPNOTSUPP"] ?? 95)) return noAttributes;
  if (got < 0) return got;
  return attributeNames
    .latin1Slice(0, got - 1)
    .split("\0")
    .sort();
}
const noAttributes: readonly string[] = [];

/** Value of an extended attribute (up to 64 KiB, the kernel's limit), or -errno. */
export function readAttribute(path: string, attribute: string): Buffer | number {
  const got = done(libc().lgetxattr(cString(path), cString(attribute, 1), attributeValue, attributeValue.length));
  return got < 0 ? got : Buffer.from(attributeValue.subarray(0, got));
}

/** @returns 0 or -errno */
export function writeAttribute(path: string, attribute: string, value: Uint8Array): number {
  return done(libc().lsetxattr(cString(path), cString(attribute, 1), value, value.length, 0));
}

/** @returns 0 or -errno */
export function removeAttribute(path: string, attribute: string): number {
  return done(libc().lremovexattr(cString(path), cString(attribute, 1)));
}

const userNames = new Map<number, string>();
const groupNames = new Map<number, string>();

// A struct passwd or group, the text it points to, and the pointer that says whether there is one. The calls with _r are for several threads.
const record = Buffer.alloc(256);
const found = Buffer.alloc(8);
let recordText = Buffer.alloc(4096);
const largestRecord = 64 * 1024 * 1024; // a group with very many members

function findName(find: NativeFunction, id: number): string {
  for (;;) {
    const status = Number(find(id, record, recordText, recordText.length, found));
    if (status === errno["ERANGE"] && recordText.length < largestRecord) recordText = Buffer.alloc(recordText.length * 4);
    else return status === 0 && found.readBigUInt64LE() !== 0n ? readCString(record) : "";
  }
}

/** The name of a user, from wherever the system looks it up; empty when there is none. Remembered per thread. */
export function findUserName(uid: number): string {
  let name = userNames.get(uid);
  if (name === undefined) {
    name = findName(libc().getpwuidR, uid);
    userNames.set(uid, name);
  }
  return name;
}

/** The name of a group; empty when there is none. Remembered per thread. */
export function findGroupName(gid: number): string {
  let name = groupNames.get(gid);
  if (name === undefined) {
    name = findName(libc().getgrgidR, gid);
    groupNames.set(gid, name);
  }
  return name;
}
