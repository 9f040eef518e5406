/**
 * Compares two trees: what was added, removed or changed, and how much data that is.
 *
 * Both are walked side by side. What they have in common is read only to tell which blobs are new, and not at all when nothing differs.
 * Memory: the trees of the directories that are open on both sides, and three bits a blob of the repository.
 */
import { throwIfCancelled } from "@granary/base/cancel";
import { Failure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import type { ByteString } from "../format/byte-string.ts";
import { ID_BYTES } from "../format/ids.ts";
import { encodeNode, type TreeNode } from "../format/node.ts";
import { SEAL_BYTES } from "../format/pack.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import { reportDamage } from "../repository/files.ts";
import { BlobSet, IdSet } from "./id-set.ts";
import { TreeCursor } from "./tree-cursor.ts";
import { MAX_DEPTH, type TreeEntry, walkTree, type WalkOptions } from "./tree-walk.ts";

/** An entry that differs. */
export interface DiffChange {
  /** As in `/home/alice/notes.txt`; a directory's ends with a slash. */
  readonly path: ByteString;
  /**
   * As restic writes it: `+` added, `-` removed, or put together of `T` type changed, `M` content changed, `?` content changed though
   * nothing else did (a disk that rots?), `U` metadata changed.
   */
  readonly modifier: string;
  /** The entry on either side, where it is there. */
  readonly before: TreeNode | undefined;
  readonly after: TreeNode | undefined;
}

/** How many there are on one side only. Blobs and bytes are those that the other side does not need. */
export interface DiffCounts {
  readonly files: number;
  readonly dirs: number;
  readonly others: number;
  readonly dataBlobs: number;
  readonly treeBlobs: number;
  /** Before compression. */
  readonly sizeBytes: number;
}

export interface DiffStatistics {
  readonly changedFiles: number;
  readonly added: DiffCounts;
  readonly removed: DiffCounts;
  /** Blobs that no pack in the index has; they are counted, but their sizes are not known. */
  readonly missingBlobs: number;
}

/** What comes out of a comparison: changes in the order of the walk, in runs, and at the end the statistics. */
export type DiffEvent =
  | { readonly kind: "changes"; readonly changes: readonly DiffChange[] }
  | { readonly kind: "unreadable"; readonly path: ByteString; readonly failure: Failure }
  | { readonly kind: "statistics"; readonly statistics: DiffStatistics };

export interface DiffOptions {
  /** Whether to tell of entries of which only the metadata changed. */
  readonly withMetadata: boolean;
  readonly signal?: AbortSignal;
}

/** The trees to compare, ids of 32 bytes, and what to read them from. */
export interface DiffSubject {
  readonly load: TreeLoader;
  readonly index: BlobIndex;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

/**
 * Compares two trees.
 *
 * Where a directory became something else, or something else a directory, what is in it is removed or added as well, which restic leaves
 * out. A directory that cannot be read is reported and left out; the roots must be readable.
 *
 * @throws BlobMissing, BlobInvalid, TreeInvalid about a root; what `load` throws that is not about one tree; Cancelled
 */
export async function* diffTrees(subject: DiffSubject, options: DiffOptions): AsyncGenerator<DiffEvent, void, undefined> {
  yield* new Comparison(subject, options).run();
}

type Side = "before" | "after";
/** One directory on both sides, each at its next entry. */
interface DirectoryPair {
  readonly path: ByteString;
  readonly before: MergeCursor;
  readonly after: MergeCursor;
}
const BATCH_CHANGES = 256;

class Comparison {
  readonly #subject: DiffSubject;
  readonly #options: DiffOptions;
  readonly #tally: Tally;
  readonly #open: DirectoryPair[] = [];
  /** Directories that are the same on both sides, the topmost of each. */
  readonly #common: Uint8Array[] = [];
  #changes: DiffChange[] = [];
  #problems: DiffEvent[] = [];

  constructor(subject: DiffSubject, options: DiffOptions) {
    this.#subject = subject;
    this.#options = options;
    this.#tally = new Tally(subject.index);
  }

  async *run(): AsyncGenerator<DiffEvent, void, undefined> {
    const { before, after } = this.#subject;
    this.#tally.useId("before", before);
    this.#tally.useId("after", after);
    if (!isSameId(before, after)) this.#open.push(await this.#openPair("", before, after));
    for (let pair = this.#open.at(-1); pair !== undefined; pair = this.#open.at(-1)) {
      throwIfCancelled(this.#options.signal);
      if (pair.before.node === undefined && pair.after.node === undefined) this.#open.pop();
      else yield* this.#compareNext(pair);
      yield* this.#drain(BATCH_CHANGES);
    }
    if (this.#tally.isDifferent()) await this.#readCommon();
    yield* this.#drain(1);
    yield { kind: "statistics", statistics: this.#tally.finish() };
  }

  *#drain(atLeast: number): Generator<DiffEvent, void, undefined> {
    if (this.#changes.length >= atLeast) {
      yield { kind: "changes", changes: this.#changes };
      this.#changes = [];
    }
    yield* this.#problems;
    this.#problems = [];
  }

  async *#compareNext(pair: DirectoryPair): AsyncGenerator<DiffEvent, void, undefined> {
    const [before, after] = takeNext(pair);
    if (before !== undefined) this.#tally.useNode("before", before);
    if (after !== undefined) this.#tally.useNode("after", after);
    const path = `${pair.path}/${(after ?? before)?.name ?? ""}`;
    if (before !== undefined && after !== undefined) {
      const modifier = compareNodes(before, after, this.#options.withMetadata);
      if (modifier.includes("M")) this.#tally.changedFiles++;
      if (modifier !== "") this.#changes.push({ path: isDirectory(after) ? `${path}/` : path, modifier, before, after });
      if (before.subtree !== null && after.subtree !== null) await this.#enter(path, before.subtree, after.subtree);
      else {
        if (before.subtree !== null) yield* this.#tellAll("before", path, before.subtree);
        if (after.subtree !== null) yield* this.#tellAll("after", path, after.subtree);
      }
    } else if (before !== undefined) yield* this.#tell("before", path, before);
    else if (after !== undefined) yield* this.#tell("after", path, after);
  }

  async *#tell(side: Side, path: ByteString, node: TreeNode): AsyncGenerator<DiffEvent, void, undefined> {
    this.#tellOne(side, path, node);
    if (node.subtree !== null) yield* this.#tellAll(side, path, node.subtree);
  }

  #tellOne(side: Side, path: ByteString, node: TreeNode): void {
    this.#tally.countEntry(side, node);
    const shown = isDirectory(node) ? `${path}/` : path;
    const isBefore = side === "before";
    this.#changes.push({
      path: shown,
      modifier: isBefore ? "-" : "+",
      before: isBefore ? node : undefined,
      after: isBefore ? undefined : node,
    });
  }

  /** Tells of everything in a directory that is on one side only. */
  async *#tellAll(side: Side, path: ByteString, tree: Uint8Array): AsyncGenerator<DiffEvent, void, undefined> {
    for await (const batch of walkTree(this.#subject.load, tree, this.#walkOptions(path))) {
      for (const entry of batch) {
        this.#tally.useNode(side, entry.node);
        this.#tellOne(side, entry.path, entry.node);
      }
      yield* this.#drain(BATCH_CHANGES);
    }
  }

  async #enter(path: ByteString, before: Uint8Array, after: Uint8Array): Promise<void> {
    if (isSameId(before, after)) {
      this.#common.push(after);
      return;
    }
    try {
      if (this.#open.length >= MAX_DEPTH) throw new Failure("TreeInvalid", `Cannot compare a directory: it is more than ${MAX_DEPTH} deep`);
      this.#open.push(await this.#openPair(path, before, after));
    } catch (error) {
      throwIfCancelled(this.#options.signal);
      reportDamage(error, (failure) => this.#onUnreadable(path, failure));
    }
  }

  async #openPair(path: ByteString, before: Uint8Array, after: Uint8Array): Promise<DirectoryPair> {
    const { load } = this.#subject;
    const { signal } = this.#options;
    const [first, second] = await Promise.all([load(before, signal), load(after, signal)]);
    const onFault = (failure: Failure): void => this.#onUnreadable(path, failure);
    return { path, before: new MergeCursor(first, onFault), after: new MergeCursor(second, onFault) };
  }

  /** Finds out which blobs the common part needs, so that they do not count as new where they are used once more. */
  async #readCommon(): Promise<void> {
    for (const tree of this.#common) {
      if (!this.#tally.useId("common", tree)) continue;
      const enter = ({ node }: TreeEntry): boolean => node.subtree !== null && this.#tally.useId("common", node.subtree);
      for await (const batch of walkTree(this.#subject.load, tree, { enter, ...this.#walkOptions("") })) {
        for (const { node } of batch) if (node.subtree === null) this.#tally.useNode("common", node);
      }
    }
  }

  #walkOptions(prefix: ByteString): WalkOptions {
    const { signal } = this.#options;
    return { prefix, onUnreadable: (path, _treeId, failure) => this.#onUnreadable(path, failure), ...(signal && { signal }) };
  }

  #onUnreadable(path: ByteString, failure: Failure): void {
    this.#problems.push({ kind: "unreadable", path, failure });
  }
}

/** Stands on a node; a tree with a fault ends before it. */
class MergeCursor {
  node: TreeNode | undefined;
  readonly #cursor: TreeCursor;
  readonly #onFault: (failure: Failure) => void;

  constructor(bytes: Uint8Array, onFault: (failure: Failure) => void) {
    this.#cursor = new TreeCursor(bytes);
    this.#onFault = onFault;
    this.advance();
  }

  advance(): void {
    try {
      this.node = this.#cursor.next();
    } catch (error) {
      this.#onFault(toFailure(error));
      this.#cursor.skipRest();
      this.node = undefined;
    }
  }
}

/** The next entry of a pair of directories: on both sides when it has the same name there. */
function takeNext({ before, after }: DirectoryPair): [TreeNode | undefined, TreeNode | undefined] {
  const [first, second] = [before.node, after.node];
  const isFirst = first !== undefined && (second === undefined || first.name <= second.name);
  const isSecond = second !== undefined && (first === undefined || second.name <= first.name);
  if (isFirst) before.advance();
  if (isSecond) after.advance();
  return [isFirst ? first : undefined, isSecond ? second : undefined];
}

function compareNodes(before: TreeNode, after: TreeNode, withMetadata: boolean): string {
  const type = before.type === after.type ? "" : "T";
  if (before.type === "file" && after.type === "file" && !isSameId(before.content ?? nothing, after.content ?? nothing)) {
    return isSameNode({ ...before, content: null }, { ...after, content: null }) ? "M?" : "M";
  }
  return withMetadata && !isSameNode(before, after) ? `${type}U` : type;
}

const nothing = new Uint8Array(0);

function isSameNode(before: TreeNode, after: TreeNode): boolean {
  return encodeNode(sortAttributes(before)).equals(encodeNode(sortAttributes(after)));
}

/** Their order says nothing. */
function sortAttributes(node: TreeNode): TreeNode {
  const { extendedAttributes } = node;
  return extendedAttributes.length < 2
    ? node
    : { ...node, extendedAttributes: extendedAttributes.toSorted((a, b) => (a.name < b.name ? -1 : 1)) };
}

function isSameId(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function isDirectory(node: TreeNode): boolean {
  return node.type === "dir";
}

type Sums = { -readonly [K in keyof DiffCounts]: DiffCounts[K] };

function emptySums(): Sums {
  return { files: 0, dirs: 0, others: 0, dataBlobs: 0, treeBlobs: 0, sizeBytes: 0 };
}

/** What both sides need, and how many entries they do not share. */
class Tally {
  changedFiles = 0;
  readonly #index: BlobIndex;
  readonly #sums: Readonly<Record<Side, Sums>> = { before: emptySums(), after: emptySums() };
  readonly #blobs: Readonly<Record<Side | "common", BlobSet>>;
  readonly #missing = new IdSet();

  constructor(index: BlobIndex) {
    this.#index = index;
    this.#blobs = { before: new BlobSet(index), after: new BlobSet(index), common: new BlobSet(index) };
  }

  countEntry(side: Side, node: TreeNode): void {
    const sums = this.#sums[side];
    if (node.type === "file") sums.files++;
    else if (node.type === "dir") sums.dirs++;
    else sums.others++;
  }

  /** Notes the blobs that an entry names. */
  useNode(side: Side | "common", { content, subtree }: TreeNode): void {
    if (subtree !== null) this.useId(side, subtree);
    if (content === null) return;
    for (let at = 0; at < content.length; at += ID_BYTES) this.useId(side, content.subarray(at, at + ID_BYTES));
  }

  /** @returns whether it was not noted on that side before */
  useId(side: Side | "common", id: Uint8Array): boolean {
    const added = this.#blobs[side].add(id);
    if (added < 0) this.#missing.add(id);
    return added !== 0;
  }

  /** Whether one side has a blob that the other has not, as far as was looked. */
  isDifferent(): boolean {
    const { before, after } = this.#blobs;
    return !before.isSubsetOf(after) || !after.isSubsetOf(before);
  }

  finish(): DiffStatistics {
    return {
      changedFiles: this.changedFiles,
      removed: this.#sumOnly("before", "after"),
      added: this.#sumOnly("after", "before"),
      missingBlobs: this.#missing.size,
    };
  }

  #sumOnly(side: Side, other: Side): DiffCounts {
    const sums = this.#sums[side];
    for (const entry of this.#blobs[side].entries()) {
      if (this.#blobs[other].hasEntry(entry) || this.#blobs.common.hasEntry(entry)) continue;
      const place = this.#index.placeOf(entry);
      if (place === undefined) continue;
      if (place.isTree) sums.treeBlobs++;
      else sums.dataBlobs++;
      sums.sizeBytes += place.plainBytes === 0 ? place.sealedBytes - SEAL_BYTES : place.plainBytes;
    }
    return sums;
  }
}
