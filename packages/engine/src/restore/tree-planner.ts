/**
 * Makes the plan of a restore, in a worker: reads the trees of the snapshot, looks at what is in the target, and notes for each entry what is
 * to be done, and for each piece of content that is to be written where it comes from. Changes nothing in the target.
 *
 * Depth first, with a stack of directories instead of recursion; when another worker has nothing to do, it gets half of the stack. What a
 * hostile repository could say is judged here: names, depth, sizes, types, entries that come twice.
 */
import { Buffer } from "node:buffer";
import { type Failure, isFailure, messageOf, toFailure } from "@granary/base/errors";
import { sha256 } from "../crypto/hash.ts";
import { type ByteString, fromUtf8, toBytes, toUtf8OrEscaped } from "../format/byte-string.ts";
import { ID_BYTES } from "../format/ids.ts";
import { type NodeType, permissionsOfGoMode } from "../format/mode.ts";
import type { TreeNode } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";
import { pathBelow } from "../native/libc.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import type { BlobReader } from "../repository/blob-reader.ts";
import { type ContentCheck, isCredible, plainBytesOf } from "./content-check.ts";
import { type Counters, counter } from "./counters.ts";
import type { DirectoryHandles } from "./directory-handles.ts";
import { action, type Action, type EntryTable, FactPacker, fact, flag, kind, type Kind, packAttribute, rootEntry } from "./entry-table.ts";
import { describeError } from "./errno-text.ts";
import type { DirectoryToPlan, PlanTask, RestoreRules, RestoreTrouble, TroubleReason } from "./messages.ts";
import { choice, compileSelection, type Selector } from "./selection.ts";
import { quirk, type SharedState } from "./shared-state.ts";
import { type Finding, hasDefaultList, listNames, TargetLook } from "./target-look.ts";

/** No file system takes more; checked before memory is taken for a name. */
const longestName = 255;
/** No real tree is so deep. */
const deepest = 10_000;
const identityBytes = 24;
/** What is made in a folder with it gets its group. */
const setgid = 0o2000;

const kindOfType: Readonly<Record<Exclude<NodeType, "irregular">, Kind>> = {
  file: kind.file,
  dir: kind.directory,
  symlink: kind.symlink,
  dev: kind.device,
  chardev: kind.characterDevice,
  fifo: kind.fifo,
  socket: kind.socket,
};

export interface TreePlannerOptions {
  readonly table: EntryTable;
  readonly index: BlobIndex;
  readonly reader: BlobReader;
  readonly directories: DirectoryHandles;
  readonly content: ContentCheck;
  readonly counters: Counters;
  readonly state: SharedState;
  readonly rules: RestoreRules;
  readonly onTrouble: (trouble: RestoreTrouble) => void;
  /** Passes work on to an idle worker. */
  readonly give: (task: PlanTask) => void;
}

/** A directory being planned. */
interface Level {
  readonly entry: number;
  readonly depth: number;
  /** Known when there are patterns. */
  readonly path: ByteString;
  /** The handle of the directory in the target, or -1. */
  readonly handle: number;
  /** What is in it; `undefined` when it cannot be listed. */
  readonly present: ReadonlySet<ByteString> | undefined;
}

/** Where the nodes of a tree are. */
interface Spans {
  readonly names: ByteString[];
  readonly starts: number[];
  readonly ends: number[];
  readonly isSorted: boolean;
  /** Why some nodes were not found. */
  readonly faults: readonly Failure[];
}

export class TreePlanner {
  readonly #options: TreePlannerOptions;
  readonly #select: Selector | undefined;
  readonly #target: TargetLook;
  readonly #stack: DirectoryToPlan[] = [];
  readonly #facts = new FactPacker();
  readonly #blobs: number[] = [];
  readonly #different: number[] = [];
  readonly #hasUser = process.geteuid?.() !== 0;

