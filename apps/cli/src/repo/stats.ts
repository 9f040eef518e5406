import { type Command, Option } from "commander";
import { countStats, createTreeLoader, type Stats, type StatsMode, statsModes } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatCount } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { ProgressReporter } from "../progress.ts";
import { type Run, runWork } from "../run.ts";
import { chooseSnapshots } from "./choose-snapshots.ts";
import { loadRunIndex, openSession } from "./session.ts";
import { addFilterOptions, type FilterFlags, readFilter } from "./snapshot-filter.ts";

interface StatsFlags extends FilterFlags {
  readonly mode: StatsMode;
}

/** `granary repo stats` */
export function configureStats(command: Command): void {
  command
    .description(
      "Counts files and sizes of snapshots: as restored (restore-size), each content once (files-by-contents), each piece of each file once (blobs-per-file), or as stored (raw-data).",
    )
    .argument("[snapshots...]", "only these: the first characters of their ids, or latest")
    .addOption(new Option("--mode <mode>", "what to count").choices(statsModes).default("restore-size"));
  addFilterOptions(command);
  addGlobalOptions(command);
  addExamples(command, [
    ["repo stats latest", "says how large a restore of the newest snapshot would be"],
    ["repo stats --mode raw-data", "says what all snapshots take in the repository, and how well they compress"],
  ]);
  command.action((names: string[], flags: StatsFlags) => runWork(command, (run) => count(run, names, flags)));
}

async function count(run: Run, names: readonly string[], flags: StatsFlags): Promise<void> {
  await using session = await openSession(run, {
    lock: "shared",
    prepare: async (opened, stop) => {
      const chosen = await chooseSnapshots(run, opened, { names: names, filter: readFilter(flags), signal: stop });
      await loadRunIndex(run, opened, stop);
      return chosen;
    },
  });
  const { repository, signal, prepared: snapshots } = session;
  using progress = new ProgressReporter(run.output, { title: "counting" });
  const stats = await countStats(
    { load: createTreeLoader(repository), index: repository.index },
    snapshots.map(({ tree }) => tree),
    { mode: flags.mode, onProgress: (done) => progress.update({ done, total: snapshots.length, noun: "snapshots" }), signal },
  );
  if (run.output.isJson) run.output.printJson(renderStats(stats, flags.mode));
  else sayStats(run, stats, flags.mode);
}

function compressionOf({ uncompressedBytes, sizeBytes, compressedPlainBytes, compressedBytes }: Stats): {
  ratio: number;
  progress: number;
  saving: number;
} {
  return {
    ratio: compressedBytes > 0 ? compressedPlainBytes / compressedBytes : 0,
    progress: uncompressedBytes > 0 ? (compressedPlainBytes / uncompressedBytes) * 100 : 0,
    saving: uncompressedBytes > 0 ? (1 - sizeBytes / uncompressedBytes) * 100 : 0,
  };
}

function renderStats(stats: Stats, mode: StatsMode): unknown {
  const { ratio, progress, saving } = compressionOf(stats);
  const isRaw = mode === "raw-data";
  return {
    total_size: stats.sizeBytes,
    ...(isRaw
      ? {
          total_uncompressed_size: stats.uncompressedBytes,
          compression_ratio: ratio,
          compression_progress: progress,
          compression_space_saving: saving,
        }
      : { total_file_count: stats.fileCount }),
    ...(stats.blobCount > 0 ? { total_blob_count: stats.blobCount } : {}),
    snapshots_count: stats.snapshotsCount,
  };
}

function sayStats(run: Run, stats: Stats, mode: StatsMode): void {
  const { output } = run;
  const row = (name: string, value: string): void => output.print(`${name.padStart(24)}:  ${value}`);
  output.print(`Stats in ${mode} mode:`);
  row("Snapshots processed", formatCount(stats.snapshotsCount));
  if (stats.blobCount > 0) row("Total Blob Count", formatCount(stats.blobCount));
  if (mode !== "raw-data") row("Total File Count", formatCount(stats.fileCount));
  if (mode === "raw-data") {
    const { ratio, progress, saving } = compressionOf(stats);
    row("Total Uncompressed Size", formatBytes(stats.uncompressedBytes));
    row("Compression Progress", `${progress.toFixed(2)} %`);
    row("Compression Ratio", `${ratio.toFixed(2)}x`);
    row("Compression Space Saving", `${saving.toFixed(2)} %`);
  }
  row("Total Size", formatBytes(stats.sizeBytes));
}
