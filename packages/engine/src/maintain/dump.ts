/**
 * Writes a file of a snapshot, or a folder as a tar or zip archive, to a stream. Memory is bounded whatever the sizes: blobs are read a
 * little ahead, and nothing waits for a whole file. (Zip needs some bytes for each entry, for its directory at the end.)
 */
import { pipeline } from "node:stream/promises";
import { Failure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import "../errors.ts";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import { type BlobId, bytesOfId } from "../format/ids.ts";
import type { TreeNode } from "../format/node.ts";
import { type BlobSource, createTreeLoader, type TreeLoader } from "../repository/blob-load.ts";
import { measureContent, readContent } from "./file-content.ts";
import { encodeTarHeader, fitsTar, tarEnd, tarPadding } from "./tar.ts";
import { findEntry, type TreeEntry, walkTree } from "./tree-walk.ts";
import { deflatePiece, fitsZip, ZipWriter } from "./zip.ts";

/** Archive formats for folders. */
export type ArchiveFormat = "tar" | "zip";

/** What to dump. */
export interface DumpSubject {
  /** A repository with its index. */
  readonly source: BlobSource;
  /** The snapshot's tree. */
  readonly tree: BlobId;
  /** A file or a folder; "/" is the whole snapshot. */
  readonly path: ByteString;
  /** For a folder. */
  readonly format: ArchiveFormat;
}

/** What happens during a dump. */
export type DumpEvent =
  /** An entry begins. */
  | { readonly kind: "entry"; readonly path: ByteString; readonly sizeBytes: number }
  /** An entry is left out, because the archive format has no place for it. */
  | { readonly kind: "skipped"; readonly path: ByteString; readonly type: TreeNode["type"] };

export interface DumpOptions {
  /** Must not throw. */
  readonly onEvent?: (event: DumpEvent) => void;
  readonly signal?: AbortSignal;
}

/** What a path is. */
export interface FoundDump {
  /** Whether an archive will be written rather than a file. */
  readonly isArchive: boolean;
  /** What will be written; the caller consumes it once. */
  readonly bytes: AsyncGenerator<Uint8Array, void, undefined>;
}

/**
 * Finds what to dump. Nothing is read of it before its bytes are asked for, so that the caller can refuse, an archive on a terminal say.
 *
 * Paths in archives are relative to the snapshot's root, as restic has them: what is in `/home/alice` comes as `home/alice/…`, the folder
 * itself does not come.
 *
 * @throws PathNotFound; InvalidArgument when it is neither a file nor a folder; what `loadBlob` throws. So do the bytes.
 */
export async function openDump(subject: DumpSubject, options: DumpOptions = {}): Promise<FoundDump> {
  const { source, path } = subject;
  const { signal } = options;
  const load = createTreeLoader(source);
  const entry = await findEntry(load, bytesOfId(subject.tree), { path, ...(signal && { signal }) });
  const { node } = entry;
  if (node.subtree !== null) {
    const write = subject.format === "tar" ? writeTar : writeZip;
    return { isArchive: true, bytes: write(source, walkFolder(load, entry, signal), options) };
  }
  if (node.type !== "file" || node.content === null) {
    throw new Failure("InvalidArgument", `Cannot dump "${toUtf8OrEscaped(path)}": it is neither a file nor a folder but a ${node.type}`);
  }
  return { isArchive: false, bytes: readContent(source, node.content, { prepare: (plain) => plain, ...(signal && { signal }) }) };
}

/**
 * Dumps to a stream, which is left open.
 *
 * @throws as {@link openDump}; what the stream fails with, unchanged
 */
export async function dumpTo(target: NodeJS.WritableStream, subject: DumpSubject, options: DumpOptions = {}): Promise<void> {
  const { bytes } = await openDump(subject, options);
  const { signal } = options;
  await pipeline(bytes, target, { end: false, ...(signal && { signal }) });
}

async function* walkFolder(
  load: TreeLoader,
  { path, node }: TreeEntry,
  signal: AbortSignal | undefined,
): AsyncGenerator<TreeEntry, void, undefined> {
  if (node.subtree === null) return;
  for await (const batch of walkTree(load, node.subtree, { prefix: path, ...(signal && { signal }) })) yield* batch;
}

async function* writeTar(
  source: BlobSource,
  entries: AsyncIterable<TreeEntry>,
  options: DumpOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const files = readAhead(source, entries, { ...options, fits: fitsTar, prepare: (plain) => plain });
  for await (const { path, node, sizeBytes, content } of files) {
    yield encodeTarHeader(path.slice(1), node, sizeBytes);
    yield* content;
    yield tarPadding(sizeBytes);
  }
  yield tarEnd;
}

async function* writeZip(
  source: BlobSource,
  entries: AsyncIterable<TreeEntry>,
  options: DumpOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const writer = new ZipWriter();
  const files = readAhead(source, entries, { ...options, fits: fitsZip, prepare: deflatePiece });
  for await (const { path, node, sizeBytes, content } of files) yield* writer.add(path.slice(1), node, { sizeBytes, content });
  yield* writer.finish();
}

/** An entry whose content is at hand, or begins to be read when it is asked for. */
interface ReadyEntry<T> {
  readonly path: ByteString;
  readonly node: TreeNode;
  readonly sizeBytes: number;
  readonly content: AsyncIterable<T> | Iterable<T>;
}

interface ReadAheadOptions<T> extends DumpOptions {
  readonly fits: (node: TreeNode) => boolean;
  readonly prepare: (plain: Uint8Array) => T | Promise<T>;
}

/** Files up to this size are read while others before them are written, so that a store far away is not asked one by one. */
const SMALL_FILE_BYTES = 2 ** 20;
const FILES_AHEAD = 16;

async function* readAhead<T>(
  source: BlobSource,
  entries: AsyncIterable<TreeEntry>,
  { fits, onEvent, prepare, signal }: ReadAheadOptions<T>,
): AsyncGenerator<ReadyEntry<T>, void, undefined> {
  const limit = { limit: FILES_AHEAD, ...(signal && { signal }) };
  const ready = mapOrdered(entries, limit, async ({ path, node }, stop): Promise<ReadyEntry<T>> => {
    const ids = node.type === "file" && node.content !== null ? node.content : new Uint8Array(0);
    const sizeBytes = measureContent(source.index, ids);
    const isSmall = sizeBytes <= SMALL_FILE_BYTES;
    const content = isSmall
      ? await Array.fromAsync(readContent(source, ids, { prepare, signal: stop }))
      : readContent(source, ids, { prepare, ...(signal && { signal }) });
    return { path, node, sizeBytes, content };
  });
  for await (const entry of ready) {
    const { path, node, sizeBytes } = entry;
    const isFit = fits(node);
    onEvent?.(isFit ? { kind: "entry", path, sizeBytes } : { kind: "skipped", path, type: node.type });
    if (isFit) yield entry;
  }
}
