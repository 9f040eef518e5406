import { hostname } from "node:os";
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { systemClock } from "@granary/base/clock";
import { Failure } from "@granary/base/errors";
import {
  type BackupCounts,
  type BackupReport,
  type BackupTrouble,
  type ExcludeRules,
  findParent,
  findSnapshot,
  findUtf8,
  formatTimeNs,
  fromUtf8,
  loadSnapshots,
  parseGroupBy,
  prepareBackup,
  type Repository,
  runBackup,
  type StoredSnapshot,
  toUtf8OrEscaped,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatCount, formatMany, formatSpan } from "../format-amount.ts";
import { addGlobalOptions, findVariable } from "../global-options.ts";
import { parsePointNs } from "../parse-time.ts";
import { type Progress, ProgressReporter } from "../progress.ts";
import { bytesOfArgument } from "../raw-arguments.ts";
import { type Run, runWork } from "../run.ts";
import { version } from "../version.ts";
import { readTargets, type TargetFlags } from "./backup-targets.ts";
import { addExcludeOptions, type ExcludeFlags, readExcludes } from "./exclude-options.ts";
import { startCommandStream } from "./command-stream.ts";
import { loadRunIndex, openSession, type Session } from "./session.ts";
import { collect, splitTags } from "./snapshot-filter.ts";
import { shortId } from "./snapshot-json.ts";

interface BackupFlags extends ExcludeFlags, TargetFlags {
  readonly tag?: readonly string[];
  readonly host?: string;
  readonly time?: string;
  readonly parent?: string;
  readonly force?: boolean;
  readonly groupBy: string;
  readonly ignoreInode?: boolean;
  readonly ignoreCtime?: boolean;
  readonly withAtime?: boolean;
  readonly skipIfUnchanged?: boolean;
  readonly dryRun?: boolean;
  readonly stdin?: boolean;
  readonly stdinFromCommand?: boolean;
  readonly stdinFilename: string;
  readonly allowShrink?: boolean;
  readonly chunker: "gear" | "rabin";
}

/** `granary repo backup` */
export function configureBackup(command: Command): void {
  command
    .description("Backs up files and folders into a new snapshot. What is in the repository already is not stored again.")
    .argument("[paths...]", "files and folders");
  addExcludeOptions(command);
  const list = "back up what this file lists too (- is standard input; may be repeated)";
  command
    .addOption(new Option("--files-from <file>", `${list}: a pattern a line, with # for comments`).argParser(collect))
    .addOption(new Option("--files-from-verbatim <file>", `${list}: a path a line, as it is`).argParser(collect))
    .addOption(new Option("--files-from-raw <file>", `${list}: paths that each end with a zero byte`).argParser(collect))
    .option("--stdin", "back up standard input as one file")
    .option("--stdin-from-command", "the arguments are a command: back up what it writes; no snapshot if it fails")
    .option("--stdin-filename <name>", "the name of that file", "stdin")
    .addOption(new Option("--tag <tags>", "tags for the snapshot, a,b,c (may be repeated)").argParser(collect))
    .option("-H, --host <host>", "the snapshot's host (default: $GRANARY_HOST, else this machine's name)")
    .option("--time <time>", 'the snapshot\'s time, such as "2026-01-31 08:00:00" (default: now)')
    .option("--parent <snapshot>", "compare with this snapshot (default: the newest of the same host and paths)")
    .option("-g, --group-by <what>", "what the parent has in common: host, paths, tags, with commas between", "host,paths")
    .option("-f, --force", "compare with none: read every file")
    .option("--ignore-inode", "a file with another inode number may be unchanged")
    .option("--ignore-ctime", "a file with another change time may be unchanged")
    .option("--with-atime", "store access times")
    .option("--skip-if-unchanged", "make no snapshot when nothing has changed")
    .option("-n, --dry-run", "store nothing, only say what would be done")
    .option("--allow-shrink", "accept that most files of the parent are gone, which is refused otherwise")
    .addOption(
      new Option("--chunker <name>", "where files are cut: our own way, or restic's, to share pieces with it")
        .choices(["gear", "rabin"])
        .default("gear"),
    )
    .addOption(new Option("--no-scan", "accepted and ignored: nothing is scanned before").hideHelp());
  addGlobalOptions(command);
  addExamples(command, [
    ["repo backup ~/documents --exclude '*.tmp' --exclude-caches", "backs a folder up, but for what need not be kept"],
    ["repo backup / --one-file-system --tag weekly", "backs this file system up"],
    ["repo backup --files-from list.txt --dry-run", "says what would be stored"],
    ["repo backup --stdin-from-command --stdin-filename shop.sql -- pg_dump shop", "backs up what another program writes, unless it fails"],
    ["tar c . | granary repo backup --stdin --stdin-filename here.tar", "backs up a stream"],
  ]);
  command.action((paths: string[], flags: BackupFlags) => runWork(command, (run) => backUp(run, paths, flags)));
}

