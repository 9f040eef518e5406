/**
 * Finds entries by name, or what refers to a blob, a tree or a pack, in many snapshots.
 *
 * Snapshots mostly repeat each other, so what is known to hold no match is not searched again: a directory is remembered by its tree and,
 * when names are sought, its path. Memory: about 50 bytes for each such directory.
 */
import { createHash } from "node:crypto";
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import type { ByteString } from "../format/byte-string.ts";
import { type BlobId, bytesOfId, hexOf, ID_BYTES, type SnapshotId } from "../format/ids.ts";
import { joinTimeNs } from "../format/time.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import type { BlobIndex, BlobPlace } from "../repository/blob-index.ts";
import type { PatternList } from "../selection/pattern.ts";
import { IdSet } from "./id-set.ts";
import { type TreeEntry, walkTree } from "./tree-walk.ts";

/** Entries by name, and by when they were changed. */
export interface NameQuery {
  readonly kind: "names";
  /** Matched with the whole path, as restic's `find` does: a pattern without a leading slash matches anywhere. */
  readonly patterns: PatternList;
  /** Nanoseconds since 1970, both inclusive. */
  readonly oldestNs?: bigint;
  readonly newestNs?: bigint;
}

/** What refers to objects of the repository. */
export interface ObjectQuery {
  readonly kind: "objects";
  /** Whether a blob of a file is sought; its 32 bytes begin at `at`. */
  readonly isBlob: (id: Uint8Array, at: number) => boolean;
  /** Whether a tree is sought. */
  readonly isTree: (id: Uint8Array, at: number) => boolean;
}

/** A snapshot to search in. */
export interface FindSubject {
  readonly id: SnapshotId;
  readonly tree: BlobId;
}

/** What is found. */
export type FindEvent<S extends FindSubject> =
  | { readonly kind: "match"; readonly snapshot: S; readonly entry: TreeEntry }
  | {
      readonly kind: "object";
      readonly objectType: "blob" | "tree";
      /** 64 hex characters. */
      readonly id: string;
      /** The file that has the blob, or the directory that the tree is; the root is "/". */
      readonly path: ByteString;
      /** Of a blob: the tree that lists the file, 64 hex characters; else "". */
      readonly parentTree: string;
      readonly snapshot: S;
    }
  | { readonly kind: "unreadable"; readonly snapshot: S; readonly path: ByteString; readonly treeId: string; readonly failure: Failure };

/**
 * Searches snapshots one after the other, in the given order, and each in the order of the walk.
 *
 * @yields runs of events, never empty
 * @throws what `load` throws that is not about one directory; Cancelled
 */
export async function* findEntries<S extends FindSubject>(
  load: TreeLoader,
  snapshots: Iterable<S> | AsyncIterable<S>,
  options: { readonly query: NameQuery | ObjectQuery; readonly signal?: AbortSignal },
): AsyncGenerator<readonly FindEvent<S>[], void, undefined> {
  const { query, signal } = options;
  const barren = new IdSet();
  for await (const snapshot of snapshots) {
    const search = new SnapshotSearch(snapshot, query, barren);
    const root = bytesOfId(snapshot.tree);
    if (!search.begin(root)) continue;
    const walk = walkTree(load, root, {
      enter: (entry) => search.enter(entry),
      onUnreadable: (path, treeId, failure) => search.fail(path, treeId, failure),
      ...(signal && { signal }),
    });
    for await (const batch of walk) {
      for (const entry of batch) search.visit(entry);
      yield* search.takeEvents();
    }
    search.finish();
    yield* search.takeEvents();
  }
}

/** A directory that is being searched. */
interface OpenDirectory {
  readonly path: ByteString;
  readonly depth: number;
  readonly key: Uint8Array;
  /** Whether something was found in it, or part of it could not be searched. */
  isFruitful: boolean;
}

class SnapshotSearch<S extends FindSubject> {
  readonly #snapshot: S;
  readonly #query: NameQuery | ObjectQuery;
  readonly #barren: IdSet;
  readonly #open: OpenDirectory[] = [];
  #events: FindEvent<S>[] = [];

  constructor(snapshot: S, query: NameQuery | ObjectQuery, barren: IdSet) {
    this.#snapshot = snapshot;
    this.#query = query;
    this.#barren = barren;
  }

  /** @returns whether there is anything to search */
  begin(root: Uint8Array): boolean {
    this.#visitTree("", root);
    const key = this.#keyOf("", root);
    this.#open.push({ path: "", depth: 0, key, isFruitful: this.#events.length > 0 });
    return !this.#barren.has(key);
  }

