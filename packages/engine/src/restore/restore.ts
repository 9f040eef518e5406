/**
 * The restore verb: snapshot ─▶ plan (trees ─▶ entries, pieces grouped by pack) ─▶ read ranges ─▶ open + verify ─▶ write at offsets ─▶ links ─▶
 * removals ─▶ metadata of directories, deepest first ─▶ second look ─▶ report.
 *
 * Planning changes nothing; it reads the trees and looks at what is in the target, so that a plan can be shown, and a restore that was
 * interrupted goes on: what is on disk already is compared by hash and not written again. Carrying the plan out reads each span of each pack
 * once, whatever files its blobs belong to. All work is done by worker threads on packed tables in shared memory; this file is the order of
 * it.
 *
 * Nothing is ever written outside the target, whatever the repository says and whoever else is at work there; how: directory-handles.ts.
 *
 * The caller holds a shared lock and has loaded the index.
 */
import { accessSync, constants, mkdirSync } from "node:fs";
import { type Clock, systemClock } from "@granary/base/clock";
import { Failure, messageOf } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, toBytes, toUtf8OrEscaped } from "../format/byte-string.ts";
import { closeHandle, FileStatus, openAt, openFlags, pathBelow, statHandle, workingDirectory } from "../native/libc.ts";
import { type Agenda, listNeeded, makeAgenda } from "./agenda.ts";
import { planBatches } from "./batches.ts";
import type { RestoreCounts } from "./counters.ts";
import { Crew, type RestoreSource } from "./crew.ts";
import { action, type Action, type EntryTable, flag, kind, type Kind, type NewEntry, rootEntry, state } from "./entry-table.ts";
import { describeError, isError } from "./errno-text.ts";
import type { EntriesTask, OverwriteMode, PiecesTask, RestoreTask, RestoreTrouble } from "./messages.ts";
import { compileSelection, type RestoreSelection, selectAll } from "./selection.ts";
import { quirk } from "./shared-state.ts";
import { hasDefaultList } from "./target-look.ts";

export interface RestoreOptions {
  /** Id of the tree whose entries go into the target, 32 bytes. */
  readonly tree: Uint8Array;
  /** The folder, raw bytes; made if need be. Symbolic links on the way to it are followed, none below it is. */
  readonly target: ByteString;
  /** Default: everything. Paths begin at the tree. */
  readonly selection?: RestoreSelection;
  /** Default: `always`. */
  readonly overwrite?: OverwriteMode;
  /** Remove what is in restored folders but not in the snapshot, as far as it is selected. */
  readonly deleteExtra?: boolean;
  /** Make holes of long runs of zeros. */
  readonly sparse?: boolean;
  /** Read everything again at the end and compare. */
  readonly verify?: boolean;
  /** Worker threads; default: see crew.ts. */
  readonly workers?: number;
  /**
   * What the plan may take of memory, about; a snapshot that needs more is refused. Default: half of what this process may still get, and
   * at least 1 GiB. About 150 bytes a file are needed.
   */
  readonly planBytes?: number;
  /** Plan only. */
  readonly dryRun?: boolean;
  readonly clock?: Clock;
  /** Called about ten times a second, and at the end of each phase; must neither throw nor take long. */
  readonly onProgress?: (progress: RestoreProgress) => void;
  readonly onTrouble?: (trouble: RestoreTrouble) => void;
  readonly signal?: AbortSignal;
}

export type RestorePhase = "plan" | "write" | "finish" | "verify";