/** What is asked for, complete. */
interface BackupRequest {
  /** Raw bytes; none when a stream is saved. */
  readonly targets: readonly string[];
  /** What is saved as one file instead. */
  readonly stream: { readonly name: string; readonly from: "input" | readonly string[] } | undefined;
  readonly excludes: ExcludeRules;
  readonly timeNs: bigint;
  readonly host: string;
  readonly tags: readonly string[];
}

async function backUp(run: Run, args: readonly string[], flags: BackupFlags): Promise<void> {
  const { output, options } = run;
  const request = await readRequest(run, args, flags);
  await using session = await openSession(run, {
    lock: flags.dryRun === true ? "none" : "shared",
    isInputTaken: readsInput(flags),
    onDeriving: () => prepareBackup(options.workers),
    prepare: async (opened, stop) => {
      const found = request.stream === undefined ? await chooseParent(opened, request, { flags, signal: stop }) : null;
      await loadRunIndex(run, opened, stop);
      return found;
    },
  });
  const parent = session.prepared;
  if (request.stream === undefined) {
    output.say(parent === null ? "no parent snapshot: every file is read" : `using parent snapshot ${shortId(parent.id)}`);
  }
  const report = await runRequest(run, session, { request, flags });
  if (output.isJson) output.printJson(renderSummary(report, flags.dryRun === true));
  else sayReport(run, report, flags);
}

async function readRequest(run: Run, args: readonly string[], flags: BackupFlags): Promise<BackupRequest> {
  const stream = readStream(args, flags);
  const onNoMatch = (pattern: string): void => run.warn(`pattern "${pattern}" matches no files`);
  return {
    stream,
    targets: stream === undefined ? await readTargets(args, flags, onNoMatch) : [],
    excludes: await readExcludes(flags, process.env),
    timeNs: flags.time === undefined ? BigInt(systemClock.nowMs()) * 1_000_000n : parsePointNs(flags.time, "--time"),
    host: flags.host ?? findVariable(process.env, "HOST") ?? hostname(),
    tags: [...new Set((flags.tag ?? []).flatMap(splitTags))].filter((tag) => tag !== ""),
  };
}

function readStream(args: readonly string[], flags: BackupFlags): BackupRequest["stream"] {
  const isCommand = flags.stdinFromCommand === true;
  if (flags.stdin !== true && !isCommand) return undefined;
  const hasLists = [flags.filesFrom, flags.filesFromRaw, flags.filesFromVerbatim].some((list) => list !== undefined);
  if (hasLists || (args.length > 0 && !isCommand)) {
    throw new Failure("InvalidArgument", "Cannot back up standard input together with files: --stdin allows none");
  }
  if (isCommand && args.length === 0) {
    throw new Failure("InvalidArgument", "Cannot back up what a command writes: the command is needed, behind --");
  }
  const name = flags.stdinFilename.replace(/^\/+/, "");
  if (name !== "" && !name.includes("/")) return { name: bytesOfArgument(name), from: isCommand ? args : "input" };
  throw new Failure("InvalidArgument", `Cannot use --stdin-filename "${flags.stdinFilename}": a name without folders is needed`);
}

async function runRequest(
  run: Run,
  session: Session<StoredSnapshot | null>,
  { request, flags }: { request: BackupRequest; flags: BackupFlags },
): Promise<BackupReport> {
  const { options } = run;
  const { excludes, host, stream, tags, targets, timeNs } = request;
  const parent = session.prepared;
  await using command = stream === undefined || stream.from === "input" ? undefined : startCommandStream(stream.from);
  using progress = new ProgressReporter(run.output, { toJson: renderStatus });
  return await runBackup(session.repository, {
    targets,
    ...(stream === undefined ? {} : { stream: { handle: command?.handle ?? 0, name: stream.name } }),
    excludes,
    tags,
    hostname: host,
    ...(flags.time === undefined ? {} : { timeNs }),
    parent,
    ignoreCtime: flags.ignoreCtime === true,
    ignoreInode: flags.ignoreInode === true,
    withAtime: flags.withAtime === true,
    skipIfUnchanged: flags.skipIfUnchanged === true,
    dryRun: flags.dryRun === true,
    allowShrink: flags.allowShrink === true,
    cut: flags.chunker,
    level: options.compressionLevel,
    packBytes: options.packBytes,
    workers: options.workers,
    programVersion: `granary ${version}`,
    onProgress: (counts) => progress.update(describeCounts(counts, parent)),
    onTrouble: (trouble) => warnOf(run, trouble),
    signal: command === undefined ? session.signal : AbortSignal.any([session.signal, command.signal]),
  });
}

function readsInput(flags: BackupFlags): boolean {
  const lists = [flags.filesFrom, flags.filesFromVerbatim, flags.filesFromRaw, flags.excludeFile, flags.iexcludeFile];
  return flags.stdin === true || lists.some((list) => list?.includes("-") === true);
}

