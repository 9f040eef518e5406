/**
 * The keys of a repository: files that wrap its one master key, each under a password of its own.
 *
 * Damaged key files, and those left behind by an interrupted creation, which wrap a master key that never came to use, are passed over:
 * any key that opens will do. A repository is never left without a key, and never without the one in use.
 */
import { hostname, userInfo } from "node:os";
import { randomBytes } from "node:crypto";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, isFailure, toFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import type { Secret } from "@granary/base/secret";
import "../errors.ts";
import { sha256Hex } from "../crypto/hash.ts";
import { type CalibrateOptions, calibrateScrypt, deriveKey, type ScryptCost } from "../crypto/key-derivation.ts";
import { openOpenssl } from "../native/openssl.ts";
import { type MasterKey, Sealer } from "../crypto/seal.ts";
import { type KeyId, parseKeyId } from "../format/ids.ts";
import { encodeKeyFile, encodeMasterKey, type KeyFile, parseKeyFile, parseMasterKey, SALT_BYTES } from "../format/key-file.ts";
import type { Store } from "../store/store.ts";
import { checkName, isFileDamage, listByPrefix, listFiles, reportDamage } from "./files.ts";

/** How a key file is made. */
export interface CreateKeyOptions {
  /** Who the key is for; the user and the machine of this process when absent. For people only. */
  readonly username?: string;
  readonly hostname?: string;
  /** How dear guessing the password is made. */
  readonly scrypt?: CalibrateOptions;
  /** Instead of calibrating. Below the floor of key-derivation.ts it protects nothing: for tests. */
  readonly insecureScryptCost?: ScryptCost;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
}

/** An open repository, as far as keys are concerned. */
export interface KeyHolder {
  readonly store: Store;
  readonly key: MasterKey;
  readonly keyId: KeyId;
}

/** A key as it is listed. */
export interface KeyInfo {
  readonly id: KeyId;
  readonly createdNs: bigint;
  readonly username: string;
  readonly hostname: string;
  /** Whether it opened the repository. */
  readonly isCurrent: boolean;
}

/** Where a key was found to open. */
export interface OpenedKey {
  readonly id: KeyId;
  readonly key: MasterKey;
}

/** How keys are tried. */
export interface SearchKeyOptions {
  /** Tried first: the id of a key, or how it begins. */
  readonly keyHint?: string;
  /** How many keys are tried at most, since each takes its time; 20 when absent, as restic does. */
  readonly maxKeys?: number;
  /** Called as soon as a key is being derived, which takes a while on another thread: time to prepare what comes next. */
  readonly onDeriving?: () => void;
  /** Told of key files that are damaged; one of them may still open. */
  readonly onDamagedKey?: (failure: Failure) => void;
  readonly signal?: AbortSignal;
}

const defaultMaxKeys = 20;

/** Wraps a master key under a password and saves it; durable once this resolves. @throws InvalidArgument for an empty password */
export async function saveKey(
  store: Store,
  wrap: { readonly key: MasterKey; readonly password: Secret },
  options: CreateKeyOptions = {},
): Promise<KeyId> {
  const { clock = systemClock, signal } = options;
  if (wrap.password.reveal() === "") {
    throw new Failure("InvalidArgument", "Cannot make a key with an empty password: anyone could open the repository");
  }
  const cost = options.insecureScryptCost ?? (await calibrateScrypt({ clock, ...options.scrypt }));
  const salt = randomBytes(SALT_BYTES);
  const masterJson = encodeMasterKey(wrap.key);
  const data = new Sealer(await deriveKey(wrap.password, salt, cost)).seal(masterJson);
  masterJson.fill(0);
  const file: KeyFile = {
    createdNs: BigInt(Math.trunc(clock.nowMs())) * 1_000_000n,
    username: options.username ?? findUsername(),
    hostname: options.hostname ?? hostname(),
    cost,
    salt,
    data,
  };
  const bytes = encodeKeyFile(file);
  const name = sha256Hex(bytes);
  await store.save({ kind: "key", name }, bytes, signal);
  return parseKeyId(name);
}

/**
 * Finds a key that opens with this password and satisfies `accept`: first those of the hint, then all others, in the order of the store.
 *
 * @param accept whether the master key is that of the repository
 * @throws WrongPassword when none opens; KeyInvalid when there is none that could
 */
