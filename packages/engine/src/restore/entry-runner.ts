/** Does, in a worker, what a restore has to do beside writing content: directories, links, special files, metadata, removals, the second look. */
import { Buffer } from "node:buffer";
import { Failure } from "@granary/base/errors";
import { type ByteString, toUtf8OrEscaped } from "../format/byte-string.ts";
import {
  closeHandle,
  FileStatus,
  linkFile,
  makeLinkAt,
  makeNodeAt,
  openAt,
  openFlags,
  type Place,
  statAt,
  statHandle,
} from "../native/libc.ts";
import { type ContentCheck, openToRead } from "./content-check.ts";
import { type Counters, counter } from "./counters.ts";
import type { DirectoryHandles } from "./directory-handles.ts";
import { action, type EntryTable, fact, flag, kind, type Kind, state } from "./entry-table.ts";
import { describeError, isFull, isInTheWay } from "./errno-text.ts";
import { type FileWriter, removeName } from "./file-writer.ts";
import type { EntriesTask, RestoreRules, TroubleReason } from "./messages.ts";
import type { MetadataWriter } from "./metadata.ts";
import type { SharedState } from "./shared-state.ts";
import { removeTree } from "./tree-removal.ts";

export interface EntryRunnerOptions {
  readonly table: EntryTable;
  readonly directories: DirectoryHandles;
  readonly files: FileWriter;
  readonly metadata: MetadataWriter;
  readonly content: ContentCheck;
  readonly counters: Counters;
  readonly state: SharedState;
  readonly rules: RestoreRules;
  readonly onTrouble: (entry: number, reason: TroubleReason, message: string) => void;
}

/** Type bits of `st_mode`. */
const typeBits: Partial<Readonly<Record<Kind, number>>> = {
  [kind.device]: 0o060000,
  [kind.characterDevice]: 0o020000,
  [kind.fifo]: 0o010000,
  [kind.socket]: 0o140000,
};

export class EntryRunner {
  readonly #options: EntryRunnerOptions;
  readonly #status = new FileStatus();

  constructor(options: EntryRunnerOptions) {
    this.#options = options;
  }

  /** @throws TargetFull */
  run(task: EntriesTask): void {
    const order = new Uint32Array(task.order);
    const step = {
      make: (entry: number) => this.#make(entry),
      link: (entry: number) => this.#link(entry),
      remove: (entry: number) => this.#remove(entry),
      finish: (entry: number) => this.#finish(entry),
      verify: (entry: number) => this.#verify(entry),
    }[task.kind];
    for (let at = task.from; at < task.to && !this.#options.state.isStopping; at++) step(order[at] ?? 0);
  }

  #make(entry: number): void {
    const { table, files, metadata, directories, counters } = this.#options;
    const what = table.kindOf(entry);
    if (what === kind.directory) {
      const made = directories.make(entry);
      if (made < 0) this.#fail(entry, made);
      return;
    }
    const done = table.actionOf(entry);
    if (what === kind.file && done !== action.refresh) return files.finishEmpty(entry);
    const place = this.#placeOf(entry);
    if (place === undefined) return;
    if (done === action.refresh) metadata.refresh(entry, place);
    else {
      const made = this.#makeSpecial(entry, place);
      if (made < 0) return this.#fail(entry, made);
      metadata.finish(entry, place, true);
    }
    table.setState(entry, state.done);
    counters.add(what === kind.file ? counter.filesDone : counter.othersDone, 1);
  }

