/**
 * Goes through directories in a worker: looks at each entry, compares it with the parent snapshot, has changed files saved, and writes the
 * nodes. A directory whose entries are all done becomes a tree blob at once.
 *
 * Names are raw bytes and every look-up is relative to an open directory, so a path of any length and any byte works, and a directory or file
 * that is swapped for another meanwhile is not followed; what is given to another worker is given open. One level a directory on the way down
 * is open; nothing recurses.
 */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { sha256Into } from "../crypto/hash.ts";
import { ByteSink } from "../format/byte-sink.ts";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import { readHex } from "../format/ids.ts";
import { nodeTypeOfMode } from "../format/mode.ts";
import { type NodeHead, writeNodeContent, writeNodeHead, writeNodeTail } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import {
  adoptHandle,
  closeHandle,
  duplicateHandle,
  errno,
  FileStatus,
  openAt,
  openFlags,
  readLinkAt,
  readNames,
  statAt,
  statHandle,
  surrenderHandle,
  workingDirectory,
} from "../native/libc.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import type { BlobReader } from "../repository/blob-reader.ts";
import { isFileDamage } from "../repository/files.ts";
import type { PackBuilder } from "../repository/pack-builder.ts";
import { compileExcluder, type ExcludeRules } from "../selection/exclude.ts";
import { type Counters, counter } from "./counters.ts";
import type { FileSaver, SharedExtent } from "./file-saver.ts";
import { holdsMarker } from "./markers.ts";
import type { BackupTrouble, Destination, ExtentTask, Frame, PendingDirectory, SliceTask, StreamTask } from "./messages.ts";
import { describeErrno, emptyHead, HeadReader, longestPath } from "./head-reader.ts";
import { ParentNodes } from "./parent-nodes.ts";

const treePrefix = '{"nodes":[';
const treeSuffix = "]}\n";
const fewEntries = 64;
const enoent = errno["ENOENT"] ?? 2;

/** A directory, or part of one, being gone through. */
interface Level {
  readonly path: ByteString;
  readonly handle: number;
  readonly names: readonly ByteString[];
  readonly directories: ReadonlySet<ByteString>;
  readonly parent: ParentNodes | undefined;
  readonly fileSystem: bigint;
  /** The directory that this level becomes; `undefined` for a slice, whose nodes go to `into`. */
  readonly directory: PendingDirectory | undefined;
  readonly into: Destination | undefined;
  next: number;
  end: number;
  sink: ByteSink;
  /** What lies before and after the sink's content, once there are holes. */
  readonly parts: (Uint8Array | number)[];
  readonly tail: number[];
  frame: number;
}

export interface ScannerOptions {
  readonly worker: number;
  readonly index: BlobIndex;
  readonly reader: BlobReader;
  readonly trees: PackBuilder;
  readonly files: FileSaver;
  readonly counters: Counters;
  readonly hunger: Int32Array;
  readonly excludes: ExcludeRules;
  readonly targets: readonly ByteString[];
  readonly withAtime: boolean;
  readonly ignoreCtime: boolean;
  readonly ignoreInode: boolean;
  readonly offload: (task: SliceTask | ExtentTask) => void;
  readonly postFrame: (frame: Frame) => void;
  readonly postDone: (into: Destination, nodes: Uint8Array) => void;
  readonly report: (trouble: BackupTrouble) => void;
}

export class Scanner {
  readonly #options: ScannerOptions;
  readonly #isExcluded: (path: ByteString, isDirectory: boolean) => boolean;
  readonly #levels: Level[] = [];
  readonly #spareSinks: ByteSink[] = [];
  readonly #status = new FileStatus();
  readonly #heads: HeadReader;
  readonly #id = Buffer.alloc(32);
  readonly #targets: ReadonlySet<ByteString>;
  #frames = 0;
  #holes = 0;
  /** The file being saved, and the frame of its content once some of it was given away. */
  #sharing: ByteString = "";
  #sharedFile = 0;

  constructor(options: ScannerOptions) {
    this.#options = options;
    this.#isExcluded = compileExcluder(options.excludes);
    this.#targets = new Set(options.targets);
    this.#heads = new HeadReader({ withAtime: options.withAtime, onTrouble: (path, status, what) => this.#trouble(path, status, what) });
  }

