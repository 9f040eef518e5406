/**
 * A repository in a folder of this machine, in restic's layout (restic design.rst, "Repository Layout").
 *
 * A save writes everything into a temporary file beside its final place, makes it durable, and only then gives it its name, by a hard
 * link, which never replaces a file; then it makes the name durable. So a file that can be listed is whole, after a crash too. What a
 * crash leaves is a temporary file that `list` skips (and restic as well); {@link LocalStore.removeLeftovers} takes it away.
 *
 * Concurrency: calls are independent, in this process and between processes. Saves of one name agree on the first that gets the name.
 * Folders that are missing are made only when a config file lies beside them: an empty mount point never becomes a repository.
 *
 * It does not retry, and it does not check that contents match names.
 */

import { randomBytes } from "node:crypto";
import { statfsSync } from "node:fs";
import { type FileHandle, chmod, link, mkdir, open, opendir, readdir, rename, stat, unlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { throwIfCancelled } from "@granary/base/cancel";
import { syncFolder } from "@granary/base/durable-file";
import { Failure, isFailure } from "@granary/base/errors";
import { mapOrdered } from "@granary/base/map-ordered";
import { writeDirect } from "./direct-write.ts";
import { checkRef, describeRef, fileKinds, folderOf, isFileName } from "./layout.ts";
import type { FileEntry, FileKind, FileRef, Span, Store } from "./store.ts";
import { storeCodeOf, systemCodeOf } from "./system-error.ts";

/** A {@link Store} in a folder. */
export interface LocalStore extends Store {
  pathOf(ref: FileRef): string;

  /** Moves the file to `quarantine/<kind>/<name>` in the repository, with `.1`, `.2`… when that is taken. @throws StoreFileNotFound */
  quarantine(ref: FileRef): Promise<void>;

  /**
   * Removes what interrupted saves left behind, those of restic too.
   *
   * @param beforeMs epoch milliseconds; only files last written before are removed. A save in progress must be younger: use a day ago.
   * @returns how many were removed
   */
  removeLeftovers(beforeMs: number): Promise<number>;
}

/**
 * A store in a folder. Touches nothing until it is used.
 *
 * @param path the repository's folder; relative paths are resolved now
 */
export function openLocalStore(path: string): LocalStore {
  return new FolderStore(resolve(path));
}

/** What restic grants any store; caches of network file systems hold lists for about as long. */
const sharedSettleMs = 200;
/** statfs types of file systems that several machines may have mounted: NFS, SMB and CIFS, FUSE, 9P, Ceph, AFS, Lustre, GFS2, OCFS2. */
const sharedTypes: ReadonlySet<number> = new Set([
  0x6969, 0xff534d42, 0xfe534d42, 0x517b, 0x65735546, 0x01021997, 0x00c36400, 0x5346414f, 0x0bd00bd0, 0x01161970, 0x7461636f,
]);

/** Whether other machines may see the folder through caches of their own. A folder that cannot be looked at yet counts as such. */
function isShared(path: string): boolean {
  try {
    return sharedTypes.has(statfsSync(path).type);
  } catch {
    return true;
  }
}

/** Files and folders as restic makes them; when the config can be read by its group, so can the rest. */
interface Modes {
  readonly file: number;
  readonly folder: number;
}
const privateModes: Modes = { file: 0o400, folder: 0o700 };
const groupModes: Modes = { file: 0o440, folder: 0o750 };

/** One call's worth of bytes: cancellation is looked at between calls, and larger calls are no faster. */
const pieceBytes = 16 << 20;
/** Spans above this are compared with the size of the file before memory is taken for them; smaller ones save the call. */
const unquestionedBytes = 64 << 10;
/** Sizes are asked for this many files at once; libuv has four threads, more only wait. */
const statBatch = 64;
const foldersAtOnce = 4;
const packFolderNames: readonly string[] = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));

