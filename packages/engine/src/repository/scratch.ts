/** For tests: repositories whose keys cost nothing to open, and ways to damage their files. */
import { spawnSync } from "node:child_process";
import { Failure, isFailure } from "@granary/base/errors";
import { Secret } from "@granary/base/secret";
import { sha256Hex } from "../crypto/hash.ts";
import type { ScryptCost } from "../crypto/key-derivation.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { FileKind, FileRef, Store } from "../store/store.ts";
import { createRepository, type CreateRepositoryOptions, type Repository } from "./repository.ts";

export const scratchPassword: Secret = new Secret("correct horse battery staple");
export const insecureScryptCost: ScryptCost = { N: 16, r: 1, p: 1 };

/** A new repository, in memory unless a store is given. */
export function createScratch(store: Store = createMemoryStore(), options: Partial<CreateRepositoryOptions> = {}): Promise<Repository> {
  return createRepository(store, { password: scratchPassword, insecureScryptCost, ...options });
}

/** Everything a store has of a kind, in order of names. */
export async function listNames(store: Store, kind: FileKind): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list(kind)) names.push(name);
  return names.sort();
}

/** The only file of its kind. */
export async function onlyFile(store: Store, kind: FileKind): Promise<FileRef> {
  const names = await listNames(store, kind);
  const [name] = names;
  if (name === undefined || names.length !== 1) throw new Failure("Bug", `${names.length} ${kind} files found, 1 needed`);
  return { kind, name };
}

/** Changes a file under its name, as a failing disk would. */
export async function spoil(store: Store, ref: FileRef, change: (bytes: Uint8Array) => Uint8Array): Promise<void> {
  const bytes = await store.load(ref);
  await store.remove(ref);
  await store.save(ref, change(bytes));
}

/** Saves bytes under their own hash, whatever they are. */
export async function plant(store: Store, kind: FileKind, bytes: Uint8Array): Promise<FileRef> {
  const ref = { kind, name: kind === "config" ? "" : sha256Hex(bytes) };
  await store.save(ref, bytes);
  return ref;
}

/** With one bit wrong in the middle. */
export function flip(bytes: Uint8Array): Uint8Array {
  const flipped = Uint8Array.from(bytes);
  const middle = flipped.length >> 1;
  flipped[middle] = (flipped[middle] ?? 0) ^ 4;
  return flipped;
}

/** With the second half gone. */
export function truncate(bytes: Uint8Array): Uint8Array {
  return bytes.slice(0, bytes.length >> 1);
}

/** For `assert.rejects`: the failure with this code, and with a message that says so. */
export function failsWith(code: string, message: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    if (isFailure(error, code) && message.test(error.message)) return true;
    throw new Error(`${code} with ${String(message)} expected, found: ${isFailure(error) ? `${error.code} ` : ""}${String(error)}`, {
      cause: error,
    });
  };
}

/** The id of a process that has ended. */
export function deadPid(): number {
  return spawnSync(process.execPath, ["--version"]).pid;
}