  constructor(options: TreePlannerOptions) {
    this.#options = options;
    this.#select = compileSelection(options.rules.selection);
    this.#target = new TargetLook(options.rules.overwrite, options.content);
  }

  /** Plans directories and all that lies below. */
  run(task: PlanTask): void {
    for (const directory of task.directories) this.#stack.push(directory);
    for (let next = this.#stack.pop(); next !== undefined; next = this.#stack.pop()) {
      if (this.#options.state.isStopping) return;
      if (this.#stack.length > 1 && this.#options.state.hunger > 0) this.#feed();
      this.#planTree(next);
    }
  }

  #feed(): void {
    if (!this.#options.state.claimHungry()) return;
    // the bottom of the stack is what lies furthest out
    this.#options.give({ kind: "plan", directories: this.#stack.splice(0, this.#stack.length >>> 1) });
  }

  #planTree({ entry, tree }: DirectoryToPlan): void {
    const { table, reader } = this.#options;
    const depth = table.depthOf(entry);
    const path = this.#select === undefined && depth < deepest ? "" : table.pathOf(entry);
    if (depth >= deepest) return this.#lose(path, "invalid", `it is more than ${deepest} folders deep`);
    let bytes: Uint8Array;
    try {
      bytes = reader.read(tree);
    } catch (error) {
      return this.#loseTree(entry, error);
    }
    const spans = findNodes(bytes);
    const level: Level = { entry, depth, path, ...this.#lookInto(entry) };
    for (const fault of spans.faults) this.#lose(table.pathOf(entry), "damaged", `part of the folder cannot be read: ${fault.message}`);
    this.#planNodes(level, bytes, spans);
    // without the whole tree, nobody knows what is extra
    if (this.#options.rules.deleteExtra && spans.faults.length === 0) this.#planExtras(level, new Set(spans.names));
  }

  /** What is in the directory already. */
  #lookInto(entry: number): Pick<Level, "handle" | "present"> {
    const { table, directories, state, rules } = this.#options;
    if (!table.hasFlag(entry, flag.present)) return { handle: -1, present: nothing };
    const handle = directories.open(entry, false);
    const names = handle < 0 ? handle : listNames(handle);
    if (typeof names === "number") {
      if (rules.deleteExtra) this.#report(table.pathOf(entry), "target", `Cannot list what is in the target: ${describeError(names)}`);
      return { handle, present: handle < 0 ? nothing : undefined };
    }
    if (hasDefaultList(pathBelow(handle, ""))) state.addQuirk(quirk.inheritedLists);
    return { handle, present: new Set(names) };
  }

  #planNodes(level: Level, bytes: Uint8Array, { names, starts, ends, isSorted }: Spans): void {
    const first = this.#stack.length;
    const seen = isSorted ? undefined : new Set<ByteString>();
    for (let at = 0; at < names.length; at++) {
      const name = names[at] ?? "";
      if (seen?.has(name) === true) {
        this.#lose(`${this.#options.table.pathOf(level.entry)}/${name}`, "invalid", "its folder has it twice; the first is restored");
        continue;
      }
      seen?.add(name);
      try {
        this.#planNode(level, parseNode(bytes, starts[at] ?? 0, ends[at] ?? 0));
      } catch (error) {
        if (!isFailure(error, "TreeInvalid")) throw error;
        this.#lose(`${this.#options.table.pathOf(level.entry)}/${name}`, "damaged", messageOf(error));
      }
    }
    // the first directory is to be planned next
    reverseFrom(this.#stack, first);
  }

  #planNode(level: Level, node: TreeNode): void {
    const { name } = node;
    const path = this.#select === undefined ? "" : `${level.path}/${name}`;
    const chosen = this.#select === undefined ? choice.yes : this.#select(path, node.type === "dir");
    if (chosen === choice.no) return;
    const problem = findProblem(node);
    if (problem !== undefined) return this.#lose(`${this.#options.table.pathOf(level.entry)}/${name}`, "invalid", problem);
    if (node.type === "dir") this.#planDirectory(level, node, chosen === choice.yes);
    else if (node.type === "file") this.#planFile(level, node);
    else this.#planOther(level, node);
  }

  #planDirectory(level: Level, node: TreeNode, isSelected: boolean): void {
    const found = this.#find(level, node);
    if (found.action === action.block) return this.#block(level, node, found);
    const isPresent = found.action === action.refresh;
    if (isPresent && (found.mode & setgid) !== 0) this.#options.state.addQuirk(quirk.foreignOwners);
    const isClosed = isPresent && this.#hasUser && (found.mode & 0o700) !== 0o700;
    this.#addAttributes(node);
    const entry = this.#add(level, node, {
      action: found.action,
      flags: (isPresent ? flag.present : 0) | (isClosed ? flag.closed : 0),
      sizeBytes: level.depth + 1,
      pieces: 0,
    });
    if (isSelected) this.#need(entry);
    if (node.subtree !== null) this.#stack.push({ entry, tree: node.subtree });
  }

  #planOther(level: Level, node: TreeNode): void {
    const found = this.#find(level, node);
    if (found.action === action.block) return this.#block(level, node, found);
    if (found.action === action.skip) return this.#options.counters.add(counter.skipped, 1);
    if (node.type === "symlink") this.#facts.add(fact.linkTarget, toBytes(node.linkTarget));
    if (node.type === "dev" || node.type === "chardev") this.#facts.add(fact.device, packUint64(node.device));
    this.#addIdentity(node);
    this.#addAttributes(node);
    const entry = this.#add(level, node, { action: found.action, flags: flagsOf(node, found), sizeBytes: 0, pieces: 0 });
    this.#need(entry);
  }

  #planFile(level: Level, node: TreeNode): void {
    const { table, counters, rules } = this.#options;
    const blobs = this.#blobs;
    const sizeBytes = this.#findBlobs(level, node);
    if (sizeBytes < 0) return;
    this.#different.length = 0;
    const found = this.#find(level, node, sizeBytes);
    if (found.action === action.block) return this.#block(level, node, found);
    if (found.action === action.skip) return counters.add(counter.skipped, 1);
    if (node.size !== sizeBytes) {
      const message = `The snapshot says ${node.size} bytes, its content has ${sizeBytes}; all of them are restored`;
      this.#report(`${table.pathOf(level.entry)}/${node.name}`, "metadata", message);
    }
    if (rules.verify) this.#facts.add(fact.pieces, new Uint8Array(Uint32Array.from(blobs).buffer));
    this.#addIdentity(node);
    this.#addAttributes(node);
    const isPartial = found.action === action.update;
    const pieces = isPartial ? this.#different.length : found.action === action.refresh ? 0 : blobs.length;
    const entry = this.#add(level, node, { action: found.action, flags: flagsOf(node, found), sizeBytes, pieces });
    this.#need(entry);
    counters.add(counter.files, 1);
    counters.add(counter.bytes, sizeBytes);
    const wrongBytes = pieces === 0 ? 0 : this.#addPieces(entry, isPartial);
    counters.add(counter.bytesDone, sizeBytes - wrongBytes);
  }

  /** Adds the pieces of a file that are to be written: those in `#different`, or all. @returns their bytes */
  #addPieces(entry: number, isPartial: boolean): number {
    const { table, index } = this.#options;
    const blobs = this.#blobs;
    const pieces = isPartial ? this.#different.length : blobs.length;
    const first = table.takePieces(pieces);
    let fileOffsetBytes = 0;
    let taken = 0;
    let bytes = 0;
    for (let at = 0; at < blobs.length; at++) {
      const blob = blobs[at] ?? -1;
      const place = index.placeOf(blob);
      if (place === undefined) continue;
      const plainBytes = plainBytesOf(place);
      if (!isPartial || this.#different[taken] === at) {
        const value = { pack: place.pack, packOffsetBytes: place.offsetBytes, blob, entry, fileOffsetBytes };
        table.setPiece(first + taken++, value);
        bytes += plainBytes;
      }
      fileOffsetBytes += plainBytes;
    }
    return bytes;
  }

  /** Leaves the entries of a file's blobs in `#blobs`. @returns the length of the file, or -1 when it cannot be restored */
  #findBlobs(level: Level, node: TreeNode): number {
    const { table, index } = this.#options;
    const content = node.content ?? new Uint8Array(0);
    this.#blobs.length = 0;
    let sizeBytes = 0;
    for (let at = 0; at < content.length; at += ID_BYTES) {
      const blob = index.find(content, at);
      const place = blob < 0 ? undefined : index.placeOf(blob);
      if (place === undefined || !isCredible(place)) {
        const id = Buffer.from(content.subarray(at, at + ID_BYTES)).toString("hex");
        const found = place === undefined ? "no pack in the index has it" : `the index says it takes ${place.sealedBytes} bytes`;
        this.#lose(`${table.pathOf(level.entry)}/${node.name}`, "damaged", `it needs blob "${id}": ${found}`);
        return -1;
      }
      this.#blobs.push(blob);
      sizeBytes += plainBytesOf(place);
    }
    return sizeBytes;
  }

  #planExtras(level: Level, names: ReadonlySet<ByteString>): void {
    const { table } = this.#options;
    for (const name of level.present ?? []) {
      if (names.has(name)) continue;
      if (this.#select !== undefined && this.#select(`${level.path}/${name}`, false) !== choice.yes) continue;
      const entry = table.add(
        { ...noMetadata, kind: kind.extra, action: action.remove, flags: 0, parent: level.entry, name },
        new Uint8Array(0),
      );
      this.#need(entry);
    }
  }

  /** What is in the target where the entry belongs. */
  #find(level: Level, node: TreeNode, sizeBytes = 0): Finding {
    if (level.present?.has(node.name) === false) return { action: action.create, mode: 0 };
    const place = { directory: level.handle, name: node.name };
    return this.#target.look(place, node, { blobs: this.#blobs, sizeBytes, different: this.#different });
  }

  #add(level: Level, node: TreeNode, more: { action: Action; flags: number; sizeBytes: number; pieces: number }): number {
    const isSpecial = node.type === "irregular";
    return this.#options.table.add(
      {
        kind: isSpecial ? kind.none : kindOfType[node.type],
        action: more.action,
        flags: more.flags | (node.extendedAttributes.length > 0 ? flag.hasAttributes : 0),
        parent: level.entry,
        name: node.name,
        permissions: permissionsOfGoMode(node.mode),
        uid: node.uid,
        gid: node.gid,
        mtimeSeconds: node.mtimeSeconds,
        mtimeNanos: node.mtimeNanos,
        atimeSeconds: node.atimeSeconds,
        atimeNanos: node.atimeNanos,
        sizeBytes: more.sizeBytes,
        pieces: more.pieces,
      },
      this.#facts.finish(),
    );
  }

  #addAttributes(node: TreeNode): void {
    for (const { name, value } of node.extendedAttributes) this.#facts.add(fact.attribute, packAttribute(fromUtf8(name), value));
  }

  /** What tells whether two entries are names of one file: where it was, and a hash of what it consists of. */
  #addIdentity(node: TreeNode): void {
    if (node.links <= 1) return;
    const identity = Buffer.alloc(identityBytes);
    identity.set(packUint64(node.deviceId), 0);
    identity.set(packUint64(node.inode), 8);
    const content = node.content ?? Buffer.from(`${node.type}\0${node.linkTarget}\0${node.device}`, "latin1");
    identity.set(sha256(content).subarray(0, 8), 16);
    this.#facts.add(fact.identity, identity);
  }

  /** Marks an entry, and the directories above it, as to be restored. */
  #need(entry: number): void {
    const { table } = this.#options;
    for (let at = entry; at !== rootEntry && table.addFlag(at, flag.needed); ) at = table.parentOf(at);
  }

  #block(level: Level, node: TreeNode, found: Finding): void {
    this.#options.counters.add(counter.failed, 1);
    this.#report(
      `${this.#options.table.pathOf(level.entry)}/${node.name}`,
      "blocked",
      `Cannot restore it: ${found.message ?? "it is blocked"}`,
    );
  }

  #loseTree(entry: number, error: unknown): void {
    const failure = toFailure(error);
    const isDamage = failure.kind === "corrupt" || failure.code === "StoreFileNotFound";
    if (!isDamage || entry === rootEntry) throw failure;
    this.#lose(this.#options.table.pathOf(entry), "damaged", `what is in the folder is not known: ${failure.message}`);
  }

  #lose(path: ByteString, reason: TroubleReason, found: string): void {
    this.#options.counters.add(counter.failed, 1);
    this.#options.counters.add(counter.lost, 1);
    this.#report(path, reason, `Cannot restore it: ${found}`);
  }

  #report(path: ByteString, reason: TroubleReason, message: string): void {
    this.#options.onTrouble({ path, reason, message });
  }
}