type Verb = "create" | "save" | "load" | "find" | "list" | "remove" | "quarantine";
const readingVerbs: ReadonlySet<Verb> = new Set(["load", "find", "quarantine"]);

class FolderStore implements LocalStore {
  readonly location: string;
  readonly concurrency = 4;
  readonly settleMs: number;
  readonly #syncs = new Map<string, SharedSync>();
  #modes: Modes | undefined;

  constructor(root: string) {
    this.location = root;
    this.settleMs = isShared(root) ? sharedSettleMs : 0;
  }

  pathOf(ref: FileRef): string {
    checkRef(ref);
    return ref.kind === "config" ? join(this.location, "config") : join(this.#folderOf(ref), ref.name);
  }

  async create(): Promise<void> {
    try {
      const { folder: mode } = await this.#findModes();
      const first = await mkdir(this.location, { recursive: true, mode });
      const data = join(this.location, folderOf("pack"));
      for (const kind of fileKinds) await makeFolder(join(this.location, folderOf(kind)), mode);
      for (const name of packFolderNames) await makeFolder(join(data, name), mode);
      await syncFolder(data);
      await syncFolder(this.location);
      for (let path = this.location; first !== undefined && path.length >= first.length; path = dirname(path))
        await syncFolder(dirname(path));
    } catch (error) {
      throw this.#failure(error, "create", "the repository");
    }
  }

  async save(ref: FileRef, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    const path = this.pathOf(ref);
    throwIfCancelled(signal);
    try {
      const isPresent = (await statIfAny(path)) !== undefined;
      if (isPresent || !(await this.#write(ref, data, signal))) await this.#expectSame(ref, path, data);
      await this.#syncFolderOf(path);
    } catch (error) {
      throw this.#failure(error, "save", ref);
    }
  }

  async load(ref: FileRef, span: Span = { offsetBytes: 0 }, signal?: AbortSignal): Promise<Uint8Array> {
    const path = this.pathOf(ref);
    throwIfCancelled(signal);
    try {
      await using file = await open(path, "r");
      const { offsetBytes } = span;
      let { lengthBytes } = span;
      if (lengthBytes === undefined || lengthBytes === 0 || lengthBytes > unquestionedBytes) {
        const sizeBytes = (await file.stat()).size;
        lengthBytes ??= Math.max(0, sizeBytes - offsetBytes);
        if (offsetBytes + lengthBytes > sizeBytes) throw truncated(ref, path, { sizeBytes, neededBytes: offsetBytes + lengthBytes });
      }
      const data = new Uint8Array(Buffer.allocUnsafeSlow(lengthBytes).buffer);
      const readBytes = await readFully(file, data, { offsetBytes, ...(signal && { signal }) });
      if (readBytes < lengthBytes)
        throw truncated(ref, path, { sizeBytes: offsetBytes + readBytes, neededBytes: offsetBytes + lengthBytes });
      return data;
    } catch (error) {
      throw this.#failure(error, "load", ref);
    }
  }

  async stat(ref: FileRef, signal?: AbortSignal): Promise<FileEntry> {
    const path = this.pathOf(ref);
    throwIfCancelled(signal);
    try {
      return { name: ref.name, sizeBytes: (await stat(path)).size };
    } catch (error) {
      throw this.#failure(error, "find", ref);
    }
  }

  async *list(kind: FileKind, signal?: AbortSignal): AsyncGenerator<FileEntry> {
    throwIfCancelled(signal);
    try {
      if (kind === "config") {
        const sizeBytes = await statIfAny(join(this.location, "config"));
        if (sizeBytes !== undefined) yield { name: "", sizeBytes };
      } else if (kind === "pack") {
        yield* this.#listPacks(signal);
      } else {
        for await (const batch of listFolder(join(this.location, folderOf(kind)), signal)) yield* batch;
      }
    } catch (error) {
      throw this.#failure(error, "list", `the ${kind} files`);
    }
    throwIfCancelled(signal);
  }

  async remove(ref: FileRef, signal?: AbortSignal): Promise<void> {
    const path = this.pathOf(ref);
    throwIfCancelled(signal);
    try {
      await unlink(path);
      // An index that comes back after power loss would name packs that prune removed after it; so would a snapshot.
      if (ref.kind !== "pack" && ref.kind !== "lock") await this.#syncFolderOf(path);
    } catch (error) {
      if (systemCodeOf(error) !== "ENOENT") throw this.#failure(error, "remove", ref);
    }
  }

  async quarantine(ref: FileRef): Promise<void> {
    const path = this.pathOf(ref);
    try {
      const { folder: mode } = await this.#findModes();
      await stat(path);
      const top = join(this.location, "quarantine");
      const folder = join(top, ref.kind);
      await makeFolder(top, mode);
      await makeFolder(folder, mode);
      const target = join(folder, ref.name === "" ? "config" : ref.name);
      for (let n = 0; !(await moveWithoutReplacing(path, n === 0 ? target : `${target}.${n}`)); n++);
      for (const changed of [folder, top, this.location]) await syncFolder(changed);
      await this.#syncFolderOf(path);
    } catch (error) {
      throw this.#failure(error, "quarantine", ref);
    }
  }

  async removeLeftovers(beforeMs: number): Promise<number> {
    const data = join(this.location, folderOf("pack"));
    const folders = [
      ...fileKinds.filter((kind) => kind !== "pack").map((kind) => join(this.location, folderOf(kind))),
      ...packFolderNames.map((name) => join(data, name)),
    ];
    let removedCount = 0;
    try {
      for (const folder of folders) {
        for (const name of await readNames(folder)) {
          const path = join(folder, name);
          if (!isTemporaryName(name) || ((await statIfAny(path, "mtimeMs")) ?? beforeMs) >= beforeMs) continue;
          await unlink(path);
          removedCount++;
        }
      }
    } catch (error) {
      throw this.#failure(error, "remove", "temporary files");
    }
    return removedCount;
  }

  async close(): Promise<void> {}

  #folderOf(ref: FileRef): string {
    const folder = join(this.location, folderOf(ref.kind));
    return ref.kind === "pack" ? join(folder, ref.name.slice(0, 2)) : folder;
  }

  async *#listPacks(signal: AbortSignal | undefined): AsyncGenerator<FileEntry> {
    const data = join(this.location, folderOf("pack"));
    const folders = (await readNames(data)).filter((name) => /^[0-9a-f]{2}$/.test(name));
    const lists = mapOrdered(folders, { limit: foldersAtOnce, ...(signal && { signal }) }, async (folder, stop) => {
      const entries: FileEntry[] = [];
      for await (const batch of listFolder(join(data, folder), stop))
        entries.push(...batch.filter((entry) => entry.name.startsWith(folder)));
      return entries;
    });
    for await (const entries of lists) yield* entries;
  }

  /** Writes the file under its name. @returns false when the name is taken */
  async #write(ref: FileRef, data: Uint8Array, signal: AbortSignal | undefined): Promise<boolean> {
    const path = this.pathOf(ref);
    const modes = await this.#findModes();
    const temporary = `${path}-tmp-${randomBytes(6).toString("hex")}`;
    const file = await this.#openNew(temporary, modes);
    let isMoved = false;
    try {
      try {
        const direct = await writeDirect(temporary, data);
        await writeFully(file, { data, from: direct }, signal);
        await markReadOnly(file, modes.file);
        await file.datasync().catch(ignoreUnsupported);
      } finally {
        await file.close();
      }
      throwIfCancelled(signal);
      isMoved = await moveWithoutReplacing(temporary, path);
      return isMoved;
    } finally {
      if (!isMoved) await unlink(temporary).catch(() => undefined);
    }
  }