/** How far a restore has come. */
export interface RestoreProgress {
  readonly phase: RestorePhase;
  readonly filesDone: number;
  readonly filesTotal: number;
  /** Content that is right on disk, written now or before. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** What is to be done. Links are the second and further names of files, others are symbolic links and special files. */
export interface RestoreSummary {
  readonly directories: number;
  readonly files: number;
  readonly links: number;
  readonly others: number;
  readonly bytes: number;
  /** Of the files: not there yet, to be replaced or updated, right already. */
  readonly filesToWrite: number;
  readonly filesToReplace: number;
  readonly filesUnchanged: number;
  /** What the target has for pieces of files is not read again. */
  readonly bytesToWrite: number;
  /** Left as they are, because of the overwrite mode; they are not among the files. */
  readonly skipped: number;
  /** In the target but not in the snapshot, to be removed. */
  readonly extras: number;
  /** Cannot be restored; each was reported. */
  readonly failed: number;
}

/** One line of a plan. */
export interface PlannedEntry {
  /** Below the target, as in `/home/alice`. */
  readonly path: ByteString;
  readonly type: "file" | "directory" | "symlink" | "special" | "extra";
  readonly action: "create" | "replace" | "update" | "refresh" | "link" | "remove";
  readonly sizeBytes: number;
}

/** What a restore did. */
export interface RestoreReport {
  readonly summary: RestoreSummary;
  readonly directories: number;
  readonly files: number;
  readonly links: number;
  readonly others: number;
  readonly bytesWritten: number;
  readonly extrasRemoved: number;
  readonly filesVerified: number;
  /** Entries not restored, or not as they should be; each was reported. */
  readonly failed: number;
  /** Those among them that the repository is to blame for: content is missing or damaged, or what it says cannot be. */
  readonly lost: number;
  /** Reports of any kind. */
  readonly troubles: number;
  readonly durationMs: number;
}

/** A plan, with the workers that made it and will carry it out. Closed by whoever made it. */
export interface RestorePlan extends AsyncDisposable {
  readonly summary: RestoreSummary;
  /** Every entry, parents before what is in them as far as possible; read from packed memory as it goes. */
  list(): Generator<PlannedEntry, void, void>;
  /** Stops the workers. Idempotent. */
  close(): Promise<void>;
}

const leastPlanBytes = 2 ** 30;
const entriesPerTask = 512;
const progressMs = 100;

/**
 * Plans a restore. Writes nothing.
 *
 * Entries that cannot be restored are reported to `onTrouble` and left out.
 *
 * @throws InvalidArgument for a malformed pattern; TargetInvalid when the target is no folder; BlobMissing, BlobInvalid when the tree itself cannot
 *   be read; RestoreTooLarge; StoreUnavailable, StoreDenied; Cancelled
 */
export async function planRestore(source: RestoreSource, options: RestoreOptions): Promise<RestorePlan> {
  const plan = new Plan(source, options);
  try {
    await plan.make();
    return plan;
  } catch (error) {
    await plan.close();
    throw error;
  }
}

/**
 * Carries a plan out; once.
 *
 * Running an interrupted restore again, with a new plan, goes on where it stopped.
 *
 * @throws TargetInvalid; TargetFull; StoreUnavailable, StoreDenied; Cancelled. Trouble with single entries is reported, not thrown.
 */
export async function runRestore(plan: RestorePlan): Promise<RestoreReport> {
  if (!(plan instanceof Plan)) throw new Failure("Bug", "Cannot run a plan that planRestore() did not make");
  return await plan.run();
}

/**
 * Plans and carries out.
 *
 * @throws what {@link planRestore} and {@link runRestore} throw; RestoreIncomplete, when all is done, if content was lost
 */
export async function restoreSnapshot(source: RestoreSource, options: RestoreOptions): Promise<RestoreReport> {
  await using plan = await planRestore(source, options);
  const report = options.dryRun === true ? describePlan(plan) : await runRestore(plan);
  if (report.lost > 0) {
    const { failed, lost, files } = report;
    throw new Failure("RestoreIncomplete", `Restored ${files} files, but ${lost} entries are missing or damaged in the repository`, {
      details: { failed, lost, files },
    });
  }
  return report;
}

function describePlan(plan: RestorePlan): RestoreReport {
  if (!(plan instanceof Plan)) throw new Failure("Bug", "Cannot describe a plan that planRestore() did not make");
  return plan.describe(0);
}

class Plan implements RestorePlan {
  readonly #options: RestoreOptions;
  readonly #source: RestoreSource;
  readonly #crew: Crew;
  readonly #table: EntryTable;
  readonly #clock: Clock;
  #troubles = 0;
  #batches: PiecesTask[] = [];
  #agenda: Agenda;
  #bytesToWrite = 0;
  #planned: RestoreCounts;
  #hasRun = false;

