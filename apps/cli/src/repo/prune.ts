import type { Command } from "commander";
import {
  type MaxUnused,
  parseMaxUnused,
  planPrune,
  type PruneEvent,
  type PruneReport,
  type PruneSummary,
  runPrune,
  type SnapshotId,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatCount, formatMany } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { parseSizeBytes } from "../parse-size.ts";
import { ProgressReporter } from "../progress.ts";
import { type Run, runWork } from "../run.ts";
import { openSession, prepareNothing, type Session } from "./session.ts";

/** As commander leaves them. */
export interface PruneFlags {
  readonly maxUnused: string;
  readonly maxRepackSize?: string;
  readonly repackCacheableOnly?: boolean;
  readonly repackSmall?: boolean;
  readonly repackUncompressed?: boolean;
}

/** What the flags of a prune say. */
export interface PruneChoice {
  readonly maxUnused: MaxUnused;
  readonly maxRepackBytes: number;
  readonly repackCacheableOnly: boolean;
  readonly repackSmall: boolean;
  readonly repackUncompressed: boolean;
}

/** Adds the flags of a prune, which `forget --prune` has too. */
export function addPruneOptions(command: Command): void {
  command
    .option("--max-unused <limit>", "how much may stay wasted: a size, a percentage, or unlimited", "5%")
    .option("--max-repack-size <size>", "repack at most so much in this run; k, m, g or t behind it")
    .option("--repack-cacheable-only", "repack directories only")
    .option("--repack-small", "repack packs too that are much smaller than they should be")
    .option("--repack-uncompressed", "repack packs too that are not compressed");
}

/** @throws InvalidArgument */
export function readPruneOptions(flags: PruneFlags): PruneChoice {
  return {
    maxUnused: parseMaxUnused(flags.maxUnused),
    maxRepackBytes: flags.maxRepackSize === undefined ? Number.POSITIVE_INFINITY : parseSizeBytes(flags.maxRepackSize, "--max-repack-size"),
    repackCacheableOnly: flags.repackCacheableOnly === true,
    repackSmall: flags.repackSmall === true,
    repackUncompressed: flags.repackUncompressed === true,
  };
}

/** `granary repo prune` */
export function configurePrune(command: Command): void {
  command
    .description("Removes data that no snapshot needs. Interrupted anywhere, nothing is lost, and the next run goes on.")
    .option("-n, --dry-run", "remove nothing, only say what would be done");
  addPruneOptions(command);
  addGlobalOptions(command);
  addExamples(command, [
    ["repo prune --dry-run", "says how much could be freed"],
    ["repo prune --max-repack-size 10g", "rewrites at most 10 GiB in this run"],
    ["repo prune --max-unused unlimited", "only removes whole packs, which is quick"],
  ]);
  command.action((flags: PruneFlags & { dryRun?: boolean }) =>
    runWork(command, async (run) => {
      const choice = readPruneOptions(flags);
      const isDryRun = flags.dryRun === true;
      await using session = await openSession(run, { lock: isDryRun ? "shared" : "exclusive", prepare: prepareNothing });
      await pruneSession(run, session, { ...choice, isDryRun, ignored: [] });
    }),
  );
}

/** Prunes the repository of a session, which has an exclusive lock, or a shared one for a dry run. @param options.ignored snapshots that count as forgotten */
export async function pruneSession(
  run: Run,
  { repository, signal }: Pick<Session, "repository" | "signal">,
  options: PruneChoice & { readonly isDryRun: boolean; readonly ignored: readonly SnapshotId[] },
): Promise<void> {
  const { output } = run;
  const { packBytes, workers, compressionLevel } = run.options;
  const plan = await (async () => {
    using progress = new ProgressReporter(output, { title: "finding what is needed" });
    const onProgress = (event: PruneEvent): void => showEvent(progress, event);
    return await planPrune(repository, { ...options, packBytes, workers, ignoreSnapshots: new Set(options.ignored), onProgress, signal });
  })();
  if (!output.isJson) saySummary(run, plan.summary);
  if (options.isDryRun) {
    if (output.isJson) output.printJson({ message_type: "summary", dry_run: true, ...renderSummary(plan.summary) });
    return;
  }
  using progress = new ProgressReporter(output, { title: "pruning" });
  const level = compressionLevel === 0 ? {} : { level: Math.max(compressionLevel, 3) };
  const report = await runPrune(repository, plan, { ...level, workers, onProgress: (event) => showEvent(progress, event), signal });
  if (output.isJson) output.printJson({ message_type: "summary", ...renderSummary(plan.summary), ...renderReport(report) });
  else output.say(describeReport(report));
}

