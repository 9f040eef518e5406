import { type Command, Option } from "commander";
import { Failure } from "@granary/base/errors";
import {
  bytesOfId,
  createTreeLoader,
  type OverwriteMode,
  type PlannedEntry,
  planRestore,
  prepareRestore,
  type RestoreProgress,
  type RestoreReport,
  type RestoreSelection,
  type RestoreTrouble,
  runRestore,
  toUtf8OrEscaped,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatMany, formatRate, formatSpan } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Progress, ProgressReporter } from "../progress.ts";
import { bytesOfArgument } from "../raw-arguments.ts";
import { type Run, runWork } from "../run.ts";
import { addPatternOptions, type PatternFlags, readPatterns } from "./exclude-options.ts";
import { findSubtree } from "./find-subtree.ts";
import { findWithIndex } from "./find-with-index.ts";
import { pathMembers } from "./render-node.ts";
import { openSession } from "./session.ts";
import { addFilterOptions, collect, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { shortId } from "./snapshot-json.ts";

interface RestoreFlags extends FilterFlags, PatternFlags {
  readonly target?: string;
  readonly include?: readonly string[];
  readonly iinclude?: readonly string[];
  readonly includeFile?: readonly string[];
  readonly iincludeFile?: readonly string[];
  readonly overwrite: OverwriteMode;
  readonly delete?: boolean;
  readonly sparse?: boolean;
  readonly verify?: boolean;
  readonly dryRun?: boolean;
}

/** `granary repo restore` */
export function configureRestore(command: Command): void {
  command
    .description("Restores a snapshot, or part of it, into a folder. An interrupted restore goes on when it is run again.")
    .argument("<snapshot>", "the first characters of its id, or latest; with :folder behind it, only what is in that folder")
    .option("-t, --target <folder>", "where to; / is the place it came from")
    .addOption(new Option("-i, --include <pattern>", "restore only what matches the pattern (may be repeated)").argParser(collect))
    .addOption(new Option("--iinclude <pattern>", "the same, without regard to upper and lower case").argParser(collect))
    .addOption(
      new Option("--include-file <file>", "restore only what matches the patterns in this file (may be repeated)").argParser(collect),
    )
    .addOption(new Option("--iinclude-file <file>", "the same, without regard to upper and lower case").argParser(collect));
  addPatternOptions(command);
  command
    .addOption(
      new Option(
        "--overwrite <mode>",
        "files that are there already: write what differs (always), trust equal size and time (if-changed), write newer ones only (if-newer), leave them (never)",
      )
        .choices(["always", "if-changed", "if-newer", "never"])
        .default("always"),
    )
    .option("--delete", "remove what is in restored folders but not in the snapshot")
    .option("--sparse", "make holes of long runs of zeros")
    .option("--verify", "read everything again at the end, and compare")
    .option("-n, --dry-run", "change nothing, only say what would be done; with -v each file");
  addFilterOptions(command, "for latest");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo restore latest --target /tmp/restored", "restores the newest snapshot beside"],
    ["repo restore latest:/home/alice --target /home/alice --include '*.txt'", "brings the text files of a folder back to their place"],
    ["repo restore 4d1f6a2c --target / --include /etc --dry-run -v", "shows what restoring /etc in place would change"],
  ]);
  command.action((name: string, flags: RestoreFlags) => runWork(command, (run) => restore(run, name, flags)));
}

async function restore(run: Run, name: string, flags: RestoreFlags): Promise<void> {
  const { output } = run;
  const { target } = flags;
  if (target === undefined || target === "") throw new Failure("InvalidArgument", "Cannot restore: --target says where to, and is needed");
  const selection = await readSelection(flags);
  const isLimited = [selection.include, selection.exclude].some(
    ({ patterns, insensitivePatterns }) => patterns.length + insensitivePatterns.length > 0,
  );
  if (flags.delete === true && /^\/+$/.test(target) && !isLimited) {
    throw new Failure(
      "InvalidArgument",
      "Cannot use --delete with --target /: it would empty this machine; --include or --exclude is needed",
    );
  }
  await using session = await openSession(run, {
    lock: "shared",
    onDeriving: () => prepareRestore(run.options.workers),
    prepare: (repository, signal) => findWithIndex(run, repository, { name, filter: readFilter(flags), signal }),
  });
  const { repository, signal } = session;
  const { snapshot, subpath } = session.prepared;
  const tree = await findSubtree(createTreeLoader(repository), { tree: snapshot.tree, subpath, signal });
  output.say(`restoring snapshot ${shortId(snapshot.id)} of ${snapshot.paths.join(", ")} to ${target}`);
  const report = await (async () => {
    using progress = new ProgressReporter(output, { toJson: renderStatus });
    await using plan = await planRestore(repository, {
      tree: bytesOfId(tree),
      target: bytesOfArgument(target),
      selection,
      overwrite: flags.overwrite,
      deleteExtra: flags.delete === true,
      sparse: flags.sparse === true,
      verify: flags.verify === true,
      workers: run.options.workers,
      onProgress: (now) => progress.update(describeNow(now)),
      onTrouble: (trouble) => warnOf(run, trouble),
      signal,
    });
    if (flags.dryRun !== true) return await runRestore(plan);
    for (const entry of output.verbosity >= 2 ? plan.list() : []) tellEntry(run, entry);
    if (output.isJson) output.printJson({ message_type: "summary", dry_run: true, ...plan.summary });
    else
      output.say(
        `would restore ${formatMany(plan.summary.filesToWrite + plan.summary.filesToReplace, "file")}, ${formatBytes(plan.summary.bytesToWrite)}`,
      );
    return undefined;
  })();
  if (report === undefined) return;
  if (output.isJson) output.printJson(renderReport(report));
  else sayReport(run, report);
  if (report.lost > 0) {
    throw new Failure(
      "RestoreIncomplete",
      `${formatMany(report.lost, "entry", "entries")} could not be restored, because the repository lacks them or is damaged`,
      {
        details: { failed: report.failed, lost: report.lost },
      },
    );
  }
}