  async #openNew(path: string, modes: Modes): Promise<FileHandle> {
    try {
      return await open(path, "wx", 0o600);
    } catch (error) {
      if (systemCodeOf(error) !== "ENOENT") throw error;
      await this.#restoreFolder(dirname(path), modes.folder);
      return await open(path, "wx", 0o600);
    }
  }

  /** Makes a folder of the layout that is missing, as after a copy that leaves out empty folders. */
  async #restoreFolder(folder: string, mode: number): Promise<void> {
    if ((await statIfAny(join(this.location, "config"))) === undefined) {
      throw new Failure(
        "StoreUnavailable",
        `Folder ${folder} is missing, and so is the repository's config. If the repository is on a drive, mount it`,
      );
    }
    const parent = dirname(folder);
    if (parent !== this.location) {
      await makeFolder(parent, mode);
      await syncFolder(this.location);
    }
    await makeFolder(folder, mode);
    await syncFolder(parent);
  }

  /** Succeeds when the file under this name has this content, and makes it durable, whoever wrote it. @throws StoreFileExists */
  async #expectSame(ref: FileRef, path: string, data: Uint8Array): Promise<void> {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    let isSame = size === data.length;
    const piece = Buffer.allocUnsafeSlow(Math.min(size, 1 << 20));
    for (let offset = 0; isSame && offset < size; offset += piece.length) {
      const length = Math.min(piece.length, size - offset);
      const present = piece.subarray(0, length);
      const readBytes = await readFully(file, present, { offsetBytes: offset });
      isSame = readBytes === length && present.equals(data.subarray(offset, offset + length));
    }
    if (!isSame) {
      throw new Failure(
        "StoreFileExists",
        `Cannot save ${describeRef(ref)}: ${path} has other content (${size} bytes, ours ${data.length})`,
        {
          details: { ...ref, path, sizeBytes: size },
        },
      );
    }
    await file.datasync().catch(ignoreUnsupported);
  }

  #syncFolderOf(path: string): Promise<void> {
    const folder = dirname(path);
    let sync = this.#syncs.get(folder);
    if (sync === undefined) {
      sync = new SharedSync(folder);
      this.#syncs.set(folder, sync);
    }
    return sync.run();
  }

  async #findModes(): Promise<Modes> {
    if (this.#modes !== undefined) return this.#modes;
    const mode = await statIfAny(join(this.location, "config"), "mode");
    if (mode === undefined) return privateModes;
    this.#modes = (mode & 0o040) === 0 ? privateModes : groupModes;
    return this.#modes;
  }

  #failure(error: unknown, verb: Verb, subject: FileRef | string): Failure {
    if (isFailure(error)) return error;
    const found = storeCodeOf(error);
    // Nothing is missing for who writes or lists: then it is the repository's folder that is gone.
    const code = found === "StoreFileNotFound" && !readingVerbs.has(verb) ? "StoreUnavailable" : found;
    const object = typeof subject === "string" ? subject : describeRef(subject);
    const reason = error instanceof Error ? error.message : String(error);
    const details = { location: this.location, system: systemCodeOf(error), ...(typeof subject === "string" ? {} : subject) };
    return new Failure(code, `Cannot ${verb} ${object} in ${this.location}: ${reason}`, { details, cause: error });
  }
}

