/**
 * Writes the content of files, in a worker.
 *
 * A file of one piece is created, written, given its metadata and closed in one go. A file of several pieces is opened by whoever has the first
 * of them; workers write at offsets, each through a handle of its own, and whoever writes the last piece sets the metadata. Until then the
 * file has the time of writing and is private, so that an interrupted restore leaves nothing that looks finished.
 *
 * A new file is made with O_EXCL, so nothing that was there is ever written through; a file that is updated is opened without following links,
 * and only if it is a regular file.
 */
import { Failure } from "@granary/base/errors";
import { toUtf8OrEscaped } from "../format/byte-string.ts";
import { nodeTypeOfMode } from "../format/mode.ts";
import {
  chmodHandle,
  closeHandle,
  FileStatus,
  openAt,
  openFlags,
  statHandle,
  truncateHandle,
  unlinkAt,
  writeHandleAt,
} from "../native/libc.ts";
import { type Counters, counter } from "./counters.ts";
import { findDataRuns } from "./data-runs.ts";
import type { DirectoryHandles } from "./directory-handles.ts";
import { action, type EntryTable, flag, state } from "./entry-table.ts";
import { describeError, isError, isFull, isInTheWay } from "./errno-text.ts";
import type { RestoreRules, TroubleReason } from "./messages.ts";
import type { MetadataWriter } from "./metadata.ts";

const newFlags = openFlags.writeOnly | openFlags.create | openFlags.exclusive | openFlags.noFollow;
const oldFlags = openFlags.writeOnly | openFlags.noFollow | openFlags.nonBlock;
const openLimit = 16;
const notRegular = -1_000_000; // no error number of the system

export interface FileWriterOptions {
  readonly table: EntryTable;
  readonly directories: DirectoryHandles;
  readonly metadata: MetadataWriter;
  readonly counters: Counters;
  readonly rules: RestoreRules;
  readonly onTrouble: (entry: number, reason: TroubleReason, message: string) => void;
}

export class FileWriter {
  readonly #options: FileWriterOptions;
  readonly #status = new FileStatus();
  /** Handles of files of several pieces, least recently used first. */
  readonly #open = new Map<number, number>();
  // The data runs of the piece written last; files that consist of the same piece over and over are common where there are holes.
  #lastData: Uint8Array | undefined;
  #lastRuns: number[] = [];

  constructor(options: FileWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes a piece, and finishes the file when it was the last.
   *
   * @param data not kept beyond the next call; the same array must have the same content
   * @throws TargetFull
   */
  write(entry: number, offsetBytes: number, data: Uint8Array): void {
    const { table, counters } = this.#options;
    const isWhole = table.piecesLeftOf(entry) === 1 && table.stateOf(entry) === state.waiting;
    const handle = isWhole ? this.#begin(entry) : this.#openShared(entry);
    if (handle >= 0) {
      const written = this.#put(entry, handle, { data, offsetBytes });
      if (written < 0) this.#fail(entry, written);
      else {
        counters.add(counter.bytesDone, data.length);
        counters.add(counter.bytesWritten, data.length);
      }
    }
    this.#settle(entry, handle, isWhole);
  }

  /**
   * Deals with a piece that the repository lacks: reports its file the first time. The other pieces are written all the same, for what they
   * are worth, but the file stays unfinished.
   */
  lose(entry: number, found: string): void {
    const { table, counters, onTrouble } = this.#options;
    if (table.addFlag(entry, flag.damaged)) {
      counters.add(counter.failed, 1);
      counters.add(counter.lost, 1);
      onTrouble(entry, "damaged", `Cannot restore it: ${found}`);
    }
    this.#settle(entry, this.#open.get(entry) ?? -1, false);
  }

  /** Sets length and metadata of a file that has no pieces to write. @throws TargetFull */
  finishEmpty(entry: number): void {
    const handle = this.#begin(entry);
    if (handle >= 0) this.#finish(entry, handle, true);
  }

  /** Closes the files that are still open, between batches. */
  closeAll(): void {
    for (const handle of this.#open.values()) closeHandle(handle);
    this.#open.clear();
  }

  /** Marks a file as failed, and reports it the first time. @param result a negated error number @throws TargetFull */
  #fail(entry: number, result: number): void {
    const { table, counters } = this.#options;
    if (isFull(result)) {
      table.setState(entry, state.failed); // others may wait for it to be opened
      throw this.#full(entry, result);
    }
    let before = table.stateOf(entry);
    while (before !== state.failed) {
      const seen = table.exchangeState(entry, before, state.failed);
      if (seen === before) break;
      before = seen;
    }
    if (before === state.failed) return;
    table.setState(entry, state.failed); // wakes who waits
    counters.add(counter.failed, 1);
    const found = result === notRegular ? "something else is in the way" : describeError(result);
    this.#options.onTrouble(entry, isInTheWay(result) || result === notRegular ? "blocked" : "target", `Cannot restore it: ${found}`);
  }

  #full(entry: number, result: number): Failure {
    const path = toUtf8OrEscaped(this.#options.table.pathOf(entry));
    return new Failure("TargetFull", `Cannot write "${path}" to the target: ${describeError(result)}`, { details: { path } });
  }

  /** Counts a piece as dealt with; after the last, finishes the file. */
  #settle(entry: number, handle: number, isWhole: boolean): void {
    const { table } = this.#options;
    const left = table.finishPiece(entry);
    if (left > 0) {
      if (isWhole && handle >= 0) closeHandle(handle);
      return;
    }
    this.#open.delete(entry);
    if (handle < 0) return;
    if (table.stateOf(entry) === state.failed) closeHandle(handle);
    else if (table.hasFlag(entry, flag.damaged)) {
      truncateHandle(handle, table.sizeOf(entry));
      closeHandle(handle);
    } else this.#finish(entry, handle, isWhole);
  }

