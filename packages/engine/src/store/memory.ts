/** A store in memory, for tests and for work that needs no disk. It keeps nothing once the process ends. */

import { throwIfCancelled } from "@granary/base/cancel";
import { Failure } from "@granary/base/errors";
import { checkRef, describeRef, fileKinds } from "./layout.ts";
import type { FileEntry, FileKind, FileRef, Span, Store } from "./store.ts";

/** A {@link Store} in memory. Every clause of the port holds but durability; bytes are copied on the way in and out. */
export function createMemoryStore(): Store & Required<Pick<Store, "quarantine">> {
  return new MemoryStore();
}

class MemoryStore implements Store {
  readonly location = "memory";
  readonly concurrency = 16;
  readonly settleMs = 200; // it needs none; this is a remote store's, so that those who wait for it can be tested
  readonly #files: ReadonlyMap<FileKind, Map<string, Uint8Array>> = new Map(fileKinds.map((kind) => [kind, new Map()]));
  readonly #quarantine: { readonly ref: FileRef; readonly data: Uint8Array }[] = [];

  async create(): Promise<void> {}

  async save(ref: FileRef, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkRef(ref);
    throwIfCancelled(signal);
    const files = this.#filesOf(ref.kind);
    const present = files.get(ref.name);
    if (present === undefined) files.set(ref.name, Uint8Array.from(data));
    else if (Buffer.compare(present, data) !== 0) {
      throw new Failure("StoreFileExists", `Cannot save ${describeRef(ref)}: memory holds other content under that name`, {
        details: { ...ref },
      });
    }
  }

  async load(ref: FileRef, span: Span = { offsetBytes: 0 }, signal?: AbortSignal): Promise<Uint8Array> {
    throwIfCancelled(signal);
    const data = this.#get(ref, "load");
    const endBytes = span.lengthBytes === undefined ? Math.max(data.length, span.offsetBytes) : span.offsetBytes + span.lengthBytes;
    if (endBytes > data.length) {
      throw new Failure("StoreTruncated", `Cannot load ${describeRef(ref)}: it is ${data.length} bytes, at least ${endBytes} needed`, {
        details: { ...ref, sizeBytes: data.length, neededBytes: endBytes },
      });
    }
    return data.slice(span.offsetBytes, endBytes);
  }

  async stat(ref: FileRef, signal?: AbortSignal): Promise<FileEntry> {
    throwIfCancelled(signal);
    return { name: ref.name, sizeBytes: this.#get(ref, "find").length };
  }

  async *list(kind: FileKind, signal?: AbortSignal): AsyncGenerator<FileEntry> {
    for (const [name, data] of this.#filesOf(kind)) {
      throwIfCancelled(signal);
      yield { name, sizeBytes: data.length };
    }
    throwIfCancelled(signal);
  }

  async remove(ref: FileRef, signal?: AbortSignal): Promise<void> {
    checkRef(ref);
    throwIfCancelled(signal);
    this.#filesOf(ref.kind).delete(ref.name);
  }

  async quarantine(ref: FileRef): Promise<void> {
    this.#quarantine.push({ ref, data: this.#get(ref, "quarantine") });
    this.#filesOf(ref.kind).delete(ref.name);
  }

  async close(): Promise<void> {}

  #filesOf(kind: FileKind): Map<string, Uint8Array> {
    const files = this.#files.get(kind);
    if (files === undefined) throw new Failure("Bug", `Unknown kind of file "${kind}"`);
    return files;
  }

  #get(ref: FileRef, verb: string): Uint8Array {
    checkRef(ref);
    const data = this.#filesOf(ref.kind).get(ref.name);
    if (data !== undefined) return data;
    throw new Failure("StoreFileNotFound", `Cannot ${verb} ${describeRef(ref)}: it is not in memory`, { details: { ...ref } });
  }
}
