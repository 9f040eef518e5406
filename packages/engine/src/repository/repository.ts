/**
 * A repository: a store, the master key that a password opens, and the index of its blobs.
 *
 * Creating one writes the key first and the config last, which is what makes it a repository; interrupted before that, it can be created
 * again. Opening reads the config, and tries keys until one opens both its own file and the config: a key file left behind by an
 * interrupted creation opens with its password too, but not the config.
 *
 * What it does not do: it takes no lock (lock.ts) and loads no index (index-load.ts); snapshots must be listed before the index is loaded,
 * so the caller decides when.
 */
import { randomBytes } from "node:crypto";
import { throwIfCancelled } from "@granary/base/cancel";
import { Failure, isFailure } from "@granary/base/errors";
import type { Secret } from "@granary/base/secret";
import "../errors.ts";
import { createPolynomial, parsePolynomial } from "../chunk/polynomial.ts";
import { type MasterKey, Sealer } from "../crypto/seal.ts";
import { type Config, encodeConfig, MAX_VERSION, parseConfig } from "../format/config.ts";
import { decodeFile, encodeFile } from "../format/file.ts";
import type { KeyId } from "../format/ids.ts";
import type { FileKind, FileRef, Store } from "../store/store.ts";
import { BlobIndex } from "./blob-index.ts";
import { listFiles } from "./files.ts";
import { type CreateKeyOptions, normalizeKey, saveKey, searchKey, type SearchKeyOptions } from "./keys.ts";

/** An open repository. Belongs to one thread; workers get the key and the index's handle, and make their own sealers. */
export interface Repository {
  /** Closed by whoever opened it. */
  readonly store: Store;
  readonly config: Config;
  /** The key that opened it. */
  readonly keyId: KeyId;
  readonly key: MasterKey;
  /** Of this thread. */
  readonly sealer: Sealer;
  /** Empty until index files are loaded into it. */
  readonly index: BlobIndex;
}

/** How a repository is created. */
export interface CreateRepositoryOptions extends CreateKeyOptions {
  readonly password: Secret;
  /** For a repository whose restic clients shall cut as in another one; drawn by lot when absent. */
  readonly chunkerPolynomial?: bigint;
}

/** How a repository is opened. */
export interface OpenRepositoryOptions extends SearchKeyOptions {
  readonly password: Secret;
}

const configRef: FileRef = { kind: "config", name: "" };
/** A config is some 200 bytes; other programs may add to it. */
const configLimitBytes = 2 ** 20;

/**
 * Creates a repository of version 2.
 *
 * Half-made remains of an interrupted creation do not matter. Of two that run at the same time, one succeeds.
 *
 * @throws RepositoryExists, also when there is no config but there are snapshots, index files or packs, that is, when it was lost;
 *   InvalidArgument for an empty password; StoreFull, StoreDenied, StoreUnavailable; Cancelled
 */
export async function createRepository(store: Store, options: CreateRepositoryOptions): Promise<Repository> {
  const { signal } = options;
  await refuseExisting(store, signal);
  await store.create();
  throwIfCancelled(signal);
  // Only key files that are there before the config is: once it is there, others may add keys.
  const remains = await Array.fromAsync(listFiles(store, "key", signal));
  const key = normalizeKey({ encrypt: drawSecret(32), macK: drawSecret(16), macR: drawSecret(16) });
  const sealer = new Sealer(key);
  const config: Config = {
    version: MAX_VERSION,
    id: randomBytes(32).toString("hex"),
    chunkerPolynomial: options.chunkerPolynomial ?? createPolynomial(randomBytes),
  };
  const keyId = await saveKey(store, { key, password: options.password }, options);
  try {
    await store.save(configRef, encodeFile(sealer, encodeConfig(config), false), signal);
  } catch (error) {
    if (!isFailure(error, "StoreFileExists")) throw error;
    await store.remove({ kind: "key", name: keyId }).catch(() => undefined); // it wraps a master key of no use
    throw alreadyThere(store, "another process has just created it");
  }
  // They wrap master keys that never came to use, and would only slow opening down (restic could not even open the repository).
  for (const { id } of remains) await store.remove({ kind: "key", name: id }).catch(() => undefined);
  return { store, config, keyId, key, sealer, index: new BlobIndex() };
}

/** In memory of its own, so that a message to a worker carries these bytes only. */
function drawSecret(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

async function refuseExisting(store: Store, signal: AbortSignal | undefined): Promise<void> {
  if (await hasAny(store, "config", signal)) throw alreadyThere(store, "it has a config");
  for (const kind of ["snapshot", "index", "pack"] as const) {
    if (!(await hasAny(store, kind, signal))) continue;
    throw alreadyThere(store, `it has ${kind} files but no config, so that this was lost and must be restored from a copy`);
  }
}

async function hasAny(store: Store, kind: FileKind, signal: AbortSignal | undefined): Promise<boolean> {
  for await (const entry of store.list(kind, signal)) return entry !== undefined;
  return false;
}

function alreadyThere(store: Store, found: string): Failure {
  return new Failure("RepositoryExists", `Cannot create a repository at ${store.location}: ${found}`, {
    details: { location: store.location },
  });
}

/**
 * Opens a repository of version 1 or 2. Its index is empty until it is loaded.
 *
 * @throws RepositoryNotFound; WrongPassword; KeyInvalid when no key file is whole; ConfigInvalid; RepositoryVersion;
 *   StoreDenied, StoreUnavailable; Cancelled
 */
export async function openRepository(store: Store, options: OpenRepositoryOptions): Promise<Repository> {
  const sealed = await loadConfig(store, options.signal);
  let opened: { readonly sealer: Sealer; readonly json: Uint8Array } | undefined;
  let configFailure: Failure | undefined;
  const accept = (key: MasterKey): boolean => {
    const sealer = new Sealer(key);
    try {
      opened = { sealer, json: decodeFile(sealer, sealed, { code: "ConfigInvalid", subject: "config", limitBytes: configLimitBytes }) };
      return true;
    } catch (error) {
      if (!isFailure(error, "ConfigInvalid")) throw error;
      configFailure = error;
      return false;
    }
  };
  try {
    const { id, key } = await searchKey(store, { password: options.password, accept }, options);
    if (opened === undefined) throw new Failure("Bug", "Cannot open the repository: a key was accepted without its config");
    const config = parseConfig(opened.json);
    parsePolynomial(config.chunkerPolynomial.toString(16));
    return { store, config, keyId: id, key, sealer: opened.sealer, index: new BlobIndex() };
  } catch (error) {
    // The password opened a key, so what cannot be read is the config.
    throw isFailure(error, "WrongPassword") && configFailure !== undefined ? configFailure : error;
  }
}

async function loadConfig(store: Store, signal: AbortSignal | undefined): Promise<Uint8Array> {
  try {
    return await store.load(configRef, undefined, signal);
  } catch (error) {
    if (!isFailure(error, "StoreFileNotFound")) throw error;
    throw new Failure("RepositoryNotFound", `Cannot open a repository at ${store.location}: it has no config`, {
      details: { location: store.location },
      cause: error,
    });
  }
}
