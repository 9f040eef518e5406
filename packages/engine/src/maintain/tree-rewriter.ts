/**
 * Makes trees without what cannot be read: files of which pieces are missing, trees that cannot be loaded, entries that are none.
 *
 * Each tree is made once, however many snapshots share it. Memory: 200 bytes a tree, and the trees on the way from the root to the one at hand.
 */
import { type Failure, isFailure } from "@granary/base/errors";
import "../errors.ts";
import { sealOverheadBytes } from "../crypto/seal.ts";
import type { ByteString } from "../format/byte-string.ts";
import { type BlobId, blobIdOf, bytesOfId, ID_BYTES } from "../format/ids.ts";
import type { TreeNode } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import { encodeTree, scanTree, TreeWriter } from "../format/tree.ts";
import { createTreeLoader, type TreeLoader } from "../repository/blob-load.ts";
import type { Repository } from "../repository/repository.ts";
import type { IndexSurvey } from "./index-survey.ts";

/** One thing that is taken out of a snapshot, or changed in it. */
export interface RepairedEntry {
  /** Raw bytes, as in `/home/alice`; "/" for the root. */
  readonly path: ByteString;
  /**
   * - `fileRemoved`, `fileShortened`: pieces of it are missing
   * - `directoryEmptied`: its tree cannot be read
   * - `entryRemoved`: it has no possible name, no known type, or is there twice
   * - `directorySorted`: its entries were not in order
   */
  readonly what: "fileRemoved" | "fileShortened" | "directoryEmptied" | "entryRemoved" | "directorySorted";
}

/** Of each root's changes, so many are told. */
const maxTold = 1000;

export interface TreeRewriterOptions {
  readonly survey: IndexSurvey;
  readonly isPresent: (pack: number) => boolean;
  readonly keepPartialFiles: boolean;
  /** Stores a tree. @returns its id */
  readonly save: (tree: Uint8Array) => Promise<BlobId>;
}

export interface RewrittenRoot {
  /** `undefined` when it cannot be read. */
  readonly root: BlobId | undefined;
  readonly changes: readonly RepairedEntry[];
  readonly changeCount: number;
  readonly message?: string;
}

/** Makes trees without what cannot be read. Each is made once, however many snapshots share it. */
export class TreeRewriter {
  readonly #options: TreeRewriterOptions;
  readonly #load: TreeLoader;
  /** What became of each tree; `null` when it cannot be read. */
  readonly #results = new Map<BlobId, BlobId | null>();
  #changes: RepairedEntry[] = [];
  #changeCount = 0;
  #message: string | undefined;

  constructor(repository: Repository, options: TreeRewriterOptions) {
    this.#options = options;
    this.#load = createTreeLoader({ store: repository.store, sealer: repository.sealer, index: options.survey.trees });
  }

  async rewriteRoot(tree: BlobId, signal: AbortSignal | undefined): Promise<RewrittenRoot> {
    this.#changes = [];
    this.#changeCount = 0;
    this.#message = undefined;
    const root = (await this.#rewrite(tree, "", signal)) ?? undefined;
    const message = root === undefined ? { message: this.#message ?? "its root cannot be read" } : {};
    return { root, changes: this.#changes, changeCount: this.#changeCount, ...message };
  }

  async #rewrite(tree: BlobId, path: ByteString, signal: AbortSignal | undefined): Promise<BlobId | null> {
    const known = this.#results.get(tree);
    if (known !== undefined) return known;
    const entries = await this.#read(tree, path, signal);
    let result: BlobId | null = null;
    if (entries !== undefined) {
      const isChanged = await this.#rewriteEntries(entries, path, signal);
      result = isChanged ? await this.#options.save(encodeEntries(entries)) : tree;
    }
    this.#results.set(tree, result);
    return result;
  }

  /** @returns `undefined` when the tree cannot be read */
  async #read(tree: BlobId, path: ByteString, signal: AbortSignal | undefined): Promise<Entries | undefined> {
    try {
      const bytes = await this.#loadAnyCopy(tree, signal);
      const entries: Entries = { bytes, list: [], isChanged: false };
      let problems = 0;
      scanTree(bytes, (name, start, end) => void entries.list.push({ name, start, end }), { onProblem: () => void problems++ });
      if (problems > 0) this.#putInOrder(entries, path, problems);
      return entries;
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#message ??= error.message;
      return undefined;
    }
  }

  async #loadAnyCopy(tree: BlobId, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const { survey } = this.#options;
    const id = bytesOfId(tree);
    for (let copy = 0; ; copy++) {
      try {
        return await this.#load(id, signal);
      } catch (error) {
        const entry = survey.trees.find(id);
        if (!isDamage(error) || entry < 0 || !survey.swapFirst(entry * 2 + 1, copy)) throw error;
      }
    }
  }

