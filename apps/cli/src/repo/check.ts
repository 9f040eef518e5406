import { type Command } from "commander";
import { randomInt } from "node:crypto";
import { Failure } from "@granary/base/errors";
import {
  type CheckError,
  type CheckEvent,
  type CheckNote,
  type CheckReport,
  checkRepository,
  parseReadDataSubset,
  type ReadDataSelection,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatCount, formatMany } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { ProgressReporter } from "../progress.ts";
import { type Run, runWork } from "../run.ts";
import { openSession, prepareNothing } from "./session.ts";
import { shortId } from "./snapshot-json.ts";

interface CheckFlags {
  readonly readData?: boolean;
  readonly readDataSubset?: string;
  readonly seed?: string;
  readonly checkUnused?: boolean;
}

/** `granary repo check` */
export function configureCheck(command: Command): void {
  command
    .description(
      "Checks that everything snapshots need is there and in order; with --read-data, that every stored byte is what was written.",
    )
    .option("--read-data", "read all packs")
    .option("--read-data-subset <part>", "read part n of t (n/t), a random x% of the packs, or packs of a total size such as 500M")
    .option("--seed <number>", "repeat a random choice: the seed that it printed")
    .option("--check-unused", "tell of blobs that nothing needs")
    .option("--with-cache", "accepted and ignored: there is no cache");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo check", "checks the structure: quick, reads directories but no file contents"],
    ["repo check --read-data-subset 1/12", "reads a twelfth of the data too; 2/12 next month, and so on"],
    ["repo check --read-data", "reads and verifies everything"],
  ]);
  command.action((flags: CheckFlags) => runWork(command, (run) => check(run, flags)));
}

async function check(run: Run, flags: CheckFlags): Promise<void> {
  const { output } = run;
  if (flags.readData === true && flags.readDataSubset !== undefined) {
    throw new Failure("InvalidArgument", "Cannot use --read-data and --read-data-subset together: one of them is needed");
  }
  const readData = chooseData(flags);
  await using session = await openSession(run, { lock: "shared", prepare: prepareNothing });
  const report = await (async () => {
    using progress = new ProgressReporter(output, { title: "checking" });
    return await checkRepository(session.repository, {
      ...(readData === undefined ? {} : { readData }),
      checkUnused: flags.checkUnused === true,
      workers: run.options.workers,
      onProgress: (event) => takeEvent(run, progress, event),
      signal: session.signal,
    });
  })();
  for (const note of report.notes) tellNote(run, note);
  if (output.isJson) output.printJson(renderReport(report));
  else sayReport(run, report);
  if (report.errorCount > 0) {
    throw new Failure("CheckFailed", `The repository has ${formatMany(report.errorCount, "error")}`, {
      details: { errorCount: report.errorCount },
    });
  }
}

function chooseData(flags: CheckFlags): ReadDataSelection | undefined {
  if (flags.readData === true) return { kind: "all" };
  if (flags.readDataSubset === undefined) return undefined;
  return parseReadDataSubset(flags.readDataSubset, flags.seed === undefined ? randomInt(2 ** 32) : Number(flags.seed) >>> 0);
}

function takeEvent(run: Run, progress: ProgressReporter, event: CheckEvent): void {
  switch (event.kind) {
    case "indexes":
      progress.update({ done: event.filesDone, total: event.filesTotal, noun: "index files" });
      break;
    case "trees":
      progress.update({ done: event.treesDone, total: event.treesTotal, noun: "directories", isEstimate: true });
      break;
    case "content":
      progress.update({
        done: event.packsDone,
        total: event.packsTotal,
        noun: "packs",
        doneBytes: event.bytesDone,
        totalBytes: event.bytesTotal,
      });
      break;
    case "error":
      tellError(run, event.error);
  }
}

function tellError(run: Run, error: CheckError): void {
  const { output } = run;
  if (output.isJson) {
    output.complain(
      JSON.stringify({ message_type: "error", message: error.message, kind: error.kind, level: error.level, hint: error.hint }),
    );
  } else {
    output.complain(`error: ${error.message}\n  ${error.hint}`);
  }
}

function tellNote(run: Run, note: CheckNote): void {
  if (run.output.isJson) return;
  switch (note.kind) {
    case "packUnreferenced":
      run.output.say(
        `pack ${note.packId} (${formatBytes(note.sizeBytes)}) is in no index: left by an interrupted backup; prune removes it`,
        2,
      );
      break;
    case "packMixed":
      run.output.say(`pack ${note.packId} holds data and trees, as old programs wrote them; prune repacks it`, 2);
      break;
    case "indexRedundant":
      run.output.say(`index ${note.indexId} lists nothing of its own`, 2);
      break;
    case "blobUnused":
      run.output.print(`unused ${note.blobType} blob ${note.blobId} in pack ${shortId(note.packId)}`);
      break;
    case "locked":
      run.output.say(`lock ${shortId(note.lockId)} is in the repository`, 3);
  }
}

/** restic's summary message, with counts added. */
function renderReport(report: CheckReport): unknown {
  const { counts, errors, errorCount, notes } = report;
  const broken = new Set(errors.flatMap((error) => ("packId" in error && error.kind !== "packMissing" ? [error.packId] : [])));
  return {
    message_type: "summary",
    num_errors: errorCount,
    broken_packs: [...broken],
    suggest_repair_index: errors.some(({ kind }) => kind === "indexDamaged" || kind === "packMissing" || kind === "packListing"),
    suggest_prune: counts.unreferencedPacks > 0 || counts.duplicates > 0,
    snapshots: counts.snapshots,
    packs: counts.packs,
    packs_read: counts.packsRead,
    bytes_read: counts.packBytesRead,
    unused_blobs: notes.flatMap((note) => (note.kind === "blobUnused" ? [note.blobId] : [])),
    structure_verified: report.structureVerifiedMs === null ? null : new Date(report.structureVerifiedMs).toISOString(),
    content_verified: report.contentVerifiedMs === null ? null : new Date(report.contentVerifiedMs).toISOString(),
  };
}

function sayReport(run: Run, { counts, errorCount, selection }: CheckReport): void {
  const { output } = run;
  output.say(
    `checked ${formatMany(counts.snapshots, "snapshot")}, ${formatCount(counts.treesRead)} directories, ${formatMany(counts.dataBlobs + counts.treeBlobs, "blob")} in ${formatMany(counts.packs, "pack")} (${formatBytes(counts.packBytes)})`,
  );
  if (selection === null) {
    output.say("file contents were not read; --read-data reads them");
  } else {
    output.say(
      `read ${formatMany(counts.packsRead, "pack")} whole (${formatBytes(counts.packBytesRead)}): ${formatMany(counts.blobsRead, "blob")} verified`,
    );
    if ("seed" in selection) output.say(`chosen at random; --seed ${selection.seed} chooses the same again`);
  }
  if (counts.unreferencedPacks > 0)
    output.say(`${formatMany(counts.unreferencedPacks, "pack")} in no index, which is harmless; prune removes them`);
  if (errorCount === 0) output.say("no errors were found");
}