  constructor(source: RestoreSource, options: RestoreOptions) {
    compileSelection(options.selection ?? selectAll); // workers would find a malformed pattern too late
    this.#source = source;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#crew = new Crew({
      source,
      rules: {
        selection: options.selection ?? selectAll,
        overwrite: options.overwrite ?? "always",
        deleteExtra: options.deleteExtra === true,
        sparse: options.sparse === true,
        verify: options.verify === true,
      },
      ...(options.workers === undefined ? {} : { workers: options.workers }),
      planBytes: options.planBytes ?? Math.max(leastPlanBytes, process.availableMemory() / 2),
      onTrouble: (trouble) => this.#report(trouble),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    this.#table = this.#crew.table;
    this.#agenda = makeAgenda(this.#table);
    this.#planned = this.#crew.counters.sum();
  }

  get summary(): RestoreSummary {
    const { skipped, failed } = this.#planned;
    return { ...this.#agenda.tally, bytesToWrite: this.#bytesToWrite, skipped, failed };
  }

  async make(): Promise<void> {
    const isPresent = this.#openTarget();
    const root = this.#table.add({ ...emptyEntry, flags: isPresent ? flag.present : 0 }, new Uint8Array(0));
    if (root !== rootEntry) throw new Failure("Bug", "The plan does not begin with its root");
    await this.#phase("plan", [{ kind: "plan", directories: [{ entry: root, tree: this.#options.tree }] }]);
    this.#agenda = makeAgenda(this.#table);
    const { tasks, bytes } = planBatches(this.#table, this.#source.index);
    this.#batches = tasks;
    this.#bytesToWrite = bytes;
    this.#planned = this.#crew.counters.sum();
    this.#progress("plan");
  }

  async run(): Promise<RestoreReport> {
    if (this.#hasRun) throw new Failure("Bug", "Cannot run a plan twice");
    this.#hasRun = true;
    const startedAt = this.#clock.monotonicMs();
    const { toMake, toLink, toRemove, toFinish } = this.#agenda;
    this.#makeTarget();
    await this.#phase("write", [...spread("make", toMake), ...this.#batches]);
    await this.#phase("finish", spread("link", toLink));
    await this.#phase("finish", spread("remove", toRemove));
    for (const stage of joinStages(toFinish)) await this.#phase("finish", spread("finish", stage));
    if (this.#options.verify === true) await this.#phase("verify", spread("verify", this.#finishedFiles()));
    this.#reportRefusals();
    return this.describe(this.#clock.monotonicMs() - startedAt);
  }

  /** What was done so far. */
  describe(durationMs: number): RestoreReport {
    const done = this.#crew.counters.sum();
    return {
      summary: this.summary,
      directories: done.directoriesDone,
      files: done.filesDone,
      links: done.linksDone,
      others: done.othersDone,
      bytesWritten: done.bytesWritten,
      extrasRemoved: done.extrasRemoved,
      filesVerified: done.filesVerified,
      failed: done.failed,
      lost: done.lost,
      troubles: this.#troubles,
      durationMs,
    };
  }

  *list(): Generator<PlannedEntry, void, void> {
    const table = this.#table;
    for (const entry of listNeeded(table)) {
      const what = table.kindOf(entry);
      const done = actionNames[table.actionOf(entry)];
      if (done === undefined) continue;
      const sizeBytes = what === kind.file ? table.sizeOf(entry) : 0;
      yield { path: table.pathOf(entry), type: typeNames[what] ?? "special", action: done, sizeBytes };
    }
  }

  async close(): Promise<void> {
    await this.#crew.close();
    const { root } = this.#crew.state;
    this.#crew.state.root = 0;
    if (root !== 0) closeHandle(root);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Opens the target, if it is there. @returns whether it is */
  #openTarget(): boolean {
    const { target } = this.#options;
    const handle = openAt(workingDirectory, target, openFlags.path | openFlags.directory);
    if (isError(handle, "ENOENT")) return false;
    if (handle < 0) throw this.#invalid(describeError(handle));
    const { state: shared } = this.#crew;
    shared.root = handle;
    const status = new FileStatus();
    const setgid = 0o2000;
    if (statHandle(handle, status) >= 0 && (status.mode & setgid) !== 0) shared.addQuirk(quirk.foreignOwners);
    if (hasDefaultList(pathBelow(handle, ""))) shared.addQuirk(quirk.inheritedLists);
    return true;
  }

  #makeTarget(): void {
    const path = toBytes(this.#options.target);
    try {
      if (this.#crew.state.root === 0) mkdirSync(path, { recursive: true, mode: 0o700 });
      accessSync(path, constants.W_OK | constants.X_OK);
    } catch (error) {
      throw this.#invalid(messageOf(error));
    }
    if (this.#crew.state.root === 0 && !this.#openTarget()) throw this.#invalid("it was removed while it was made");
  }

  #invalid(found: string): Failure {
    const path = toUtf8OrEscaped(this.#options.target);
    return new Failure("TargetInvalid", `Cannot restore into "${path}": ${found}`, { details: { path } });
  }

  /** Has the workers do the tasks of a phase, and tells of progress meanwhile. */
  async #phase(phase: RestorePhase, tasks: readonly RestoreTask[]): Promise<void> {
    if (tasks.length === 0) return;
    const stop = this.#options.onProgress === undefined ? () => {} : this.#clock.every(progressMs, () => this.#progress(phase));
    try {
      await this.#crew.run(tasks);
    } finally {
      stop();
    }
    this.#progress(phase);
  }

  #progress(phase: RestorePhase): void {
    const { onProgress } = this.#options;
    if (onProgress === undefined) return;
    const now = this.#crew.counters.sum();
    const isVerifying = phase === "verify";
    const { files, bytes } = phase === "plan" ? now : this.#agenda.tally;
    onProgress({
      phase,
      filesDone: isVerifying ? now.filesVerified : now.filesDone,
      filesTotal: files,
      bytesDone: Math.min(isVerifying ? now.bytesVerified : now.bytesDone, bytes),
      bytesTotal: bytes,
    });
  }

  #report(trouble: RestoreTrouble): void {
    this.#troubles++;
    this.#options.onTrouble?.(trouble);
  }

  /** What the process may not do is told once. */
  #reportRefusals(): void {
    const { ownersRefused, attributesRefused } = this.#crew.counters.sum();
    if (ownersRefused > 0) {
      const message = `The owner or group of ${ownersRefused} entries could not be set, which only root can do; they lost setuid and setgid`;
      this.#report({ path: "", reason: "metadata", message });
    }
    if (attributesRefused > 0) {
      const message = `${attributesRefused} extended attributes could not be set: the file system has none such, or only root may set them`;
      this.#report({ path: "", reason: "metadata", message });
    }
  }

  #finishedFiles(): number[] {
    const table = this.#table;
    const files: number[] = [];
    for (const entry of listNeeded(table)) if (table.kindOf(entry) === kind.file && table.stateOf(entry) === state.done) files.push(entry);
    return files;
  }
}

/** The record of the target folder. */
const emptyEntry: Omit<NewEntry, "flags"> = {
  kind: kind.directory,
  action: action.refresh,
  parent: -1,
  name: "",
  permissions: 0,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  atimeSeconds: 0,
  atimeNanos: 0,
  sizeBytes: 0,
  pieces: 0,
};

const actionNames: Partial<Readonly<Record<Action, PlannedEntry["action"]>>> = {
  [action.create]: "create",
  [action.replace]: "replace",
  [action.update]: "update",
  [action.refresh]: "refresh",
  [action.link]: "link",
  [action.remove]: "remove",
};
const typeNames: Partial<Readonly<Record<Kind, PlannedEntry["type"]>>> = {
  [kind.file]: "file",
  [kind.directory]: "directory",
  [kind.symlink]: "symlink",
  [kind.extra]: "extra",
};

/** Joins levels that are small enough together for one task, which keeps their order; between others, all workers wait for each other. */
function joinStages(levels: readonly (readonly number[])[]): number[][] {
  const stages: number[][] = [];
  for (const level of levels) {
    const last = stages.at(-1);
    if (last !== undefined && last.length + level.length <= entriesPerTask) last.push(...level);
    else stages.push([...level]);
  }
  return stages;
}

/** Cuts a list of entries into tasks. */
function spread(step: EntriesTask["kind"], entries: readonly number[]): EntriesTask[] {
  const shared = new SharedArrayBuffer(entries.length * 4);
  new Uint32Array(shared).set(entries);
  const tasks: EntriesTask[] = [];
  for (let from = 0; from < entries.length; from += entriesPerTask) {
    tasks.push({ kind: step, order: shared, from, to: Math.min(from + entriesPerTask, entries.length) });
  }
  return tasks;
}