  /** Leaves entries with possible names, each once, in order. @param problems of all kinds that were found with names */
  #putInOrder(entries: Entries, path: ByteString, problems: number): void {
    const seen = new Set<ByteString>();
    let last: ByteString = "";
    let isSorted = true;
    let nameless = problems;
    for (const entry of entries.list) {
      if (entry.name > last) last = entry.name;
      else nameless--; // one problem was that it comes here
      if (seen.has(entry.name)) {
        entry.isRemoved = true;
        this.#note(`${path}/${entry.name}`, "entryRemoved", entries);
      } else if (entry.name < last) isSorted = false;
      seen.add(entry.name);
    }
    for (let i = 0; i < nameless; i++) this.#note(`${path}/?`, "entryRemoved", entries);
    if (!isSorted) this.#note(path === "" ? "/" : path, "directorySorted", entries);
    entries.list.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)); // stable: of one name the first stays the first
  }

  async #rewriteEntries(entries: Entries, path: ByteString, signal: AbortSignal | undefined): Promise<boolean> {
    for (const entry of entries.list) {
      if (entry.isRemoved === true) continue;
      const at = `${path}/${entry.name}`;
      const node = this.#parse(entries, entry);
      if (node === undefined) {
        entry.isRemoved = true;
        this.#note(at, "entryRemoved", entries);
      } else if (node.type === "dir") {
        const made = node.subtree === null ? null : await this.#rewrite(blobIdOf(node.subtree), at, signal);
        if (made === null) {
          entry.node = { ...node, subtree: bytesOfId(await this.#options.save(encodeTree([]))) };
          this.#note(at, "directoryEmptied", entries);
        } else if (node.subtree !== null && made !== blobIdOf(node.subtree)) {
          entry.node = { ...node, subtree: bytesOfId(made) };
          entries.isChanged = true;
        }
      } else if (node.type === "file") this.#rewriteFile(entries, entry, { node, at });
    }
    return entries.isChanged;
  }

  #parse({ bytes }: Entries, { start, end }: Entry): TreeNode | undefined {
    try {
      const node = parseNode(bytes, start, end);
      return node.type === "irregular" ? undefined : node;
    } catch (error) {
      if (isFailure(error, "TreeInvalid")) return undefined;
      throw error;
    }
  }

  #rewriteFile(entries: Entries, entry: Entry, { node, at }: { readonly node: TreeNode; readonly at: ByteString }): void {
    const content = node.content ?? new Uint8Array();
    const kept: Uint8Array[] = [];
    let sizeBytes = 0;
    for (let offset = 0; offset < content.length; offset += ID_BYTES) {
      const plainBytes = this.#sizeOf(content, offset);
      if (plainBytes === undefined) continue;
      kept.push(content.subarray(offset, offset + ID_BYTES));
      sizeBytes += plainBytes;
    }
    if (node.content !== null && kept.length * ID_BYTES === content.length) return;
    if (this.#options.keepPartialFiles) entry.node = { ...node, content: Buffer.concat(kept), size: sizeBytes };
    else entry.isRemoved = true;
    this.#note(at, this.#options.keepPartialFiles ? "fileShortened" : "fileRemoved", entries);
  }

  /** Plain bytes of a data blob; `undefined` when it cannot be read. */
  #sizeOf(content: Uint8Array, offset: number): number | undefined {
    const { survey, isPresent } = this.#options;
    const entry = survey.data.find(content, offset);
    const place = entry < 0 ? undefined : survey.data.placeOf(entry);
    if (place === undefined || !isPresent(place.pack)) return undefined;
    return place.plainBytes === 0 ? place.sealedBytes - sealOverheadBytes : place.plainBytes;
  }

  #note(path: ByteString, what: RepairedEntry["what"], entries: Entries): void {
    entries.isChanged = true;
    this.#changeCount++;
    if (this.#changes.length < maxTold) this.#changes.push({ path, what });
  }
}

interface Entry {
  readonly name: ByteString;
  readonly start: number;
  readonly end: number;
  isRemoved?: boolean;
  /** In place of what the tree has. */
  node?: TreeNode;
}

interface Entries {
  readonly bytes: Uint8Array;
  readonly list: Entry[];
  isChanged: boolean;
}

function encodeEntries({ bytes, list }: Entries): Uint8Array {
  const writer = new TreeWriter();
  for (const { name, start, end, isRemoved, node } of list) {
    if (isRemoved === true) continue;
    if (node === undefined) writer.addRaw(name, bytes.subarray(start, end));
    else writer.add(node);
  }
  return writer.finish();
}

function isDamage(error: unknown): error is Failure {
  return isFailure(error) && (error.kind === "corrupt" || error.kind === "notFound");
}