async function readSelection(flags: RestoreFlags): Promise<RestoreSelection> {
  const { include, iinclude, includeFile, iincludeFile } = flags;
  const included: PatternFlags = {
    ...(include && { exclude: include }),
    ...(iinclude && { iexclude: iinclude }),
    ...(includeFile && { excludeFile: includeFile }),
    ...(iincludeFile && { iexcludeFile: iincludeFile }),
  };
  return { include: await readPatterns(included, process.env), exclude: await readPatterns(flags, process.env) };
}

const phases: Readonly<Record<RestoreProgress["phase"], string>> = {
  plan: "planning",
  write: "restoring",
  finish: "finishing",
  verify: "verifying",
};

function describeNow({ phase, filesDone, filesTotal, bytesDone, bytesTotal }: RestoreProgress): Progress {
  if (phase === "plan") return { done: filesTotal, more: phases.plan };
  return { done: filesDone, total: filesTotal, doneBytes: bytesDone, totalBytes: bytesTotal, more: phases[phase] };
}

/** restic's status message. */
function renderStatus({ done = 0, total = 0, doneBytes = 0, totalBytes = 0 }: Progress, elapsedMs: number): unknown {
  return {
    message_type: "status",
    seconds_elapsed: Math.floor(elapsedMs / 1000),
    percent_done: totalBytes > 0 ? doneBytes / totalBytes : 0,
    total_files: total,
    files_restored: done,
    total_bytes: totalBytes,
    bytes_restored: doneBytes,
  };
}

function warnOf(run: Run, { path, reason, message }: RestoreTrouble): void {
  const item = toUtf8OrEscaped(path);
  run.warn(item === "" ? message : `${item}: ${message}`, { message_type: "error", error: { message }, during: "restore", item, reason });
}

function tellEntry(run: Run, { path, type, action, sizeBytes }: PlannedEntry): void {
  if (run.output.isJson)
    run.output.printJson({ message_type: "verbose_status", action, item: pathMembers(path).path, type, size: sizeBytes });
  else run.output.printBytes({ bytes: `${action.padEnd(8)} ${path}`, escaped: `${action.padEnd(8)} ${toUtf8OrEscaped(path)}` });
}

/** restic's summary message, with a few more counts. */
function renderReport(report: RestoreReport): unknown {
  const { summary } = report;
  return {
    message_type: "summary",
    seconds_elapsed: Math.round(report.durationMs / 1000),
    total_files: summary.files + summary.links + summary.others + summary.directories,
    files_restored: report.files + report.links + report.others + report.directories,
    files_skipped: summary.skipped,
    files_unchanged: summary.filesUnchanged,
    files_deleted: report.extrasRemoved,
    files_verified: report.filesVerified,
    total_bytes: summary.bytes,
    bytes_restored: report.bytesWritten,
    bytes_skipped: summary.bytes - summary.bytesToWrite,
    failed: report.failed,
    lost: report.lost,
    warnings: report.troubles,
    total_duration: report.durationMs / 1000,
  };
}

function sayReport(run: Run, report: RestoreReport): void {
  const { output } = run;
  const { summary } = report;
  output.say(
    `restored ${formatMany(report.files, "file")}, ${formatMany(report.directories, "folder")}, ${formatMany(report.links + report.others, "other entry", "other entries")}; wrote ${formatBytes(report.bytesWritten)} in ${formatSpan(report.durationMs)} (${formatRate(report.bytesWritten, report.durationMs)})`,
  );
  if (summary.filesUnchanged > 0) output.say(`${formatMany(summary.filesUnchanged, "file")} were right already`);
  if (summary.skipped > 0) output.say(`${formatMany(summary.skipped, "file")} left as they were (--overwrite)`);
  if (report.extrasRemoved > 0)
    output.say(`removed ${formatMany(report.extrasRemoved, "file or folder", "files and folders")} that the snapshot does not have`);
  if (report.filesVerified > 0) output.say(`verified ${formatMany(report.filesVerified, "file")}`);
  if (report.troubles > 0) output.complain(`${formatMany(report.troubles, "warning")}: what is named above is not as it was`);
}