async function chooseParent(
  repository: Repository,
  request: BackupRequest,
  { flags, signal }: { flags: BackupFlags; signal: AbortSignal },
): Promise<StoredSnapshot | null> {
  const groupBy = parseGroupBy(flags.groupBy);
  if (flags.force === true) return null;
  if (flags.parent !== undefined) return (await findSnapshot(repository, flags.parent, { signal })).snapshot;
  const snapshots = await loadSnapshots(repository, { onDamaged: () => undefined, signal });
  const { host, tags, targets, timeNs } = request;
  const paths = targets.map((target) => findUtf8(resolve(fromUtf8(process.cwd()), target)) ?? "");
  const parent = findParent(snapshots, {
    timeNs,
    ...(groupBy.host ? { hosts: [host] } : {}),
    ...(groupBy.paths ? { paths } : {}),
    ...(groupBy.tags ? { tags: [tags.length === 0 ? [""] : tags] } : {}),
  });
  return parent ?? null;
}

function describeCounts(counts: BackupCounts, parent: StoredSnapshot | null): Progress {
  const summary = parent?.summary;
  return {
    done: counts.filesNew + counts.filesChanged + counts.filesUnmodified,
    doneBytes: counts.bytesProcessed,
    ...(summary === null || summary === undefined
      ? {}
      : { total: summary.totalFilesProcessed, totalBytes: summary.totalBytesProcessed, isEstimate: true }),
    ...(counts.troubles === 0 ? {} : { more: formatMany(counts.troubles, "warning") }),
  };
}

/** restic's status message. */
function renderStatus({ done = 0, doneBytes = 0, total, totalBytes }: Progress, elapsedMs: number): unknown {
  return {
    message_type: "status",
    seconds_elapsed: Math.floor(elapsedMs / 1000),
    percent_done: totalBytes === undefined || totalBytes === 0 ? 0 : Math.min(1, doneBytes / totalBytes),
    ...(total === undefined ? {} : { total_files: total }),
    files_done: done,
    ...(totalBytes === undefined ? {} : { total_bytes: totalBytes }),
    bytes_done: doneBytes,
  };
}

function warnOf(run: Run, trouble: BackupTrouble): void {
  const item = toUtf8OrEscaped(trouble.path);
  run.warn(`${item}: ${trouble.message}`, {
    message_type: "error",
    error: { message: trouble.message },
    during: "archival",
    item,
    reason: trouble.reason,
  });
}

/** restic's summary message. */
function renderSummary(report: BackupReport, isDryRun: boolean): unknown {
  const { counts, snapshot, snapshotId, durationMs } = report;
  return {
    message_type: "summary",
    ...(isDryRun ? { dry_run: true } : {}),
    files_new: counts.filesNew,
    files_changed: counts.filesChanged,
    files_unmodified: counts.filesUnmodified,
    dirs_new: counts.dirsNew,
    dirs_changed: counts.dirsChanged,
    dirs_unmodified: counts.dirsUnmodified,
    data_blobs: counts.dataBlobs,
    tree_blobs: counts.treeBlobs,
    data_added: counts.dataAddedBytes,
    data_added_packed: counts.dataAddedPackedBytes,
    total_files_processed: counts.filesNew + counts.filesChanged + counts.filesUnmodified,
    total_bytes_processed: counts.bytesProcessed,
    total_duration: durationMs / 1000,
    ...(snapshot.summary === null
      ? {}
      : { backup_start: formatTimeNs(snapshot.summary.backupStartNs), backup_end: formatTimeNs(snapshot.summary.backupEndNs) }),
    warnings: report.troubles,
    ...(snapshotId === undefined ? {} : { snapshot_id: snapshotId }),
  };
}

function sayReport(run: Run, report: BackupReport, flags: BackupFlags): void {
  const { output } = run;
  const { counts, snapshotId, durationMs } = report;
  const isDryRun = flags.dryRun === true;
  const row = (name: string, kinds: readonly [number, number, number]): string => {
    const [added, changed, same] = kinds.map((count) => formatCount(count).padStart(8));
    return `${name.padEnd(6)}${added} new, ${changed} changed, ${same} unmodified`;
  };
  output.say(`\n${row("Files:", [counts.filesNew, counts.filesChanged, counts.filesUnmodified])}`);
  output.say(row("Dirs:", [counts.dirsNew, counts.dirsChanged, counts.dirsUnmodified]));
  output.say(`Blobs: ${formatMany(counts.dataBlobs, "new data blob")}, ${formatMany(counts.treeBlobs, "new tree blob")}`, 2);
  const verb = isDryRun ? "Would add to the repository" : "Added to the repository";
  output.say(`${verb}: ${formatBytes(counts.dataAddedBytes)} (${formatBytes(counts.dataAddedPackedBytes)} stored)\n`);
  const files = counts.filesNew + counts.filesChanged + counts.filesUnmodified;
  output.say(`processed ${formatMany(files, "file")}, ${formatBytes(counts.bytesProcessed)} in ${formatSpan(durationMs)}`);
  if (snapshotId !== undefined) output.say(`snapshot ${shortId(snapshotId)} saved`);
  else if (!isDryRun) output.say("nothing has changed, so no snapshot was made");
  if (report.troubles > 0)
    output.complain(`${formatMany(report.troubles, "warning")}: what is named above could not be saved, or not as it should`);
}