const nothing: ReadonlySet<ByteString> = new Set();

const noMetadata = {
  permissions: 0,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  atimeSeconds: 0,
  atimeNanos: 0,
  sizeBytes: 0,
  pieces: 0,
} as const;

/** Finds the nodes of a tree. Wrong order alone loses nothing; names that are none, and broken JSON, do. */
function findNodes(bytes: Uint8Array): Spans {
  const names: ByteString[] = [];
  const starts: number[] = [];
  const ends: number[] = [];
  const faults: Failure[] = [];
  let last: ByteString = "";
  let isSorted = true;
  // a problem is told before its node is visited, if that is visited at all
  let problem: Failure | undefined;
  const settle = (): void => {
    if (problem !== undefined) faults.push(problem);
    problem = undefined;
  };
  const onProblem = (next: Failure): void => {
    settle();
    problem = next;
  };
  const visit = (name: ByteString, start: number, end: number): void => {
    if (name > last) {
      last = name;
      settle();
    } else {
      isSorted = false;
      problem = undefined;
    }
    names.push(name);
    starts.push(start);
    ends.push(end);
  };
  try {
    scanTree(bytes, visit, { onProblem });
    settle();
  } catch (error) {
    settle();
    faults.push(toFailure(error));
  }
  return { names, starts, ends, isSorted, faults };
}