  /** Goes through a slice and all that lies below; its result is posted, or its frame. */
  runSlice(task: SliceTask): void {
    if (task.handle !== undefined) adoptHandle(task.handle);
    const handle = task.handle ?? openDirectory(task.path);
    if (handle < 0) {
      this.#trouble(task.path, handle, "open");
      this.#options.postDone(task.into, new Uint8Array(0));
      return;
    }
    const parent = task.parentNodes === undefined ? undefined : new ParentNodes(task.parentNodes);
    this.#push({
      path: task.path,
      handle,
      names: task.names,
      directories: new Set(task.directories),
      parent,
      fileSystem: task.fileSystem,
      directory: undefined,
      into: task.into,
    });
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      if (level.next >= level.end) {
        this.#close(level);
        continue;
      }
      if ((this.#options.hunger[0] ?? 0) > 0) this.feed(false);
      this.#saveEntry(level, level.names[level.next++] ?? "");
    }
  }

  /** Saves part of a large file for another worker. */
  saveExtent(task: ExtentTask): Uint8Array {
    adoptHandle(task.handle);
    const saved = this.#options.files.saveExtent(task);
    closeHandle(task.handle);
    if (typeof saved === "number") {
      this.#trouble(task.path, saved, "read");
      return new Uint8Array(0);
    }
    if (saved.changed) this.#reportChange(task.path);
    return saved.part;
  }

  /** Whether another worker could do with some chunks of the file being saved. */
  isExtentWanted(): boolean {
    return Atomics.load(this.#options.hunger, 0) >= 0;
  }

  /** Gives chunks of the file being saved away. @returns the hole for their ids */
  shareExtent(extent: SharedExtent): number {
    if (this.#sharedFile === 0) this.#sharedFile = this.#newFrame();
    const hole = ++this.#holes;
    Atomics.sub(this.#options.hunger, 0, 1);
    const into = { frame: this.#sharedFile, hole };
    surrenderHandle(extent.handle);
    this.#options.offload({ kind: "extent", into, path: this.#sharing, ...extent, status: Uint8Array.from(this.#status.raw) });
    return hole;
  }

  /** Stores a tree whose nodes came from several workers. @returns the node of its directory, or the bare id when that has no head */
  saveTree(tree: Uint8Array, directory: PendingDirectory): Uint8Array {
    this.#storeTree(tree, directory.parentTree);
    if (directory.head.length === 0) return Buffer.from(this.#id);
    const sink = new ByteSink(directory.head.length + 128);
    sink.writeBytes(directory.head);
    writeNodeContent(sink, null);
    writeNodeTail(sink, this.#id, "");
    return sink.copy();
  }

  /** Saves a stream as one file. @returns its node */
  saveStream(task: StreamTask): Uint8Array {
    const sizeBytes = this.#options.files.saveStream(task.handle);
    if (sizeBytes < 0) {
      const name = toUtf8OrEscaped(task.name);
      throw new Failure("SourceUnreadable", `Cannot read the stream for "${name}" to its end: ${describeErrno(-sizeBytes)}`);
    }
    const times = { mtimeSeconds: task.timeSeconds, atimeSeconds: task.timeSeconds, ctimeSeconds: task.timeSeconds };
    const head: NodeHead = { ...emptyHead(), ...times, name: task.name, type: "file", mode: 0o644, size: sizeBytes, links: 1 };
    const sink = new ByteSink();
    writeNodeHead(sink, head);
    writeNodeContent(sink, this.#options.files.content);
    writeNodeTail(sink, null, "");
    this.#options.counters.add(counter.filesNew, 1);
    return sink.copy();
  }

  /**
   * Gives work to an idle worker: the later half of the outermost level that has some. It keeps something to do: who gave his only entry away
   * would be idle next, and get it back.
   *
   * @param isBusy in the midst of an entry: then the last few files may go, and all of the innermost level
   */
  feed(isBusy: boolean): void {
    if ((this.#options.hunger[0] ?? 0) <= 0) return;
    const innermost = this.#levels.at(-1);
    for (const level of this.#levels) {
      const left = level.end - level.next;
      const kept = level === innermost && !isBusy ? 1 : 0;
      if (left <= kept || (!isBusy && left < fewEntries && !hasDirectory(level))) continue;
      if (Atomics.sub(this.#options.hunger, 0, 1) <= 0) {
        Atomics.add(this.#options.hunger, 0, 1); // another worker was quicker
        return;
      }
      const middle = level.next + (left >>> 1);
      const handle = duplicateHandle(level.handle);
      if (handle < 0) {
        Atomics.add(this.#options.hunger, 0, 1); // too many are open already: no more at a time
        return;
      }
      const names = level.names.slice(middle, level.end);
      const parentNodes = level.parent?.slice(names[0] ?? "", names.at(-1) ?? "");
      level.end = middle;
      const hole = this.#openHole(level);
      level.tail.unshift(hole);
      surrenderHandle(handle);
      this.#options.offload({
        kind: "slice",
        into: { frame: level.frame, hole },
        path: level.path,
        handle,
        names,
        directories: names.filter((name) => level.directories.has(name)),
        ...(parentNodes === undefined ? {} : { parentNodes }),
        fileSystem: level.fileSystem,
      });
      return;
    }
  }

  #push(start: Omit<Level, "next" | "end" | "sink" | "parts" | "tail" | "frame">): void {
    const sink = this.#spareSinks.pop() ?? new ByteSink(8192);
    sink.reset();
    sink.writeLatin1(treePrefix);
    this.#levels.push({ ...start, next: 0, end: start.names.length, sink, parts: [], tail: [], frame: 0 });
  }

  #openHole(level: Level): number {
    if (level.frame === 0) level.frame = this.#newFrame();
    return ++this.#holes;
  }

  #newFrame(): number {
    return (this.#options.worker + 1) * 2 ** 32 + ++this.#frames;
  }

  /** Ends a level: its nodes go up, or its frame to the main thread. */
  #close(level: Level): void {
    this.#levels.pop();
    closeHandle(level.handle);
    const above = this.#levels.at(-1);
    if (level.frame === 0) this.#closeWhole(level, above);
    else {
      if (level.sink.length > treePrefix.length) level.parts.push(level.sink.copy(treePrefix.length));
      const into = level.into ?? this.#holeIn(above);
      const directory = level.directory === undefined ? {} : { directory: level.directory };
      this.#options.postFrame({ kind: "frame", id: level.frame, into, parts: [...level.parts, ...level.tail], ...directory });
    }
    if (level.sink.bytes.length <= 1024 * 1024) this.#spareSinks.push(level.sink);
  }

  #closeWhole(level: Level, above: Level | undefined): void {
    if (level.directory === undefined || above === undefined) {
      if (level.into !== undefined) this.#options.postDone(level.into, level.sink.copy(treePrefix.length));
      return;
    }
    level.sink.writeLatin1(treeSuffix);
    this.#storeTree(level.sink.bytes.subarray(0, level.sink.length), level.directory.parentTree);
    beginNode(above.sink);
    above.sink.writeBytes(level.directory.head);
    writeNodeContent(above.sink, null);
    writeNodeTail(above.sink, this.#id, "");
  }

  /** A hole at the place that a level's sink has reached. */
  #holeIn(level: Level | undefined): Destination {
    if (level === undefined) throw new Error("a directory without a level above it");
    const hole = this.#openHole(level);
    if (level.sink.length > treePrefix.length) {
      level.parts.push(level.sink.copy(treePrefix.length));
      level.sink.length = treePrefix.length;
    }
    level.parts.push(hole);
    return { frame: level.frame, hole };
  }

  /** Stores a tree blob unless it is there already, and leaves its id in `#id`. */
  #storeTree(tree: Uint8Array, parentTree: Uint8Array | undefined): void {
    const { index, trees, counters } = this.#options;
    sha256Into(this.#id, 0, tree);
    counters.add(
      parentTree === undefined ? counter.dirsNew : this.#id.equals(parentTree) ? counter.dirsUnmodified : counter.dirsChanged,
      1,
    );
    if (!index.claim(this.#id, 0, true) && !this.#reclaim()) return;
    counters.add(counter.treeBlobs, 1);
    counters.add(counter.dataAddedBytes, tree.length);
    counters.add(counter.dataAddedPackedBytes, trees.add(this.#id, tree));
  }

  /** Once damage is known, reads the tree `#id` that the repository has. @returns whether it must be stored anew */
  #reclaim(): boolean {
    const { hunger, index, reader } = this.#options;
    const entry = index.find(this.#id, 0, true);
    if (Atomics.load(hunger, 1) === 0 || entry < 0 || index.placeOf(entry) === undefined) return false;
    try {
      reader.read(this.#id);
      return false;
    } catch (error) {
      if (!isFileDamage(error)) throw error;
      this.#disown(this.#id);
      return index.claim(this.#id, 0, true);
    }
  }

  /** Gives up a tree that is damaged where the index says it is. */
  #disown(id: Uint8Array): void {
    const { hunger, index } = this.#options;
    Atomics.store(hunger, 1, 1);
    const entry = index.find(id, 0, true);
    if (entry >= 0) index.disown(entry);
  }

  #saveEntry(level: Level, name: ByteString): void {
    const status = this.#status;
    const path = level.path === "/" ? `/${name}` : `${level.path}/${name}`;
    const looked = statAt(level.handle, name, status);
    if (looked < 0) return this.#trouble(path, looked, "look at");
    const type = nodeTypeOfMode(status.mode);
    if (type === "socket" || type === "irregular" || this.#isExcluded(path, type === "dir")) return;
    if (type === "dir") this.#enter(level, name, path);
    else if (type === "file") this.#saveFile(level, name, path);
    else this.#saveSpecial(level, name, path);
  }

  #enter(level: Level, name: ByteString, path: ByteString): void {
    const { excludes } = this.#options;
    const handle = openAt(level.handle, name, openFlags.readOnly | openFlags.directory | openFlags.noFollow | openFlags.nonBlock);
    if (handle < 0) return this.#trouble(path, handle, "open");
    const names: ByteString[] = [];
    const types: number[] = [];
    const status = this.#status;
    const { fileSystem } = status;
    const isOther = excludes.oneFileSystem && level.fileSystem !== 0n && fileSystem !== level.fileSystem && !this.#targets.has(path);
    const listed = statHandle(handle, status) || (isOther ? 0 : readNames(handle, names, types));
    if (listed < 0) {
      closeHandle(handle);
      return this.#trouble(path, listed, "list");
    }
    const directories = new Set(names.filter((_, at) => types[at] === 4 || types[at] === 0));
    names.sort();
    const kept = holdsMarker(handle, names, excludes) ?? names;
    const sink = new ByteSink(512);
    writeNodeHead(sink, this.#heads.read(status, { directory: level.handle, name, path }));
    const parent = this.#findParentTree(level, name, path);
    const directory: PendingDirectory = { head: sink.copy(), ...(parent === undefined ? {} : { parentTree: parent.id }) };
    this.#push({ path, handle, names: kept, directories, parent: parent?.nodes, fileSystem, directory, into: undefined });
  }

  #findParentTree(level: Level, name: ByteString, path: ByteString): { id: Uint8Array; nodes?: ParentNodes } | undefined {
    if (level.parent?.seek(name) !== true) return undefined;
    const id = level.parent.findSubtree();
    if (id === undefined) return undefined;
    try {
      return { id, nodes: new ParentNodes(Buffer.from(this.#options.reader.read(id))) };
    } catch (error) {
      // What the parent lacks is read anew from the source, and stored anew even if it comes out the same: so the backup heals it.
      if (isFileDamage(error)) this.#disown(id);
      this.#options.report({
        path,
        reason: "parent",
        message: `The parent snapshot's directory cannot be read, its files are read anew: ${String(error)}`,
      });
      return { id };
    }
  }

  #saveFile(level: Level, name: ByteString, path: ByteString): void {
    const { counters, excludes, files } = this.#options;
    const status = this.#status;
    const sizeBytes = status.sizeBytes;
    if (excludes.largerThanBytes > 0 && sizeBytes > excludes.largerThanBytes) return;
    const head = this.#heads.read(status, { directory: level.handle, name, path });
    const { sink } = level;
    const rollback = sink.length;
    beginNode(sink);
    const headAt = sink.length;
    writeNodeHead(sink, head);
    const hasParent = level.parent?.seek(name) === true;
    if (hasParent && level.parent !== undefined && this.#copyUnchanged(level.parent, { sink, headAt, head })) {
      counters.add(counter.filesUnmodified, 1);
      counters.add(counter.bytesProcessed, sizeBytes);
      return;
    }
    this.#sharing = path;
    const saved = files.save(level.handle, name, status);
    if (typeof saved === "number") {
      sink.length = rollback;
      if (this.#sharedFile !== 0) this.#dropShared(level);
      return this.#trouble(path, saved, "read");
    }
    if (saved.changed) this.#reportChange(path);
    counters.add(hasParent ? counter.filesChanged : counter.filesNew, 1);
    if (saved.sizeBytes !== sizeBytes) {
      sink.length = headAt;
      writeNodeHead(sink, { ...head, size: saved.sizeBytes });
    }
    if (saved.parts === undefined) {
      writeNodeContent(sink, files.content);
      writeNodeTail(sink, null, "");
      return;
    }
    sink.writeByte(openArray);
    const file = { prefix: sink.copy(headAt), suffix: Buffer.from("]}") };
    sink.length = rollback;
    this.#options.postFrame({ kind: "frame", id: this.#sharedFile, into: this.#holeIn(level), parts: saved.parts, file });
    this.#sharedFile = 0;
  }

  /**
   * Completes the node begun at `headAt` with the parent's content, when the file has not changed since and all its content is known.
   *
   * The usual case compares bytes and copies them. Another writer's head (times in another zone, other fields) is compared by value.
   */
  #copyUnchanged(parent: ParentNodes, node: { sink: ByteSink; headAt: number; head: NodeHead }): boolean {
    const { sink, headAt, head } = node;
    const { bytes, start, end } = parent;
    const contentAt = start + (sink.length - headAt);
    if (sink.equalsAt(headAt, bytes, start) && bytes[end - 2] === closeArray && this.#knowsContent(bytes, contentAt, end - 1)) {
      sink.writeBytes(bytes, contentAt, end);
      return true;
    }
    const { ignoreCtime, ignoreInode } = this.#options;
    const before = parseNode(bytes, start, end);
    const isSame =
      before.type === "file" &&
      before.size === head.size &&
      before.mtimeSeconds === head.mtimeSeconds &&
      before.mtimeNanos === head.mtimeNanos &&
      (ignoreCtime || ignoreInode || (before.ctimeSeconds === head.ctimeSeconds && before.ctimeNanos === head.ctimeNanos)) &&
      (ignoreInode || before.inode === head.inode);
    if (!isSame || before.content === null) return false;
    for (let at = 0; at < before.content.length; at += 32) if (this.#options.index.find(before.content, at, false) < 0) return false;
    writeNodeContent(sink, before.content);
    writeNodeTail(sink, null, "");
    return true;
  }

  /** Whether every id of `["…","…"]` from `at` to `end` is in the index. */
  #knowsContent(bytes: Uint8Array, at: number, end: number): boolean {
    if (end - at === 2) return true;
    for (let quote = at + 1; quote < end - 1; quote += 67) {
      if (!readHex(bytes, quote + 1, this.#id, 0) || this.#options.index.find(this.#id, 0, false) < 0) return false;
    }
    return true;
  }

  #saveSpecial(level: Level, name: ByteString, path: ByteString): void {
    let head = this.#heads.read(this.#status, { directory: level.handle, name, path });
    if (head.type === "symlink") {
      const target = readLinkAt(level.handle, name);
      if (typeof target === "number") return this.#trouble(path, target, "read the link");
      head = { ...head, linkTarget: target };
    }
    beginNode(level.sink);
    writeNodeHead(level.sink, head);
    writeNodeContent(level.sink, null);
    writeNodeTail(level.sink, null, "");
  }

  /** Lets the parts of a file that could not be read to its end run out into nothing. */
  #dropShared(level: Level): void {
    const file = { prefix: new Uint8Array(0), suffix: new Uint8Array(0) };
    const parts = [new Uint8Array(0), ...this.#options.files.takeParts()];
    this.#options.postFrame({ kind: "frame", id: this.#sharedFile, into: this.#holeIn(level), parts, file });
    this.#sharedFile = 0;
  }

  #reportChange(path: ByteString): void {
    this.#options.counters.add(counter.troubles, 1);
    this.#options.report({
      path,
      reason: "changed",
      message: "The file changed while it was read; the snapshot may hold a mixture of old and new",
    });
  }

  #trouble(path: ByteString, status: number, what: string): void {
    this.#options.counters.add(counter.troubles, 1);
    const reason = -status === enoent ? "vanished" : what.includes("attribute") ? "attributes" : "unreadable";
    const found = reason === "vanished" ? "it vanished while the backup ran" : describeErrno(-status);
    this.#options.report({ path, reason, message: `Cannot ${what}: ${found}` });
  }
}

const openArray = 0x5b;
const closeArray = 0x5d;

function beginNode(sink: ByteSink): void {
  if (sink.length > treePrefix.length) sink.writeByte(0x2c);
}

function hasDirectory(level: Level): boolean {
  for (let at = level.next; at < level.end; at++) if (level.directories.has(level.names[at] ?? "")) return true;
  return false;
}

/** Opens a directory by a path of any length. @returns a handle or -errno */
function openDirectory(path: ByteString): number {
  const flags = openFlags.readOnly | openFlags.directory | openFlags.nonBlock;
  let handle = workingDirectory;
  let rest = path;
  for (;;) {
    let cut = rest.length;
    if (cut > longestPath) cut = Math.max(rest.lastIndexOf("/", longestPath), 1);
    const next = openAt(handle, rest.slice(0, cut), flags);
    if (handle !== workingDirectory) closeHandle(handle);
    if (next < 0 || cut === rest.length) return next;
    handle = next;
    rest = rest.slice(cut).replace(/^\/+/, "");
  }
}
