/**
 * Hands what is to be backed up to the crew: finds the targets on the disk, makes frames for the directories above them, and a slice of the
 * targets that lie side by side.
 */
import { Failure } from "@granary/base/errors";
import "../errors.ts";
import { type ByteString, fromUtf8, toBytes, toUtf8OrEscaped } from "../format/byte-string.ts";
import { bytesOfId } from "../format/ids.ts";
import { encodeNodeHead } from "../format/node.ts";
import { parseNode } from "../format/parse-node.ts";
import { closeHandle, FileStatus, openAt, openFlags, readNames, statAt, statHandle, workingDirectory } from "../native/libc.ts";
import { loadBlob } from "../repository/blob-load.ts";
import { isFileDamage } from "../repository/files.ts";
import type { Repository } from "../repository/repository.ts";
import type { StoredSnapshot } from "../repository/snapshots.ts";
import type { ExcludeRules } from "../selection/exclude.ts";
import { type Crew, rootFrame } from "./crew.ts";
import { describeErrno, HeadReader } from "./head-reader.ts";
import type { BackupTrouble, Destination, StreamTask } from "./messages.ts";
import { ParentNodes } from "./parent-nodes.ts";
import { type PlacedTargets, type Placement, type Placements, placeTargets, resolveTarget } from "./targets.ts";

type OnTrouble = (trouble: BackupTrouble) => void;

/** What of a backup's options decides where it begins; see backup.ts. */
export interface SourceOptions {
  readonly targets: readonly ByteString[];
  readonly directory?: ByteString;
  readonly excludes?: ExcludeRules;
  readonly parent?: StoredSnapshot | null;
  readonly withAtime?: boolean;
}

/**
 * Finds the targets and places them. One that is missing is trouble, and is left out; that all are is a failure.
 *
 * @throws SourceUnreadable; InvalidArgument
 */
export function findSources(options: SourceOptions, onTrouble: OnTrouble): PlacedTargets {
  const directory = options.directory ?? fromUtf8(process.cwd());
  const status = new FileStatus();
  const missing: BackupTrouble[] = [];
  const present = options.targets.filter((target) => {
    const path = resolveTarget(target, directory);
    const looked = statAt(workingDirectory, path, status);
    if (looked < 0) missing.push({ path, reason: "unreadable", message: `Cannot look at the target: ${describeErrno(-looked)}` });
    return looked >= 0;
  });
  if (present.length === 0 && missing.length > 0) {
    const shown = missing.map(({ path, message }) => `${toUtf8OrEscaped(path)} (${message.replace(/^.*: /, "")})`);
    throw new Failure("SourceUnreadable", `Cannot back up: none of the targets can be read: ${shown.join(", ")}`, {
      details: { paths: shown },
    });
  }
  missing.forEach(onTrouble);
  return placeTargets(present, { directory, list: listNames });
}

/** Hands out a stream, as the one file of the snapshot. */
export function spreadStream(crew: Crew, stream: Pick<StreamTask, "handle" | "name">, timeSeconds: number): void {
  const { handle, name } = stream;
  crew.addFrame({ id: rootFrame, parts: [1], directory: { head: new Uint8Array(0) } });
  crew.submit({ kind: "stream", into: { frame: rootFrame, hole: 1 }, handle, name, timeSeconds });
}

/** Hands out all targets. @throws SourceUnreadable when a directory above them cannot be looked at; StoreDenied, StoreUnavailable; Cancelled */
export async function spreadSources(
  repository: Repository,
  crew: Crew,
  work: { readonly options: SourceOptions; readonly sources: PlacedTargets; readonly onTrouble: OnTrouble },
): Promise<void> {
  const { parent } = work.options;
  const parentTree = parent === undefined || parent === null ? undefined : bytesOfId(parent.tree);
  await new Spread(repository, crew, work).run(work.sources.root, { frame: rootFrame, head: new Uint8Array(0), parentTree });
}

/** A directory of the snapshot whose entries are placed. */
interface Above {
  readonly frame: number;
  readonly into?: Destination;
  readonly head: Uint8Array;
  readonly parentTree: Uint8Array | undefined;
}

class Spread {
  readonly #repository: Repository;
  readonly #crew: Crew;
  readonly #onTrouble: OnTrouble;
  readonly #heads: HeadReader;
  readonly #status = new FileStatus();
  readonly #oneFileSystem: boolean;
  #frames = rootFrame;

  constructor(repository: Repository, crew: Crew, work: { readonly options: SourceOptions; readonly onTrouble: OnTrouble }) {
    this.#repository = repository;
    this.#crew = crew;
    this.#onTrouble = work.onTrouble;
    this.#oneFileSystem = work.options.excludes?.oneFileSystem === true;
    const onTrouble = (path: ByteString, status: number, what: string): void =>
      work.onTrouble({ path, reason: "attributes", message: `Cannot ${what}: ${describeErrno(-status)}` });
    this.#heads = new HeadReader({ withAtime: work.options.withAtime === true, onTrouble });
  }