  #finish(entry: number, handle: number, hasMode: boolean): void {
    const { table, directories, metadata, counters } = this.#options;
    const directory = directories.open(table.parentOf(entry), true);
    const isNew = table.actionOf(entry) !== action.update;
    metadata.finishFile(entry, handle, { directory, name: table.nameOf(entry), isNew, hasMode });
    // file systems of the network may find only now that there is no room
    const closed = closeHandle(handle);
    if (closed < 0) return this.#fail(entry, closed);
    table.setState(entry, state.done);
    counters.add(counter.filesDone, 1);
  }

  #put(entry: number, handle: number, piece: { data: Uint8Array; offsetBytes: number }): number {
    const { table, rules } = this.#options;
    const { data, offsetBytes } = piece;
    // a file that was there before has something where a hole would be
    if (!rules.sparse || table.actionOf(entry) === action.update) return writeHandleAt(handle, data, offsetBytes);
    if (this.#lastData !== data) {
      this.#lastData = data;
      this.#lastRuns = findDataRuns(data);
    }
    const runs = this.#lastRuns;
    for (let at = 0; at < runs.length; at += 2) {
      const from = runs[at] ?? 0;
      const written = writeHandleAt(handle, data.subarray(from, runs[at + 1]), offsetBytes + from);
      if (written < 0) return written;
    }
    return 0;
  }

  /** A handle of a file that several workers may write. @returns -1 when it has failed */
  #openShared(entry: number): number {
    const { table } = this.#options;
    const known = this.#open.get(entry);
    if (known !== undefined) {
      this.#open.delete(entry);
      this.#open.set(entry, known);
      return known;
    }
    const seen = table.exchangeState(entry, state.waiting, state.opening);
    let handle: number;
    if (seen === state.waiting) {
      handle = this.#begin(entry);
      if (handle >= 0) table.setState(entry, state.open);
    } else {
      table.waitWhile(entry, state.opening);
      if (table.stateOf(entry) !== state.open) return -1;
      handle = this.#openAgain(entry);
    }
    if (handle >= 0) this.#keep(entry, handle);
    return handle;
  }

  #keep(entry: number, handle: number): void {
    this.#open.set(entry, handle);
    if (this.#open.size <= openLimit) return;
    const [oldest] = this.#open;
    if (oldest === undefined) return;
    this.#open.delete(oldest[0]);
    closeHandle(oldest[1]);
  }

  #openAgain(entry: number): number {
    const { table, directories } = this.#options;
    const directory = directories.open(table.parentOf(entry), true);
    const handle = directory < 0 ? directory : openAt(directory, table.nameOf(entry), oldFlags);
    if (handle < 0) this.#fail(entry, handle);
    return handle < 0 ? -1 : handle;
  }

  /** Makes a file, or opens the one that is to be updated, and gives it its length where that matters. @returns a handle, or -1 after a report */
  #begin(entry: number): number {
    const { table, directories, rules } = this.#options;
    const directory = directories.open(table.parentOf(entry), true);
    const name = table.nameOf(entry);
    const done = table.actionOf(entry);
    const handle =
      directory < 0 ? directory : done === action.update ? this.#openOld(directory, name) : this.#create(entry, directory, name);
    if (handle < 0) {
      this.#fail(entry, handle);
      return -1;
    }
    if (done === action.update || rules.sparse) {
      const cut = truncateHandle(handle, table.sizeOf(entry));
      if (cut < 0) {
        closeHandle(handle);
        this.#fail(entry, cut);
        return -1;
      }
    }
    return handle;
  }

  #create(entry: number, directory: number, name: string): number {
    const { table, metadata } = this.#options;
    const isReplacing = table.actionOf(entry) === action.replace;
    if (isReplacing) {
      const removed = removeName(directory, name);
      if (removed < 0) return removed;
    }
    // pieces of a file that others write as well come after it is open: it stays private until it is finished
    const isPrivate = table.piecesLeftOf(entry) > 1 || table.hasFlag(entry, flag.damaged);
    const mode = isPrivate ? 0o600 : metadata.creationMode(entry);
    // whatever has come since the plan was made stays: it may be a file of this restore, where upper and lower case are the same
    return openAt(directory, name, newFlags, mode);
  }

  #openOld(directory: number, name: string): number {
    let handle = openAt(directory, name, oldFlags);
    if (isError(handle, "EACCES")) handle = this.#openReadOnly(directory, name);
    if (handle < 0) return handle;
    const looked = statHandle(handle, this.#status);
    if (looked < 0 || nodeTypeOfMode(this.#status.mode) !== "file") {
      closeHandle(handle);
      return looked < 0 ? looked : notRegular;
    }
    return handle;
  }

  /** Opens a file of this user that he may not write: after making it writable, which the metadata set right again. */
  #openReadOnly(directory: number, name: string): number {
    const reading = openAt(directory, name, openFlags.readOnly | openFlags.noFollow | openFlags.nonBlock);
    if (reading < 0) return reading;
    const changed = chmodHandle(reading, 0o600);
    closeHandle(reading);
    return changed < 0 ? changed : openAt(directory, name, oldFlags);
  }
}

/** Removes a file, a link or an empty folder. @returns 0, also when there is none, or -errno */
export function removeName(directory: number, name: string): number {
  const removed = unlinkAt(directory, name);
  if (removed >= 0 || isError(removed, "ENOENT")) return 0;
  if (!isError(removed, "EISDIR") && !isError(removed, "EPERM")) return removed;
  const removedFolder = unlinkAt(directory, name, true);
  return isError(removedFolder, "ENOTDIR") ? removed : removedFolder;
}