  #makeSpecial(entry: number, place: Place): number {
    const removed = this.#options.table.actionOf(entry) === action.replace ? removeName(place.directory, place.name) : 0;
    return removed < 0 ? removed : this.#makeOnce(entry, place);
  }

  #makeOnce(entry: number, place: Place): number {
    const { table, metadata } = this.#options;
    const what = table.kindOf(entry);
    if (what === kind.symlink) {
      const [target] = table.factsOf(entry, fact.linkTarget);
      return makeLinkAt(place.directory, place.name, (target ?? Buffer.alloc(0)).latin1Slice());
    }
    const [device] = table.factsOf(entry, fact.device);
    const mode = (typeBits[what] ?? 0) | metadata.creationMode(entry);
    return makeNodeAt(place.directory, place.name, { mode, device: device?.readBigUInt64LE() ?? 0n });
  }

  #link(entry: number): void {
    const { table, counters } = this.#options;
    const primary = table.primaryOf(entry);
    if (table.stateOf(primary) !== state.done) {
      const path = toUtf8OrEscaped(table.pathOf(primary));
      return this.#report(entry, "blocked", `Cannot restore it: it is another name of "${path}", which was not restored`);
    }
    const from = this.#holdPlaceOf(primary);
    const to = from === undefined ? undefined : this.#placeOf(entry);
    if (from === undefined || to === undefined) return;
    const made = this.#isSameFile(from, to) ? 0 : this.#makeLink(entry, from, to);
    closeHandle(from.directory);
    if (made < 0) return this.#fail(entry, made);
    table.setState(entry, state.done);
    counters.add(counter.linksDone, 1);
  }

  #makeLink(entry: number, from: Place, to: Place): number {
    const removed = this.#options.table.hasFlag(entry, flag.occupied) ? removeName(to.directory, to.name) : 0;
    return removed < 0 ? removed : linkFile(from, to);
  }

  #isSameFile(from: Place, to: Place): boolean {
    const status = this.#status;
    if (statAt(to.directory, to.name, status) < 0) return false;
    const { inode, fileSystem } = status;
    return statAt(from.directory, from.name, status) >= 0 && status.inode === inode && status.fileSystem === fileSystem;
  }

  #remove(entry: number): void {
    const place = this.#placeOf(entry);
    if (place === undefined) return;
    const problem = removeTree(place);
    if (problem === undefined) this.#options.counters.add(counter.extrasRemoved, 1);
    else this.#report(entry, "target", `Cannot remove it: ${problem}`);
  }

  /** Sets the metadata of a directory, when nothing in it will change any more. */
  #finish(entry: number): void {
    const { table, metadata, counters, rules } = this.#options;
    const isPresent = table.hasFlag(entry, flag.present);
    if (table.stateOf(entry) === state.failed) return;
    const place = this.#placeOf(entry);
    if (place === undefined) return;
    if (!isPresent) metadata.finishDirectory(entry, place);
    else if (rules.overwrite !== "never") metadata.refresh(entry, place);
    table.setState(entry, state.done);
    counters.add(counter.directoriesDone, 1);
  }

  #verify(entry: number): void {
    const { table, content, counters } = this.#options;
    const place = this.#placeOf(entry);
    if (place === undefined) return;
    const handle = openToRead(place);
    const looked = handle < 0 ? handle : statHandle(handle, this.#status);
    const [packed] = table.factsOf(entry, fact.pieces);
    const blobs = new Uint32Array(packed === undefined ? 0 : packed.length >>> 2);
    for (let at = 0; packed !== undefined && at < blobs.length; at++) blobs[at] = packed.readUInt32LE(at * 4);
    const wanted = table.sizeOf(entry);
    let different = 0;
    const { sizeBytes } = this.#status;
    const read = looked < 0 ? looked : content.compare(handle, { blobs, sizeBytes }, () => different++);
    if (handle >= 0) closeHandle(handle);
    if (read < 0) this.#report(entry, "verify", `Cannot read it again: ${describeError(read)}`);
    else if (sizeBytes !== wanted) this.#report(entry, "verify", `It should have ${wanted} bytes and has ${sizeBytes}`);
    else if (different > 0) this.#report(entry, "verify", `${different} of its ${blobs.length} pieces are not what was written`);
    counters.add(counter.filesVerified, 1);
    counters.add(counter.bytesVerified, wanted);
  }

  /** Where an entry belongs; the directory is made if need be. `undefined` after a report. */
  #placeOf(entry: number): Place | undefined {
    const { table, directories } = this.#options;
    const directory = directories.open(table.parentOf(entry), true);
    if (directory < 0) {
      this.#fail(entry, directory);
      return undefined;
    }
    return { directory, name: table.nameOf(entry) };
  }

  /** As `#placeOf`, with a handle that the caller closes. */
  #holdPlaceOf(entry: number): { directory: number; name: ByteString } | undefined {
    const place = this.#placeOf(entry);
    if (place === undefined) return undefined;
    const directory = openAt(place.directory, ".", openFlags.path | openFlags.directory | openFlags.noFollow);
    if (directory < 0) {
      this.#fail(entry, directory);
      return undefined;
    }
    return { directory, name: place.name };
  }

  /** @throws TargetFull */
  #fail(entry: number, result: number): void {
    const path = toUtf8OrEscaped(this.#options.table.pathOf(entry));
    if (isFull(result)) {
      throw new Failure("TargetFull", `Cannot write "${path}" to the target: ${describeError(result)}`, { details: { path } });
    }
    this.#report(entry, isInTheWay(result) ? "blocked" : "target", `Cannot restore it: ${describeError(result)}`);
  }

  #report(entry: number, reason: TroubleReason, message: string): void {
    this.#options.table.setState(entry, state.failed);
    this.#options.counters.add(counter.failed, 1);
    this.#options.onTrouble(entry, reason, message);
  }
}
