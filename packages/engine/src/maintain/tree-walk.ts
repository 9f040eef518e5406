/**
 * Walks the directories of a snapshot, depth first, names in ascending order of their bytes: each directory's entry, then all that is
 * below it, then the next entry. All reading verbs stand on it.
 *
 * Memory: the tree of each open directory, and at most {@link MAX_TREES_AHEAD} trees that are loaded ahead (one more for each level);
 * entries are parsed in batches, so that a directory with millions of entries never becomes millions of objects. Trees are loaded once
 * for each path that leads to them; who wants each tree only once says so through `enter`.
 *
 * Symbolic links are entries like others and never followed. What a hostile repository could do is bounded: names are checked where
 * trees are parsed, depth here; loaders check that a tree's content has the hash it is asked for by, which rules out cycles, and a tree
 * that is its own ancestor all the same is refused.
 */
import { throwIfCancelled } from "@granary/base/cancel";
import { Failure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import { hexOf } from "../format/ids.ts";
import type { TreeNode } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import { findNode, TreeCursor } from "./tree-cursor.ts";

/** An entry of a directory, on the way. */
export interface TreeEntry {
  /** From the root of the walk, as in `/home/alice`; raw bytes. */
  readonly path: ByteString;
  readonly node: TreeNode;
  /** 1 for the entries of the root. */
  readonly depth: number;
  /** 32 bytes: the tree that lists the entry. */
  readonly treeId: Uint8Array;
}

export interface WalkOptions {
  /** What paths begin with, without a slash at its end; "" when absent. */
  readonly prefix?: ByteString;
  /**
   * Whether to walk into a directory; into all when absent. Asked once for each, in the order of its parent's entries but ahead of the
   * walk, so that trees can be loaded in time: what is below one may not have been walked when its next sibling is asked about.
   */
  readonly enter?: (entry: TreeEntry) => boolean;
  /** Told of a directory that cannot be loaded, or not be read from some entry on; the walk goes on behind it. Without it, it fails. */
  readonly onUnreadable?: (path: ByteString, treeId: Uint8Array, failure: Failure) => void;
  readonly signal?: AbortSignal;
}

/** Trees that are loaded, or being loaded, ahead of the walk at any moment. */
export const MAX_TREES_AHEAD = 48;
/** How many of one directory's subdirectories are loaded ahead, so that deeper ones, which are needed sooner, have room. */
const AHEAD_IN_DIRECTORY = 8;
/** No real tree is so deep: names of one byte reach it at a path of 32 KiB, eight times what Linux takes in one call. */
export const MAX_DEPTH = 16_384;
const BATCH_ENTRIES = 256;

/**
 * Walks the tree with this id.
 *
 * @param root 32 bytes
 * @yields runs of entries of one directory, in the order of the walk, never empty; the caller owns them
 * @throws BlobMissing, BlobInvalid, TreeInvalid, unless `onUnreadable` takes them; what `load` throws; Cancelled
 */
export async function* walkTree(
  load: TreeLoader,
  root: Uint8Array,
  options: WalkOptions = {},
): AsyncGenerator<readonly TreeEntry[], void, undefined> {
  const { prefix = "", signal } = options;
  const ahead = new ReadAhead(load, signal);
  const open: Directory[] = [];
  const ancestors = new Set<string>();

  function report(path: ByteString, treeId: Uint8Array, error: unknown): void {
    throwIfCancelled(signal);
    const failure = toFailure(error);
    const isOfTree = failure.kind === "corrupt" || failure.code === "StoreFileNotFound";
    if (options.onUnreadable === undefined || !isOfTree) throw failure;
    options.onUnreadable(path, treeId, failure);
  }

  async function enter({ path, subtree }: Below): Promise<void> {
    const hex = hexOf(subtree);
    try {
      if (ancestors.has(hex)) throw invalid(path, hex, "it contains itself");
      if (open.length >= MAX_DEPTH) throw invalid(path, hex, `it is more than ${MAX_DEPTH} directories deep`);
      open.push(new Directory(path, subtree, await ahead.take(subtree)));
      ancestors.add(hex);
    } catch (error) {
      report(path, subtree, error);
    }
  }

  try {
    await enter({ path: prefix, subtree: root });
    for (let directory = open.at(-1); directory !== undefined; directory = open.at(-1)) {
      throwIfCancelled(signal);
      const { entries, next } = directory.read(open.length, options.enter, ahead);
      if (entries.length > 0) yield entries;
      if (next !== undefined) await enter(next);
      else if (directory.isDone) {
        open.pop();
        ancestors.delete(hexOf(directory.treeId));
        if (directory.fault !== undefined) report(directory.path, directory.treeId, directory.fault);
      }
    }
  } finally {
    await ahead.close();
  }
}

/** A directory to be walked into. */
interface Below {
  readonly path: ByteString;
  readonly subtree: Uint8Array;
}

/** The entries of a directory that is being walked, from the first that was not yet given out. */
class Directory {
  readonly path: ByteString;
  readonly treeId: Uint8Array;
  /** Why the rest of the entries cannot be read. */
  fault: Failure | undefined;
  readonly #cursor: TreeCursor;
  #batch: TreeEntry[] = [];
  // for each entry of the batch, where it leads if it is walked into
  #below: (Below | undefined)[] = [];
  #at = 0;
  // entries of the batch before this one have their trees on the way
  #aheadUpTo = 0;

  constructor(path: ByteString, treeId: Uint8Array, bytes: Uint8Array) {
    this.path = path;
    this.treeId = treeId;
    this.#cursor = new TreeCursor(bytes);
  }

  get isDone(): boolean {
    return this.#cursor.isAtEnd && this.#at === this.#batch.length;
  }

  /** The next run of entries, up to and including the first that is walked into. */
  read(
    depth: number,
    enter: WalkOptions["enter"],
    ahead: ReadAhead,
  ): { readonly entries: readonly TreeEntry[]; readonly next: Below | undefined } {
    if (this.#at === this.#batch.length) this.#parseBatch(depth, enter);
    this.#loadAhead(ahead);
    const from = this.#at;
    let next: Below | undefined;
    while (this.#at < this.#batch.length && next === undefined) next = this.#below[this.#at++];
    return { entries: this.#batch.slice(from, this.#at), next };
  }

  #parseBatch(depth: number, enter: WalkOptions["enter"]): void {
    this.#batch = [];
    this.#below = [];
    this.#at = 0;
    this.#aheadUpTo = 0;
    while (!this.#cursor.isAtEnd && this.#batch.length < BATCH_ENTRIES) {
      const entry = this.#parseEntry(depth);
      if (entry === undefined) return;
      this.#batch.push(entry);
      const { node, path } = entry;
      const isEntered = node.subtree !== null && node.type === "dir" && (enter === undefined || enter(entry));
      this.#below.push(isEntered && node.subtree !== null ? { path, subtree: node.subtree } : undefined);
    }
  }

  /** The next entry, or `undefined` when it cannot be read; nothing is read after it then. */
  #parseEntry(depth: number): TreeEntry | undefined {
    try {
      const node = this.#cursor.next();
      if (node === undefined) return undefined;
      const path = `${this.path}/${node.name}`;
      if (node.type === "dir" && node.subtree === null)
        throw invalid(path, hexOf(this.treeId), "its entry is a directory but names no tree");
      return { path, node, depth, treeId: this.treeId };
    } catch (error) {
      this.fault = toFailure(error);
      this.#cursor.skipRest();
      return undefined;
    }
  }

  #loadAhead(ahead: ReadAhead): void {
    let started = 0;
    for (let i = this.#at; i < this.#aheadUpTo; i++) if (this.#below[i] !== undefined) started++;
    for (; this.#aheadUpTo < this.#below.length && started < AHEAD_IN_DIRECTORY; this.#aheadUpTo++) {
      const below = this.#below[this.#aheadUpTo];
      if (below === undefined) continue;
      // the first is needed at once, whatever the room
      if (started > 0 && !ahead.hasRoom) return;
      ahead.start(below.subtree);
      started++;
    }
  }
}

/** Trees on their way: started in the order in which they will be taken, and each taken as often as it was started. */
class ReadAhead {
  readonly #load: TreeLoader;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #waiting = new Map<string, { readonly loading: Promise<Uint8Array>; uses: number }>();

  constructor(load: TreeLoader, signal: AbortSignal | undefined) {
    this.#load = load;
    this.#signal = signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal]);
  }

  get hasRoom(): boolean {
    return this.#waiting.size < MAX_TREES_AHEAD;
  }

  start(id: Uint8Array): void {
    const hex = hexOf(id);
    const same = this.#waiting.get(hex);
    if (same !== undefined) {
      same.uses++;
      return;
    }
    const loading = this.#load(id, this.#signal);
    // its failure belongs to whoever takes it
    loading.catch(() => undefined);
    this.#waiting.set(hex, { loading, uses: 1 });
  }

  take(id: Uint8Array): Promise<Uint8Array> {
    const hex = hexOf(id);
    const same = this.#waiting.get(hex);
    if (same === undefined) return this.#load(id, this.#signal);
    same.uses--;
    if (same.uses === 0) this.#waiting.delete(hex);
    return same.loading;
  }

  /** Stops what is still on its way, when a walk ends early. */
  async close(): Promise<void> {
    this.#abort.abort(new Failure("Cancelled", "The walk of a snapshot ended before its end"));
    await Promise.allSettled([...this.#waiting.values()].map(({ loading }) => loading));
  }
}

/**
 * Finds what a path leads to.
 *
 * @param path from the root, with or without a slash before it; empty parts and `.` are left out, `..` is a name that no entry has
 * @returns the entry; its depth is 0 when the path names the root itself, for which a directory is made up
 * @throws PathNotFound; what `load` throws
 */
export async function findEntry(
  load: TreeLoader,
  root: Uint8Array,
  { path, signal }: { path: ByteString; signal?: AbortSignal },
): Promise<TreeEntry> {
  let entry: TreeEntry = { path: "", node: { ...ROOT, name: "", subtree: root }, depth: 0, treeId: root };
  for (const name of path.split("/").filter((part) => part !== "" && part !== ".")) {
    const { subtree, type } = entry.node;
    if (subtree === null) throw notFound(path, `"${toUtf8OrEscaped(entry.path)}" is no directory but a ${type}`);
    const node = findNode(await load(subtree, signal), name);
    if (node === undefined) throw notFound(path, `the snapshot has no "${toUtf8OrEscaped(`${entry.path}/${name}`)}"`);
    entry = { path: `${entry.path}/${name}`, node, depth: entry.depth + 1, treeId: subtree };
  }
  return entry;
}

const ROOT_JSON = Buffer.from('{"name":"root","type":"dir"}');
const ROOT: TreeNode = parseNode(ROOT_JSON, 0, ROOT_JSON.length);

function notFound(path: ByteString, found: string): Failure {
  return new Failure("PathNotFound", `Cannot find "${toUtf8OrEscaped(path)}": ${found}`);
}

function invalid(path: ByteString, treeId: string, found: string): Failure {
  return new Failure("TreeInvalid", `Cannot walk "${toUtf8OrEscaped(path) || "/"}": ${found}`, { details: { treeId } });
}
