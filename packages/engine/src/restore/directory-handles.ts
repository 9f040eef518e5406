/**
 * Open directories of the target, by entry.
 *
 * This is what keeps a restore inside its target: every directory is opened by one name, relative to the handle of its parent, and a name that
 * is a symbolic link is not followed. Names hold no slash and are not `..` (the planner saw to that), so no chain of them leads outside,
 * whatever the repository says and whoever changes the target meanwhile; and a path may be longer than the kernel takes in one call.
 *
 * Handles are path handles (O_PATH): they need no permission on the directory itself and serve for every call relative to it.
 */
import { chmodAt, closeHandle, makeDirectoryAt, openAt, openFlags, unlinkAt, workingDirectory } from "../native/libc.ts";
import { action, type EntryTable, flag, rootEntry, state } from "./entry-table.ts";
import { isError } from "./errno-text.ts";

/** Handles of one thread; a process has at least a thousand. */
const openLimit = 100;
const attempts = 4;
const directoryFlags = openFlags.path | openFlags.directory | openFlags.noFollow;

export class DirectoryHandles {
  readonly #table: EntryTable;
  readonly #root: () => number;
  readonly #modeOf: (entry: number) => number;
  readonly #handles = new Map<number, number>(); // least recently used first
  #lastEntry = -1;
  #lastHandle = -1;

  /**
   * @param options.root the handle of the target folder, once it is there
   * @param options.modeOf the mode to make a directory with
   */
  constructor(options: { table: EntryTable; root: () => number; modeOf: (entry: number) => number }) {
    this.#table = options.table;
    this.#root = options.root;
    this.#modeOf = options.modeOf;
  }

  /**
   * The handle of a directory, which this object owns: valid until other directories were asked for.
   *
   * @param create whether to make directories that are missing, and to remove what the plan says is to be replaced by one
   * @returns a handle or -errno: -ENOTDIR when something else is there, a symbolic link among it
   */
  open(entry: number, create: boolean): number {
    if (entry === this.#lastEntry) return this.#lastHandle;
    let handle = this.#find(entry);
    if (handle === undefined) {
      const way: number[] = [];
      let at = entry;
      for (; handle === undefined; at = this.#table.parentOf(at)) {
        way.push(at);
        handle = this.#find(this.#table.parentOf(at));
      }
      for (let step = way.pop(); step !== undefined; step = way.pop()) {
        handle = this.#openBelow(handle, step, create);
        if (handle < 0) return handle;
        this.#keep(step, handle);
      }
    }
    this.#lastEntry = entry;
    this.#lastHandle = handle;
    return handle;
  }

  /**
   * Makes a directory, and those above it, unless it is there.
   *
   * @returns 0 or -errno, as {@link open}
   */
  make(entry: number): number {
    const table = this.#table;
    if (table.actionOf(entry) !== action.create) {
      const handle = this.open(entry, true);
      return Math.min(0, handle);
    }
    const parent = this.open(table.parentOf(entry), true);
    return parent < 0 ? parent : this.#makeIn(parent, entry);
  }

  close(): void {
    for (const handle of this.#handles.values()) closeHandle(handle);
    this.#handles.clear();
    this.#lastEntry = -1;
  }

  #find(entry: number): number | undefined {
    if (entry === rootEntry) return this.#root();
    const handle = this.#handles.get(entry);
    if (handle !== undefined) {
      this.#handles.delete(entry);
      this.#handles.set(entry, handle);
    }
    return handle;
  }

  #keep(entry: number, handle: number): void {
    this.#handles.set(entry, handle);
    if (this.#handles.size <= openLimit) return;
    const [oldest] = this.#handles;
    if (oldest === undefined) return;
    this.#handles.delete(oldest[0]);
    closeHandle(oldest[1]);
    if (oldest[0] === this.#lastEntry) this.#lastEntry = -1;
  }

  /** @returns 0, also when it is there already, or -errno */
  #makeIn(parent: number, entry: number): number {
    const table = this.#table;
    const made = makeDirectoryAt(parent, table.nameOf(entry), this.#modeOf(entry));
    if (made < 0 && !isError(made, "EEXIST")) return made;
    table.exchangeState(entry, state.waiting, state.open);
    return 0;
  }

  #openBelow(parent: number, entry: number, create: boolean): number {
    const table = this.#table;
    const name = table.nameOf(entry);
    let isMissing = create && table.actionOf(entry) === action.create && table.stateOf(entry) === state.waiting;
    for (let attempt = 1; ; attempt++) {
      if (isMissing) {
        const made = this.#makeIn(parent, entry);
        if (made < 0) return made;
        isMissing = false;
      }
      const handle = openAt(parent, name, directoryFlags);
      if (handle >= 0) {
        if (create && table.hasFlag(entry, flag.closed)) chmodAt(workingDirectory, `/proc/self/fd/${handle}`, 0o700);
        return handle;
      }
      if (!create || attempt === attempts) return handle;
      if (isError(handle, "ENOENT")) isMissing = true;
      else if (table.actionOf(entry) !== action.replace || !(isError(handle, "ENOTDIR") || isError(handle, "ELOOP"))) return handle;
      else {
        const removed = unlinkAt(parent, name);
        if (removed < 0 && !isError(removed, "ENOENT")) return removed;
        isMissing = true;
      }
    }
  }
}