/** Lets saves that end at the same time share one fsync of their folder. */
class SharedSync {
  readonly #folder: string;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Resolves after an fsync that began after this call: one that runs already may not cover what the caller did. */
  run(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#startNext(),
      () => this.#startNext(),
    );
    return this.#next;
  }

  #start(): Promise<void> {
    this.#running = syncFolder(this.#folder)
      .catch(ignoreUnsupported)
      .finally(() => {
        if (this.#next === undefined) this.#running = undefined;
      });
    return this.#running;
  }

  #startNext(): Promise<void> {
    this.#next = undefined;
    return this.#start();
  }
}

/** Some network and FUSE file systems cannot fsync, or not folders; restic goes on as well. */
function ignoreUnsupported(error: unknown): void {
  if (!["ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL"].includes(systemCodeOf(error))) throw error;
}

async function markReadOnly(file: FileHandle, mode: number): Promise<void> {
  try {
    await file.chmod(mode);
  } catch (error) {
    // File systems without Unix permissions; the mark only guards against slips.
    if (systemCodeOf(error) !== "EPERM") ignoreUnsupported(error);
  }
}

/**
 * Gives a file another name in the same file system, unless a file has that name.
 *
 * Where hard links are not possible (FAT, some network mounts) it looks and then renames, so that two processes that save different
 * content under one name at the same moment would not be told apart; names are hashes of contents, so this does not happen.
 *
 * @returns false, with nothing moved, when the name is taken
 */