  async run(children: Placements, above: Above): Promise<void> {
    const parent = await this.#loadParent(above.parentTree);
    const runs = groupRuns([...children].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.#crew.addFrame({
      id: above.frame,
      ...(above.into === undefined ? {} : { into: above.into }),
      parts: runs.map((_, at) => at + 1),
      directory: { head: above.head, ...(above.parentTree === undefined ? {} : { parentTree: above.parentTree }) },
    });
    for (const [at, { names, placement }] of runs.entries()) {
      const into: Destination = { frame: above.frame, hole: at + 1 };
      const [first = ""] = names;
      if (placement.kind === "target") {
        const { directory } = placement;
        const parentNodes = parent?.slice(first, names.at(-1) ?? first);
        const fileSystem = this.#oneFileSystem ? this.#fileSystemOf(directory) : 0n;
        const nodes = parentNodes === undefined ? {} : { parentNodes };
        this.#crew.submit({ kind: "slice", into, path: directory, names, directories: names, ...nodes, fileSystem });
        continue;
      }
      const parentTree = parent?.seek(first) === true ? parent.findSubtree() : undefined;
      const head = this.#headOf(placement.path, first, parent);
      await this.run(placement.children, { frame: ++this.#frames, into, head, parentTree });
    }
  }

  async #loadParent(tree: Uint8Array | undefined): Promise<ParentNodes | undefined> {
    if (tree === undefined) return undefined;
    const { index } = this.#repository;
    try {
      return new ParentNodes(await loadBlob(this.#repository, tree));
    } catch (error) {
      if (!isFileDamage(error)) throw error;
      // Everything below is read anew, and this tree is stored anew if it comes out the same.
      const entry = index.find(tree);
      if (entry >= 0) index.disown(entry);
      this.#crew.raiseAlarm();
      const message = `A directory of the parent snapshot cannot be read, all below it is read anew: ${String(error)}`;
      this.#onTrouble({ path: "/", reason: "parent", message });
      return undefined;
    }
  }

  #fileSystemOf(path: ByteString): bigint {
    return statAt(workingDirectory, path, this.#status) < 0 ? 0n : this.#status.fileSystem;
  }

  /**
   * The head of a directory above the targets, which may be reached by a link. Its times stay the parent's while nothing else of it has
   * changed: they tell of what comes and goes beside the targets, and should not make a new tree of targets that are as they were.
   */
  #headOf(path: ByteString, name: ByteString, parent: ParentNodes | undefined): Uint8Array {
    const handle = openAt(workingDirectory, path, openFlags.path | openFlags.directory);
    const looked = handle < 0 ? handle : statHandle(handle, this.#status);
    if (handle >= 0) closeHandle(handle);
    if (looked < 0) throw new Failure("SourceUnreadable", `Cannot look at "${toUtf8OrEscaped(path)}": ${describeErrno(-looked)}`);
    const now = this.#heads.read(this.#status, { directory: workingDirectory, name, path: `${path}/.` });
    if (parent?.seek(name) === true) {
      const before = parseNode(parent.bytes, parent.start, parent.end);
      const { mtimeSeconds, mtimeNanos, atimeSeconds, atimeNanos, ctimeSeconds, ctimeNanos } = before;
      const steady = encodeNodeHead({ ...now, mtimeSeconds, mtimeNanos, atimeSeconds, atimeNanos, ctimeSeconds, ctimeNanos });
      if (steady === encodeNodeHead(before)) return toBytes(steady);
    }
    return toBytes(encodeNodeHead(now));
  }
}

/** Targets that lie side by side, in the snapshot and on the disk; or one directory above targets. */
interface Run {
  readonly names: ByteString[];
  readonly placement: Placement;
}

function groupRuns(entries: readonly (readonly [ByteString, Placement])[]): readonly Run[] {
  const runs: Run[] = [];
  for (const [name, placement] of entries) {
    const last = runs.at(-1);
    const isBeside = last?.placement.kind === "target" && placement.kind === "target" && last.placement.directory === placement.directory;
    if (isBeside) last.names.push(name);
    else runs.push({ names: [name], placement });
  }
  return runs;
}

function listNames(path: ByteString): readonly ByteString[] {
  const handle = openAt(workingDirectory, path, openFlags.readOnly | openFlags.directory);
  const names: ByteString[] = [];
  const status = handle < 0 ? handle : readNames(handle, names);
  if (handle >= 0) closeHandle(handle);
  if (status < 0) throw new Failure("SourceUnreadable", `Cannot list "${toUtf8OrEscaped(path)}": ${describeErrno(-status)}`);
  return names.sort();
}