export async function searchKey(
  store: Store,
  search: { readonly password: Secret; readonly accept: (key: MasterKey) => boolean },
  options: SearchKeyOptions = {},
): Promise<OpenedKey> {
  const { keyHint, maxKeys = defaultMaxKeys, onDamagedKey, signal } = options;
  const ids: KeyId[] = [];
  for await (const { id } of listFiles(store, "key", signal)) ids.push(id);
  if (keyHint !== undefined && keyHint !== "") ids.sort((a, b) => Number(b.startsWith(keyHint)) - Number(a.startsWith(keyHint)));
  let triedCount = 0;
  let lastDamage: Failure | undefined;
  for (const id of ids.slice(0, maxKeys)) {
    try {
      const file = await loadKeyFile(store, id, options);
      const key = await openKeyFile(id, file, { password: search.password, onDeriving: triedCount === 0 ? options.onDeriving : undefined });
      if (key !== undefined && search.accept(key)) return { id, key };
      triedCount++;
    } catch (error) {
      if (!isFileDamage(error)) throw error;
      lastDamage = toFailure(error);
      onDamagedKey?.(lastDamage);
    }
  }
  throw noneOpens(store, { foundCount: ids.length, triedCount, lastDamage });
}

function noneOpens(store: Store, found: { foundCount: number; triedCount: number; lastDamage: Failure | undefined }): Failure {
  const { foundCount, triedCount, lastDamage } = found;
  const code = triedCount > 0 ? "WrongPassword" : "KeyInvalid";
  const reason =
    triedCount > 0
      ? `${triedCount} of its ${foundCount} keys tried, none opens with this password`
      : `${foundCount} key files found, at least 1 that is not damaged needed`;
  return new Failure(code, `Cannot open the repository at ${store.location}: ${reason}`, {
    details: { location: store.location, foundCount, triedCount },
    cause: lastDamage,
  });
}

/** Reads a key file. That its content does not belong to its name is only reported: if it opens all the same, what matters is whole. */
async function loadKeyFile(store: Store, id: KeyId, options: Pick<SearchKeyOptions, "onDamagedKey" | "signal">): Promise<KeyFile> {
  const bytes = await store.load({ kind: "key", name: id }, undefined, options.signal);
  try {
    checkName({ kind: "key", name: id }, bytes);
  } catch (error) {
    options.onDamagedKey?.(toFailure(error));
  }
  return parseKeyFile(bytes, id);
}

/** The master key, or `undefined` when it is not under this password. @throws KeyInvalid */
async function openKeyFile(
  id: KeyId,
  file: KeyFile,
  options: { readonly password: Secret; readonly onDeriving?: (() => void) | undefined },
): Promise<MasterKey | undefined> {
  let opened: Uint8Array;
  try {
    const deriving = deriveKey(options.password, file.salt, file.cost);
    options.onDeriving?.();
    openOpenssl(); // takes a while to load, and this thread has nothing else to do
    opened = new Sealer(await deriving).open(file.data);
  } catch (error) {
    if (isFailure(error, "SealBroken")) return undefined;
    if (!isFailure(error, "InvalidArgument")) throw error;
    throw new Failure("KeyInvalid", `Cannot read key "${id}": ${error.message}`, { details: { keyId: id }, cause: error });
  }
  const key = parseMasterKey(opened, id);
  opened.fill(0);
  return normalizeKey(key);
}

/**
 * Clears the bits of the code's key that Poly1305 does not use (RFC 8439 §2.5), as restic does when it writes one, so that the master key
 * is the same bytes whichever key file it comes from.
 */
export function normalizeKey(key: MasterKey): MasterKey {
  const macR = Uint8Array.from(key.macR);
  for (const at of [3, 7, 11, 15]) macR[at] = (macR[at] ?? 0) & 0x0f;
  for (const at of [4, 8, 12]) macR[at] = (macR[at] ?? 0) & 0xfc;
  return { ...key, macR };
}

/**
 * Lists the keys, oldest first.
 *
 * @throws KeyInvalid when one is damaged, unless `onDamagedKey` takes it
 */