function showEvent(progress: ProgressReporter, event: PruneEvent): void {
  switch (event.kind) {
    case "indexes":
      progress.update({ done: event.filesDone, total: event.filesTotal, noun: "index files" });
      break;
    case "trees":
      progress.update({ done: event.treesDone, total: event.treesTotal, noun: "directories", isEstimate: true });
      break;
    case "repack":
      progress.update({
        done: event.packsDone,
        total: event.packsTotal,
        noun: "packs",
        doneBytes: event.bytesDone,
        totalBytes: event.bytesTotal,
      });
      break;
    case "remove":
      progress.update({ done: event.packsDone, total: event.packsTotal, noun: "packs removed" });
      break;
    case "indexSaved":
  }
}

function saySummary(run: Run, summary: PruneSummary): void {
  const { output } = run;
  const { packs } = summary;
  const removed = packs.remove + packs.replace + packs.unreferenced;
  output.say(
    `needed by ${formatMany(summary.snapshots, "snapshot")}: ${formatMany(summary.usedBlobs, "blob")}, ${formatBytes(summary.usedBytes)}`,
  );
  output.say(`not needed: ${formatMany(summary.unusedBlobs, "blob")}, ${formatCount(summary.redundantBlobs)} more are stored twice`);
  output.say(`to remove:  ${formatMany(removed, "pack")}, ${formatBytes(summary.removeBytes)}`);
  output.say(
    `to repack:  ${formatMany(packs.repack, "pack")}, ${formatBytes(summary.repackBytes)}, which frees ${formatBytes(summary.repackFreesBytes)}`,
  );
  output.say(`to keep:    ${formatMany(packs.keep, "pack")}, ${formatBytes(summary.unusedAfterBytes)} stay unused in them`);
}

function describeReport(report: PruneReport): string {
  const freed = formatBytes(Math.max(0, report.bytesRemoved - report.bytesWritten));
  const written = report.packsWritten === 0 ? "" : `, ${formatMany(report.packsWritten, "pack")} written anew`;
  return `removed ${formatMany(report.packsRemoved, "pack")}${written}; ${freed} freed`;
}

function renderSummary(summary: PruneSummary): Readonly<Record<string, unknown>> {
  const { packs } = summary;
  return {
    snapshots: summary.snapshots,
    used_blobs: summary.usedBlobs,
    used_bytes: summary.usedBytes,
    unused_blobs: summary.unusedBlobs,
    duplicate_blobs: summary.redundantBlobs,
    remove_bytes: summary.removeBytes,
    repack_bytes: summary.repackBytes,
    repack_frees_bytes: summary.repackFreesBytes,
    unused_bytes_after: summary.unusedAfterBytes,
    packs_to_keep: packs.keep,
    packs_to_remove: packs.remove + packs.replace + packs.unreferenced,
    packs_to_repack: packs.repack,
  };
}

function renderReport(report: PruneReport): Readonly<Record<string, unknown>> {
  return {
    packs_removed: report.packsRemoved,
    bytes_removed: report.bytesRemoved,
    packs_repacked: report.packsRepacked,
    packs_written: report.packsWritten,
    bytes_written: report.bytesWritten,
    indexes_written: report.indexesWritten,
    indexes_removed: report.indexesRemoved,
  };
}