function reverseFrom<T>(items: T[], from: number): void {
  const tail = items.splice(from).reverse();
  for (const item of tail) items.push(item);
}

/** Why a node cannot be restored, whatever the target is. */
function findProblem(node: TreeNode): string | undefined {
  if (node.name.length > longestName) return `its name has ${node.name.length} bytes, at most ${longestName} are possible`;
  if (node.type === "irregular") return "its type is not known";
  if (node.type === "dir" && node.subtree === null) return "the snapshot does not say what is in it";
  if (node.type === "symlink" && (node.linkTarget === "" || node.linkTarget.includes("\0"))) {
    return `it is a link that leads to "${toUtf8OrEscaped(node.linkTarget.slice(0, 100))}"`;
  }
  if (
    node.extendedAttributes.some(
      ({ name, value }) => name === "" || name.includes("\0") || name.length > longestName || value.length > 65536,
    )
  ) {
    return "it has an extended attribute that cannot be";
  }
  return undefined;
}

function flagsOf(node: TreeNode, found: Finding): number {
  return (node.links > 1 ? flag.hardLinked : 0) | (found.action === action.create ? 0 : flag.occupied);
}

function packUint64(value: number | bigint): Uint8Array {
  const packed = Buffer.alloc(8);
  packed.writeBigUInt64LE(BigInt(value));
  return packed;
}
