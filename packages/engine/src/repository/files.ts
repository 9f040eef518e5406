/**
 * The small sealed files of a repository, by kind and id: saved durably under the hash of their bytes, and checked against it when read.
 */
import { Failure, isFailure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import { sha256Hex } from "../crypto/hash.ts";
import type { Sealer } from "../crypto/seal.ts";
import type { Config } from "../format/config.ts";
import { decodeFile, encodeFile } from "../format/file.ts";
import {
  type IndexId,
  type KeyId,
  type LockId,
  parseIndexId,
  parseKeyId,
  parseLockId,
  parseSnapshotId,
  type SnapshotId,
} from "../format/ids.ts";
import { releaseMemory } from "../native/memory.ts";
import { describeRef } from "../store/layout.ts";
import type { Store } from "../store/store.ts";

/** What it takes to read and write sealed files; every repository is one. */
export interface FileAccess {
  readonly store: Store;
  readonly sealer: Sealer;
  readonly config: Config;
}

/** The type of the ids of each kind of small file. */
export interface IdOfKind {
  readonly key: KeyId;
  readonly snapshot: SnapshotId;
  readonly index: IndexId;
  readonly lock: LockId;
}
/** Kinds of small files that have ids. */
export type NamedKind = keyof IdOfKind;
/** Kinds of small files that are sealed. Key files are not. */
export type SealedKind = Exclude<NamedKind, "key">;

/** A file as it is listed. */
export interface ListedFile<K extends NamedKind> {
  readonly id: IdOfKind[K];
  /** Bytes as stored. */
  readonly sizeBytes: number;
}

const parsers: { readonly [K in NamedKind]: (text: string) => IdOfKind[K] } = {
  key: parseKeyId,
  snapshot: parseSnapshotId,
  index: parseIndexId,
  lock: parseLockId,
};
const codes: Readonly<Record<SealedKind, string>> = { snapshot: "SnapshotInvalid", index: "IndexInvalid", lock: "LockInvalid" };

/** What JSON may take beyond its stored size: ids are random and compress to half; the rest of an index by a factor of 10 at most. */
const limitFactor = 256;
const limitSlackBytes = 16 * 2 ** 20;
/** Of no file, however large: what one buffer can be expected to hold. */
const limitMaxBytes = 2 ** 32 - 1;

/**
 * Seals JSON and saves it; once this resolves, the file is durable.
 *
 * @param json not changed
 * @throws StoreFull, StoreDenied, StoreUnavailable; Cancelled
 */
export async function saveFile<K extends SealedKind>(
  access: FileAccess,
  file: { readonly kind: K; readonly json: Uint8Array },
  signal?: AbortSignal,
): Promise<IdOfKind[K]> {
  const { id, sealed } = sealFile(access, file);
  await access.store.save({ kind: file.kind, name: id }, sealed, signal);
  return id;
}

/** The first half of {@link saveFile}, for who must know the id before the file is there. */
export function sealFile<K extends SealedKind>(
  access: FileAccess,
  file: { readonly kind: K; readonly json: Uint8Array },
): { readonly id: IdOfKind[K]; readonly sealed: Uint8Array } {
  const sealed = encodeFile(access.sealer, file.json, access.config.version > 1);
  return { id: parsers[file.kind](sha256Hex(sealed)), sealed };
}

/**
 * Loads a file, checks that its content belongs to its name, and opens it.
 *
 * @returns the JSON, which the caller owns
 * @throws StoreFileNotFound; NameMismatch when it is damaged or swapped; SnapshotInvalid, IndexInvalid, LockInvalid when it cannot be opened
 */
export async function loadFile<K extends SealedKind>(
  access: FileAccess,
  file: { readonly kind: K; readonly id: IdOfKind[K] },
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const sealed = await access.store.load({ kind: file.kind, name: file.id }, undefined, signal);
  const json = openFile(access, file, sealed);
  releaseMemory(sealed);
  return json;
}

/**
 * The second half of {@link loadFile}, for who loads many files ahead.
 *
 * @param sealed the file as stored; not changed
 * @returns the JSON, which the caller owns
 * @throws NameMismatch, SnapshotInvalid, IndexInvalid, LockInvalid
 */
export function openFile<K extends SealedKind>(
  access: FileAccess,
  file: { readonly kind: K; readonly id: IdOfKind[K] },
  sealed: Uint8Array,
): Uint8Array {
  const ref = { kind: file.kind, name: file.id };
  checkName(ref, sealed);
  const limitBytes = Math.min(limitMaxBytes, sealed.length * limitFactor + limitSlackBytes);
  return decodeFile(access.sealer, sealed, { code: codes[file.kind], subject: describeRef(ref), limitBytes });
}

/** @throws NameMismatch when these are not the bytes that got this name */
export function checkName(ref: { readonly kind: NamedKind; readonly name: string }, bytes: Uint8Array): void {
  const found = sha256Hex(bytes);
  if (found === ref.name) return;
  throw new Failure("NameMismatch", `Cannot read ${describeRef(ref)}: its ${bytes.length} bytes have the hash "${found}"`, {
    details: { ...ref, foundName: found, sizeBytes: bytes.length },
  });
}

/** Lists the files of a kind, in any order. @throws StoreDenied, StoreUnavailable; Cancelled */
export async function* listFiles<K extends NamedKind>(store: Store, kind: K, signal?: AbortSignal): AsyncGenerator<ListedFile<K>> {
  for await (const { name, sizeBytes } of store.list(kind, signal)) yield { id: parsers[kind](name), sizeBytes };
}

/** The ids of a kind that begin with these characters, in order; none for no characters. */
export async function listByPrefix<K extends NamedKind>(
  store: Store,
  wanted: { readonly kind: K; readonly prefix: string },
  signal?: AbortSignal,
): Promise<IdOfKind[K][]> {
  const ids: IdOfKind[K][] = [];
  if (wanted.prefix === "") return ids;
  for await (const { id } of listFiles(store, wanted.kind, signal)) if (id.startsWith(wanted.prefix)) ids.push(id);
  return ids.sort();
}

/**
 * Whether a failure says that one file is damaged or has vanished, so that a reader who is told to go on without it may.
 * Everything else, a store that does not answer above all, ends the work.
 */
export function isFileDamage(error: unknown): boolean {
  return isFailure(error) && (error.kind === "corrupt" || error.code === "StoreFileNotFound");
}

/** Throws what is no damage, and hands what is to `onDamaged`, when there is one. */
export function reportDamage(error: unknown, onDamaged: ((failure: Failure) => void) | undefined): void {
  if (onDamaged === undefined || !isFileDamage(error)) throw error;
  onDamaged(toFailure(error));
}
