/** `granary repo repair index|packs|snapshots`, and `rebuild-index`, which is the first of them. All set aside and never delete. */

import { type Command } from "commander";
import { Failure } from "@granary/base/errors";
import {
  type DroppedPack,
  openStore,
  type PackId,
  type PackRepair,
  parsePackId,
  planIndexRepair,
  planPackRepair,
  planSnapshotRepair,
  type RepairedEntry,
  runIndexRepair,
  runPackRepair,
  runSnapshotRepair,
  type SnapshotRepair,
  type Store,
  toUtf8OrEscaped,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatCount, formatMany } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { ProgressReporter } from "../progress.ts";
import { type Run, runWork } from "../run.ts";
import { chooseSnapshots } from "./choose-snapshots.ts";
import { pathMembers } from "./render-node.ts";
import { openSession, prepareNothing, type Session } from "./session.ts";
import { addFilterOptions, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { shortId } from "./snapshot-json.ts";

interface RepairFlags {
  readonly dryRun?: boolean;
  readonly quarantine?: string;
}

interface IndexFlags extends RepairFlags {
  readonly readAllPacks?: boolean;
}

interface SnapshotsFlags extends RepairFlags, FilterFlags {
  readonly forget?: boolean;
  readonly keepPartialFiles?: boolean;
}

/** `granary repo repair` with its own commands. */
export function configureRepair(command: Command): void {
  command.description(
    "Repairs a damaged repository, in this order: what `granary repo check` says; back the same files up again; then snapshots. Nothing is deleted: what is damaged is set aside.",
  );
  configureIndexRepair(command.command("index").summary("Make the index say what the packs hold"));

  const packs = command
    .command("packs")
    .summary("Save what is whole of damaged packs")
    .description("Saves the blobs that are whole of damaged packs, and sets these packs aside.");
  packs.argument("<packs...>", "ids, or how they begin, as check names them");
  addRepairOptions(packs);
  addExamples(packs, [["repo repair packs 025c1d06 --dry-run", "says what of this pack can be saved, and what is lost"]]);
  packs.action((ids: string[], flags: RepairFlags) => runWork(packs, (run) => repairPacks(run, ids, flags)));

  const snapshots = command
    .command("snapshots")
    .summary("Take what cannot be read out of snapshots")
    .description("Makes new snapshots, tagged repaired, of those that lack something: without the files and folders that cannot be read.");
  snapshots
    .argument("[snapshots...]", "only these: the first characters of their ids, or latest")
    .option("--forget", "set the originals aside")
    .option("--keep-partial-files", "keep files of which pieces are missing, without those: shorter, and the rest moved together");
  addFilterOptions(snapshots, "when none is named");
  addRepairOptions(snapshots);
  addExamples(snapshots, [["repo repair snapshots --dry-run", "says what would be taken out of which snapshot"]]);
  snapshots.action((names: string[], flags: SnapshotsFlags) => runWork(snapshots, (run) => repairSnapshots(run, names, flags)));

  addGlobalOptions(command);
  command.configureHelp({ ...command.configureHelp(), visibleOptions: () => [] });
  addExamples(command, [["repo repair index", "the first thing to try after check has found damage"]]);
}

/** `granary repo repair index`, and `granary repo rebuild-index`. */
export function configureIndexRepair(command: Command): void {
  command
    .description("Makes the index say again what the packs hold: lists packs that no index file has, drops those that are gone.")
    .option("--read-all-packs", "believe no index file, read the header of every pack");
  addRepairOptions(command);
  addExamples(command, [
    [`repo ${command.name() === "index" ? "repair index" : command.name()}`, "repairs the index, if it needs to be"],
    [
      `repo ${command.name() === "index" ? "repair index" : command.name()} --read-all-packs --dry-run`,
      "says what an index from scratch would differ in",
    ],
  ]);
  command.action((flags: IndexFlags) => runWork(command, (run) => repairIndex(run, flags)));
}

function addRepairOptions(command: Command): void {
  command
    .option("-n, --dry-run", "change nothing, only say what would be done")
    .option(
      "--quarantine <repository>",
      "where damaged files are copied before they are removed, for stores that cannot set files aside (rest:)",
    );
  addGlobalOptions(command);
}

async function repairIndex(run: Run, flags: IndexFlags): Promise<void> {
  const { output } = run;
  await using session = await openForRepair(run, flags);
  const { repository, signal } = session;
  const plan = await (async () => {
    using progress = new ProgressReporter(output, { title: "reading headers" });
    return await planIndexRepair(repository, {
      readAllPacks: flags.readAllPacks === true,
      onProgress: (event) => {
        if (event.kind === "indexes") progress.update({ done: event.filesDone, total: event.filesTotal, noun: "index files" });
        else if (event.kind === "headers") progress.update({ done: event.packsDone, total: event.packsTotal, noun: "packs" });
      },
      signal,
    });
  })();
  for (const pack of plan.dropped) warnOfDropped(run, pack);
  for (const { indexId, damage } of plan.replaced) if (damage !== undefined) output.note(`index ${shortId(indexId)} is damaged: ${damage}`);
  output.say(`packs listed anew: ${formatCount(plan.reindexed.length)}, no more: ${formatCount(plan.dropped.length)}`);
  const done =
    flags.dryRun === true
      ? undefined
      : await withQuarantine(flags, (quarantine) => runIndexRepair(repository, plan, { ...quarantine, signal }));
  if (done !== undefined) {
    output.say(`wrote ${formatMany(done.indexesWritten, "index file")}, set ${formatCount(done.indexesSetAside)} aside`);
    if (done.indexesWritten + done.indexesSetAside === 0) output.say("the index is in order");
  }
  if (!output.isJson) return;
  output.printJson({
    message_type: "summary",
    ...(done === undefined ? { dry_run: true } : {}),
    packs_reindexed: plan.reindexed.map(({ packId }) => packId),
    packs_dropped: plan.dropped.map(({ packId, reason, blobs }) => ({ id: packId, reason, blobs })),
    indexes_written: done?.indexesWritten ?? 0,
    indexes_set_aside: done?.indexesSetAside ?? 0,
  });
}

function warnOfDropped(run: Run, { packId, reason, blobs, message }: DroppedPack): void {
  run.warn(`${message}; ${formatMany(blobs, "blob")} of it ${blobs === 1 ? "is" : "are"} in the index no more`, {
    message_type: "error",
    error: { message },
    pack: packId,
    reason,
  });
}

async function repairPacks(run: Run, prefixes: readonly string[], flags: RepairFlags): Promise<void> {
  const { output } = run;
  await using session = await openForRepair(run, flags);
  const { repository, signal } = session;
  const packIds = await findPackIds(repository.store, prefixes, signal);
  const plan = await (async () => {
    using progress = new ProgressReporter(output, { title: "reading packs" });
    return await planPackRepair(repository, packIds, {
      onProgress: ({ packsDone, packsTotal }) => progress.update({ done: packsDone, total: packsTotal, noun: "packs" }),
      signal,
    });
  })();
  for (const pack of plan.packs) tellPack(run, pack);
  const { packBytes, workers } = run.options;
  const done =
    flags.dryRun === true
      ? undefined
      : await withQuarantine(flags, (quarantine) => runPackRepair(repository, plan, { ...quarantine, packBytes, workers, signal }));
  if (done !== undefined) {
    output.say(
      `saved ${formatMany(done.blobsSaved, "blob")} in ${formatMany(done.packsWritten, "new pack")}, set ${formatMany(done.packsSetAside, "pack")} aside`,
    );
  }
  if (!output.isJson) return;
  output.printJson({
    message_type: "summary",
    ...(done === undefined ? { dry_run: true } : {}),
    packs: plan.packs.map(({ packId, state, savedBlobs, lost }) => ({
      id: packId,
      state,
      saved_blobs: savedBlobs,
      lost_blobs: lost.filter(({ hasOtherCopy }) => !hasOtherCopy).map(({ blobId, blobType }) => ({ id: blobId, type: blobType })),
    })),
    packs_set_aside: done?.packsSetAside ?? 0,
    packs_written: done?.packsWritten ?? 0,
    blobs_saved: done?.blobsSaved ?? 0,
  });
}

function tellPack(run: Run, { packId, state, problems, savedBlobs, lost }: PackRepair): void {
  const gone = lost.filter(({ hasOtherCopy }) => !hasOtherCopy);
  if (state === "missing") run.warn(`pack ${packId} is not in the repository`);
  else run.output.say(`pack ${packId} is ${state}; ${formatMany(savedBlobs, "blob")} can be read, ${formatCount(gone.length)} cannot`);
  for (const problem of problems) run.output.say(`  ${problem}`, 2);
  for (const { blobId, blobType } of gone)
    run.warn(`${blobType} blob ${blobId} of pack ${shortId(packId)} is lost; back the same files up again`);
}

async function findPackIds(store: Store, prefixes: readonly string[], signal: AbortSignal): Promise<PackId[]> {
  const found = new Map<string, PackId[]>(prefixes.map((prefix) => [prefix, /^[0-9a-f]{64}$/.test(prefix) ? [parsePackId(prefix)] : []]));
  if ([...found.values()].some((ids) => ids.length === 0)) {
    for await (const { name } of store.list("pack", signal)) {
      for (const [prefix, ids] of found) if (prefix !== name && prefix !== "" && name.startsWith(prefix)) ids.push(parsePackId(name));
    }
  }
  for (const [prefix, ids] of found) {
    if (ids.length === 1) continue;
    throw new Failure(
      "StoreFileNotFound",
      `Cannot repair pack "${prefix}": ${ids.length === 0 ? "no id begins so" : `${ids.length} ids begin so`}`,
    );
  }
  return [...found.values()].flat();
}

async function repairSnapshots(run: Run, names: readonly string[], flags: SnapshotsFlags): Promise<void> {
  const { output } = run;
  const filter = readFilter(flags);
  await using session = await openForRepair(run, flags);
  const { repository, signal } = session;
  const isChosen = names.length > 0 || filter.isFiltered;
  const chosen = isChosen ? await chooseSnapshots(run, repository, { names, filter, signal }) : undefined;
  const plan = await (async () => {
    using progress = new ProgressReporter(output, { title: "reading snapshots" });
    return await planSnapshotRepair(repository, {
      ...(chosen === undefined ? {} : { snapshotIds: chosen.map(({ id }) => id) }),
      keepPartialFiles: flags.keepPartialFiles === true,
      onProgress: ({ snapshotsDone, snapshotsTotal }) => progress.update({ done: snapshotsDone, total: snapshotsTotal, noun: "snapshots" }),
      signal,
    });
  })();
  for (const snapshot of plan.snapshots) tellSnapshot(run, snapshot);
  const isForgetting = flags.forget === true;
  const done =
    flags.dryRun === true
      ? undefined
      : await withQuarantine(flags, (quarantine) => runSnapshotRepair(repository, plan, { ...quarantine, forget: isForgetting, signal }));
  for (const { from, to } of done?.repaired ?? []) output.say(`snapshot ${shortId(from)} is repaired as ${shortId(to)}`);
  const damaged = plan.snapshots.filter(({ state }) => state !== "whole");
  if (damaged.length === 0) output.say(`${formatMany(plan.snapshots.length, "snapshot")}, all whole`);
  else if (done !== undefined && !isForgetting) output.say("the originals stay; --forget sets them aside");
  if (!output.isJson) return;
  output.printJson({
    message_type: "summary",
    ...(done === undefined ? { dry_run: true } : {}),
    damaged_snapshots: damaged.map(({ snapshotId, state, changeCount }) => ({ id: snapshotId, state, changes: changeCount })),
    repaired_snapshots: (done?.repaired ?? []).map(({ from, to }) => ({ old_snapshot_id: from, new_snapshot_id: to })),
    snapshots_set_aside: done?.setAside ?? [],
  });
}

const changeTexts: Readonly<Record<RepairedEntry["what"], string>> = {
  fileRemoved: "file taken out, pieces of it are missing",
  fileShortened: "file without the pieces that are missing",
  directoryEmptied: "folder emptied, it cannot be read",
  entryRemoved: "entry taken out, it is none that can be",
  directorySorted: "folder put in order",
};

function tellSnapshot(run: Run, { snapshotId, state, changes, changeCount, message }: SnapshotRepair): void {
  if (state === "whole") return;
  if (state === "lost") run.warn(`snapshot ${shortId(snapshotId)} is lost: ${message ?? "it cannot be read"}`);
  else run.output.say(`snapshot ${shortId(snapshotId)}: ${formatMany(changeCount, "change")}`);
  for (const { path, what } of changes) {
    if (run.output.isJson) run.output.printJson({ message_type: "change", snapshot_id: snapshotId, ...pathMembers(path), what });
    else run.output.printBytes({ bytes: `  ${path}: ${changeTexts[what]}`, escaped: `  ${toUtf8OrEscaped(path)}: ${changeTexts[what]}` });
  }
}

function openForRepair(run: Run, flags: RepairFlags): Promise<Session> {
  return openSession(run, { lock: flags.dryRun === true ? "shared" : "exclusive", prepare: prepareNothing });
}

/** Opens the place for what is set aside, if one was named, while the work is done. */
async function withQuarantine<T>(flags: RepairFlags, work: (quarantine: { readonly quarantine?: Store }) => Promise<T>): Promise<T> {
  if (flags.quarantine === undefined) return work({});
  const store = openStore(flags.quarantine);
  try {
    await store.create();
    return await work({ quarantine: store });
  } finally {
    await store.close();
  }
}