export async function listKeys(holder: KeyHolder, options: Pick<SearchKeyOptions, "onDamagedKey" | "signal"> = {}): Promise<KeyInfo[]> {
  const { onDamagedKey, signal } = options;
  const keys: KeyInfo[] = [];
  const read = async ({ id }: { readonly id: KeyId }): Promise<KeyInfo | undefined> => {
    try {
      const { createdNs, username, hostname: host } = await loadKeyFile(holder.store, id, options);
      return { id, createdNs, username, hostname: host, isCurrent: id === holder.keyId };
    } catch (error) {
      reportDamage(error, onDamagedKey);
      return undefined;
    }
  };
  const { concurrency } = holder.store;
  for await (const key of mapOrdered(listFiles(holder.store, "key", signal), { limit: concurrency, ...(signal && { signal }) }, read)) {
    if (key !== undefined) keys.push(key);
  }
  return keys.sort((a, b) => (a.createdNs < b.createdNs ? -1 : a.createdNs > b.createdNs ? 1 : a.id < b.id ? -1 : 1));
}

/**
 * Adds a key to an open repository, and proves that it opens before it is relied upon.
 *
 * @returns its id, once it is durable
 * @throws InvalidArgument for an empty password
 */
export async function addKey(holder: KeyHolder, password: Secret, options: CreateKeyOptions = {}): Promise<KeyId> {
  const id = await saveKey(holder.store, { key: holder.key, password }, options);
  const key = await openKeyFile(id, await loadKeyFile(holder.store, id, options), { password });
  if (key === undefined || !isSameKey(key, holder.key)) {
    throw new Failure("KeyInvalid", `Cannot use the new key "${id}": it was saved, but does not open the repository`, {
      details: { keyId: id },
    });
  }
  return id;
}

/** Finds the key whose id begins so. @throws KeyNotFound; InvalidArgument when there are several */
export async function findKey(holder: KeyHolder, prefix: string, signal?: AbortSignal): Promise<KeyId> {
  const ids = await listByPrefix(holder.store, { kind: "key", prefix }, signal);
  const [first] = ids;
  if (first === undefined) throw new Failure("KeyNotFound", `Cannot find key "${prefix}": no id begins so`, { details: { prefix } });
  if (ids.length === 1) return first;
  throw new Failure("InvalidArgument", `Cannot find key "${prefix}": ${ids.length} ids begin so`, { details: { prefix, keyIds: ids } });
}

/**
 * Removes a key. Whoever knows its password and has kept a copy of the file still has the master key.
 *
 * @throws KeyNotFound; KeyInUse for the key that opened the repository
 */
export async function removeKey(holder: KeyHolder, id: KeyId, signal?: AbortSignal): Promise<void> {
  if (id === holder.keyId) {
    throw new Failure("KeyInUse", `Cannot remove key "${id}": it opened the repository, and another one must`, { details: { keyId: id } });
  }
  try {
    await holder.store.stat({ kind: "key", name: id }, signal);
  } catch (error) {
    if (!isFailure(error, "StoreFileNotFound")) throw error;
    throw new Failure("KeyNotFound", `Cannot remove key "${id}": the repository has no such key`, { details: { keyId: id }, cause: error });
  }
  await holder.store.remove({ kind: "key", name: id }, signal);
}

/**
 * Replaces the key that opened the repository by one under another password: the new one is added, durable and proved to open before
 * the old one is removed.
 *
 * @returns the holder with its new key; the old one must no longer be used to remove keys
 * @throws InvalidArgument for an empty password
 */
export async function changePassword<H extends KeyHolder>(holder: H, password: Secret, options: CreateKeyOptions = {}): Promise<H> {
  const keyId = await addKey(holder, password, options);
  await holder.store.remove({ kind: "key", name: holder.keyId }, options.signal);
  return { ...holder, keyId };
}

function isSameKey(a: MasterKey, b: MasterKey): boolean {
  return Buffer.compare(a.encrypt, b.encrypt) === 0 && Buffer.compare(a.macK, b.macK) === 0 && Buffer.compare(a.macR, b.macR) === 0;
}

function findUsername(): string {
  try {
    return userInfo().username;
  } catch {
    return ""; // a user id without a name, as in containers
  }
}