async function moveWithoutReplacing(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
  } catch (error) {
    if (systemCodeOf(error) === "EEXIST") return false;
    // What a file system without links answers varies (EPERM, ENOTSUP, ENOSYS, EMLINK, and EIO from some FUSE mounts); when the trouble
    // is another, renaming meets it too.
    if ((await statIfAny(to)) !== undefined) return false;
    await rename(from, to);
    return true;
  }
  await unlink(from);
  return true;
}

async function makeFolder(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (systemCodeOf(error) === "EEXIST") return;
    throw error;
  }
  if (mode !== privateModes.folder) await chmod(path, mode); // the umask may have taken the group's bits
}

async function writeFully(
  file: FileHandle,
  { data, from }: { data: Uint8Array; from: number },
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let offset = from; offset < data.length; ) {
    throwIfCancelled(signal);
    const { bytesWritten } = await file.write(data, offset, Math.min(pieceBytes, data.length - offset), offset);
    offset += bytesWritten;
  }
}

/** Fills `target` from the file. @returns how many bytes there were, less than asked at the end of the file */
async function readFully(file: FileHandle, target: Uint8Array, from: { offsetBytes: number; signal?: AbortSignal }): Promise<number> {
  let done = 0;
  while (done < target.length) {
    throwIfCancelled(from.signal);
    const { bytesRead } = await file.read(target, done, Math.min(pieceBytes, target.length - done), from.offsetBytes + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

/** Yields the files of one folder in batches, in the order of the file system; what vanishes meanwhile is left out. */
async function* listFolder(path: string, signal?: AbortSignal): AsyncGenerator<FileEntry[]> {
  let names: string[] = [];
  try {
    for await (const { name } of await opendir(path, { bufferSize: 256 })) {
      if (isFileName(name)) names.push(name);
      if (names.length < statBatch) continue;
      throwIfCancelled(signal);
      yield await statAll(path, names);
      names = [];
    }
  } catch (error) {
    const code = systemCodeOf(error);
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
  }
  if (names.length > 0) yield await statAll(path, names);
}

async function statAll(folder: string, names: readonly string[]): Promise<FileEntry[]> {
  const entries = await Promise.all(names.map(async (name) => ({ name, sizeBytes: await statIfAny(join(folder, name)) })));
  return entries.flatMap(({ name, sizeBytes }) => (sizeBytes === undefined ? [] : [{ name, sizeBytes }]));
}

/** A number that `stat` gives for a regular file; undefined when there is none. */
async function statIfAny(path: string, field: "size" | "mode" | "mtimeMs" = "size"): Promise<number | undefined> {
  try {
    const stats = await stat(path);
    return stats.isFile() ? stats[field] : undefined;
  } catch (error) {
    if (systemCodeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function readNames(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemCodeOf(error) === "ENOENT") return [];
    throw error;
  }
}

function isTemporaryName(name: string): boolean {
  return /^(?:config|[0-9a-f]{64})-tmp-[0-9a-f]+$/.test(name);
}

function truncated(ref: FileRef, path: string, { sizeBytes, neededBytes }: { sizeBytes: number; neededBytes: number }): Failure {
  return new Failure("StoreTruncated", `Cannot load ${describeRef(ref)}: ${path} is ${sizeBytes} bytes, at least ${neededBytes} needed`, {
    details: { ...ref, path, sizeBytes, neededBytes },
  });
}