  enter({ path, node }: TreeEntry): boolean {
    if (node.subtree === null || this.#barren.has(this.#keyOf(path, node.subtree))) return false;
    return this.#query.kind === "objects" || this.#query.patterns.matchesWithChildren(path).childMayMatch;
  }

  visit(entry: TreeEntry): void {
    this.#leaveTo(entry.depth);
    const before = this.#events.length;
    const { node, path } = entry;
    if (this.#query.kind === "names") this.#visitName(this.#query, entry);
    else if (node.content !== null) this.#visitContent(this.#query, entry);
    else if (node.subtree !== null) this.#visitTree(path, node.subtree);
    const parent = this.#open.at(-1);
    if (this.#events.length > before && parent !== undefined) parent.isFruitful = true;
    if (node.subtree !== null) this.#open.push({ path, depth: entry.depth, key: this.#keyOf(path, node.subtree), isFruitful: false });
  }

  fail(path: ByteString, treeId: Uint8Array, failure: Failure): void {
    const directory = this.#open.findLast((open) => open.path === path);
    if (directory !== undefined) directory.isFruitful = true;
    this.#events.push({ kind: "unreadable", snapshot: this.#snapshot, path, treeId: hexOf(treeId), failure });
  }

  finish(): void {
    this.#leaveTo(0);
  }

  *takeEvents(): Generator<readonly FindEvent<S>[], void, undefined> {
    if (this.#events.length === 0) return;
    yield this.#events;
    this.#events = [];
  }

  /** Closes the directories that are no ancestors of an entry of this depth. */
  #leaveTo(depth: number): void {
    for (let last = this.#open.at(-1); last !== undefined && last.depth >= depth; last = this.#open.at(-1)) {
      this.#open.pop();
      const parent = this.#open.at(-1);
      if (!last.isFruitful) this.#barren.add(last.key);
      else if (parent !== undefined) parent.isFruitful = true;
    }
  }

  #visitName(query: NameQuery, entry: TreeEntry): void {
    if (!query.patterns.matches(entry.path)) return;
    const mtimeNs = joinTimeNs(entry.node.mtimeSeconds, entry.node.mtimeNanos);
    if (query.oldestNs !== undefined && mtimeNs < query.oldestNs) return;
    if (query.newestNs !== undefined && mtimeNs > query.newestNs) return;
    this.#events.push({ kind: "match", snapshot: this.#snapshot, entry });
  }

  #visitContent(query: ObjectQuery, { node: { content }, path, treeId }: TreeEntry): void {
    if (content === null) return;
    for (let at = 0; at < content.length; at += ID_BYTES) {
      if (query.isBlob(content, at)) this.#found("blob", hexOf(content, at), { path, parentTree: hexOf(treeId) });
    }
  }

  #visitTree(path: ByteString, tree: Uint8Array): void {
    if (this.#query.kind !== "objects" || !this.#query.isTree(tree, 0)) return;
    this.#found("tree", hexOf(tree), { path: path === "" ? "/" : path, parentTree: "" });
  }

  #found(objectType: "blob" | "tree", id: string, place: { readonly path: ByteString; readonly parentTree: string }): void {
    this.#events.push({ kind: "object", objectType, id, ...place, snapshot: this.#snapshot });
  }

  #keyOf(path: ByteString, tree: Uint8Array): Uint8Array {
    if (this.#query.kind === "objects") return tree;
    return createHash("sha256").update(tree).update(path, "latin1").digest();
  }
}

/**
 * Which ids begin with one of these.
 *
 * @param prefixes 1 to 64 lower-case hex characters each
 * @throws InvalidArgument
 */
export function matchIdPrefixes(prefixes: readonly string[]): (id: Uint8Array, at: number) => boolean {
  const wrong = prefixes.find((prefix) => !/^[0-9a-f]{1,64}$/.test(prefix));
  if (wrong !== undefined)
    throw new Failure("InvalidArgument", `Cannot search for id "${wrong}": 1 to 64 lower-case hex characters are needed`);
  const wanted = prefixes.map((prefix) => ({ prefix, first: Number.parseInt(prefix.slice(0, 2), 16), isByte: prefix.length > 1 }));
  return (id, at) => {
    const first = id[at] ?? 0;
    return wanted.some((one) => (one.isByte ? first === one.first : first >>> 4 === one.first) && hexOf(id, at).startsWith(one.prefix));
  };
}

/** The query for whatever refers to blobs of these packs. @param prefixes as {@link matchIdPrefixes} @throws InvalidArgument, also for one that no pack has */
export function queryPacks(index: BlobIndex, prefixes: readonly string[]): ObjectQuery {
  const isWanted = matchIdPrefixes(prefixes);
  const packs = new Set<number>();
  const missing = new Set(prefixes);
  for (let pack = 0; pack < index.packs; pack++) {
    const id = index.packId(pack);
    if (!isWanted(id, 0)) continue;
    packs.add(pack);
    for (const prefix of missing) if (hexOf(id).startsWith(prefix)) missing.delete(prefix);
  }
  const [first] = missing;
  if (first !== undefined) throw new Failure("InvalidArgument", `Cannot search for pack "${first}": the index has none whose id begins so`);
  const isIn = (id: Uint8Array, at: number): boolean => {
    const place = findPlace(index, id, at);
    return place !== undefined && packs.has(place.pack);
  };
  return { kind: "objects", isBlob: isIn, isTree: isIn };
}

function findPlace(index: BlobIndex, id: Uint8Array, at: number): BlobPlace | undefined {
  const entry = index.find(id, at);
  return entry < 0 ? undefined : index.placeOf(entry);
}

/** Where a blob is. */
export interface BlobLocation extends BlobPlace {
  /** 64 hex characters. */
  readonly packId: string;
}

/** Where a blob is, or `undefined` when no pack in the index has it. @param id 64 hex characters */
export function locateBlob(index: BlobIndex, id: string): BlobLocation | undefined {
  const place = findPlace(index, Buffer.from(id, "hex"), 0);
  return place === undefined ? undefined : { ...place, packId: hexOf(index.packId(place.pack)) };
}
