/**
 * The Store port: where a repository's files live. The engine declares it; adapters (local folder, REST, memory, and later object stores
 * and drives) implement it, and each runs the conformance suite of `@granary/engine/testing`.
 *
 * Invariants every adapter keeps:
 * - files are written once: `save` of an existing name with the same bytes succeeds, with other bytes fails with `StoreFileExists`
 *   (a server that cannot refuse may let a file whose content fits its name replace one whose content does not; never for config);
 * - when `save` resolves, the file is durable (survives power loss) and visible to `list`, `load` and `stat` of every client;
 * - a `save` that fails, or dies, never leaves a file under its final name that is not whole;
 * - calls may run concurrently.
 */

/** The kinds of file a repository holds. `config` is one file without a name of its own. */
export type FileKind = "config" | "key" | "lock" | "snapshot" | "index" | "pack";

/** One file of a repository. `name` is the SHA-256 of its bytes in lower-case hex (64 digits), or empty for `config`. */
export interface FileRef {
  readonly kind: FileKind;
  readonly name: string;
}

/** A file as listed. */
export interface FileEntry {
  readonly name: string;
  readonly sizeBytes: number;
}

/** A span of a file, in bytes; `lengthBytes` absent means to the end. */
export interface Span {
  readonly offsetBytes: number;
  readonly lengthBytes?: number;
}

export interface Store {
  /** The location for messages, without credentials. */
  readonly location: string;
  /** How many calls at once are useful: 2 to 16. */
  readonly concurrency: number;
  /** How long a file may be missing from another client's list after its save was acknowledged, in milliseconds; 0: no longer than that. */
  readonly settleMs: number;

  /** Makes the layout of an empty repository; may run twice. */
  create(): Promise<void>;

  /**
   * Writes one whole file durably.
   *
   * Cancelled before the file has its name, it leaves nothing; after, the whole file. Whether bytes fit the name is not checked.
   *
   * @param data not changed and not kept after the promise settles
   * @throws StoreFileExists, StoreFull, StoreDenied, StoreUnavailable, InvalidArgument for a name that no file can have, Cancelled
   */
  save(ref: FileRef, data: Uint8Array, signal?: AbortSignal): Promise<void>;

  /**
   * Reads a file or a span of it. The result has exactly the asked length and is owned by the caller.
   *
   * @throws StoreFileNotFound, StoreTruncated when the file ends before the span does, StoreUnavailable, StoreDenied
   */
  load(ref: FileRef, span?: Span, signal?: AbortSignal): Promise<Uint8Array>;

  /** Size of a file. @throws StoreFileNotFound */
  stat(ref: FileRef, signal?: AbortSignal): Promise<FileEntry>;

  /** All files of a kind, in any order; names that are not 64 hex digits are skipped. Empty when there are none. */
  list(kind: FileKind, signal?: AbortSignal): AsyncIterable<FileEntry>;

  /** Removes a file; succeeds when it is already gone. @throws StoreDenied (append-only), StoreUnavailable */
  remove(ref: FileRef, signal?: AbortSignal): Promise<void>;

  /**
   * Sets a file aside where no reader finds it, for repair, which never deletes. Adapters that cannot do so are without it.
   * After it, `stat` throws StoreFileNotFound, and the name can be saved anew.
   *
   * @throws StoreFileNotFound, StoreDenied, StoreUnavailable
   */
  quarantine?(ref: FileRef): Promise<void>;

  /** The path where this process may read the file directly, for adapters whose files are on this machine. */
  pathOf?(ref: FileRef): string;

  /** Releases connections. Idempotent. */
  close(): Promise<void>;
}
