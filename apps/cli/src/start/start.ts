/**
 * `granary start`: the main job on the user's own data, from nothing. Backs a folder up into a repository in the data folder, restores it
 * beside, compares everything, and says what it did and how fast. The first run makes the repository; the next ones show increments.
 */

import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { systemClock } from "@granary/base/clock";
import { writeDurably } from "@granary/base/durable-file";
import { Failure } from "@granary/base/errors";
import {
  type BackupReport,
  bytesOfId,
  createRepository,
  findParent,
  fromUtf8,
  loadSnapshots,
  noExcludes,
  openLocalStore,
  planRestore,
  prepareBackup,
  type RestoreReport,
  runBackup,
  runRestore,
  toUtf8OrEscaped,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatCount, formatMany, formatRate } from "../format-amount.ts";
import type { RepositoryAddress } from "../global-options.ts";
import { getPassword } from "../password.ts";
import { ProgressReporter } from "../progress.ts";
import { bytesOfArgument, showArgument } from "../raw-arguments.ts";
import { loadRunIndex, openSession, type Session } from "../repo/session.ts";
import { shortId } from "../repo/snapshot-json.ts";
import { type Run, runWork } from "../run.ts";
import { version } from "../version.ts";
import { compareFolders, type ComparisonCounts, type FolderDifference } from "./compare-folders.ts";

/** Where everything is kept. */
interface Home {
  readonly folder: string;
  readonly repository: string;
  readonly passwordFile: string;
  readonly restored: string;
}

/** After so many differences only their number is told. */
const toldDifferences = 20;

/** `granary start` */
export function configureStart(command: Command): void {
  command
    .description(
      "Backs a folder up, restores it beside, compares every file, and says how fast it was. Everything is kept in .granary/ of the working folder, or in GRANARY_HOME. Exit code 0 only when the copy is the same in everything.",
    )
    .argument("[folder]", "what to back up (from a checkout, the project's own docs when absent)")
    .option("--keep", "keep the restored copy")
    .option("--json", "write results as JSON")
    .option("-q, --quiet", "say nothing but warnings and errors")
    .option("-v, --verbose", "say more");
  addExamples(command, [
    ["start ~/documents", "backs the folder up into ./.granary/repository, restores it to ./.granary/restored, compares"],
    ["npm start -- ~/documents", "the same from a checkout"],
    ["GRANARY_HOME=/mnt/big granary start --keep /srv/data", "keeps everything elsewhere, and the copy too"],
  ]);
  command.action((folder: string | undefined, flags: { keep?: boolean }) =>
    runWork(command, (run) => demonstrate(run, folder, flags.keep === true)),
  );
}

async function demonstrate(run: Run, argument: string | undefined, isKeeping: boolean): Promise<void> {
  const { output } = run;
  const folder = chooseFolder(argument);
  const home = chooseHome(folder);
  const isNew = await prepareHome(run, home);
  output.say(`granary ${version}\n  folder      ${showArgument(folder)}`);
  output.say(`  repository  ${home.repository}${isNew ? ", created now" : ""} (password in ${home.passwordFile})\n`);
  const address: RepositoryAddress = { location: home.repository, password: { file: home.passwordFile }, keyHint: undefined };
  await rm(home.restored, { recursive: true, force: true });
  try {
    await using session = await openForBackup(run, address, folder);
    const backup = await backUp(run, session, { folder, home });
    output.say(`back up  ${describeBackup(backup)}`);
    const restore = await restoreBeside(run, session, { tree: backup.snapshot.tree, home });
    output.say(`restore  ${describeRestore(restore)}`);
    const found = await compare(run, { folder, home, startedNs: backup.snapshot.summary?.backupStartNs ?? 0n });
    output.say(`compare  ${describeComparison(found)}`);
    const stored = await measure(session);
    output.say(`\nThe repository has ${formatMany(stored.snapshots, "snapshot")} in ${formatBytes(stored.bytes)}.`);
    if (isKeeping) output.say(`The restored copy is ${home.restored}.`);
    if (output.isJson) output.printJson(renderJson({ folder, home, isNew, backup, restore, found, stored }));
    if (found.counts.differences > 0) throw differs(found, backup);
  } finally {
    if (!isKeeping) await rm(home.restored, { recursive: true, force: true });
  }
}

/** npm starts us in the project's folder, and tells where the user was. */
function chooseFolder(argument: string | undefined): string {
  const { INIT_CWD, npm_lifecycle_event } = process.env;
  const from = npm_lifecycle_event === "start" && INIT_CWD !== undefined && INIT_CWD !== "" ? INIT_CWD : process.cwd();
  if (argument !== undefined) return resolve(from, argument);
  if (import.meta.filename.endsWith(".ts")) return join(import.meta.dirname, "../../../../docs"); // a checkout
  throw new Failure("InvalidArgument", "Cannot start: no folder was named, and this is no checkout whose docs could be taken");
}

function chooseHome(folder: string): Home {
  const home = resolve(process.env.GRANARY_HOME || ".granary");
  const bytes = Buffer.from(bytesOfArgument(folder), "latin1");
  const isFolder = statSync(bytes, { throwIfNoEntry: false })?.isDirectory();
  if (isFolder !== true) {
    throw new Failure(
      "SourceUnreadable",
      `Cannot back up "${showArgument(folder)}": ${isFolder === undefined ? "it is not there" : "it is no folder"}`,
    );
  }
  if (`${folder}/`.startsWith(`${home}/`)) {
    throw new Failure(
      "InvalidArgument",
      `Cannot back up "${showArgument(folder)}": it is in the data folder ${home}, which GRANARY_HOME can move`,
    );
  }
  return { folder: home, repository: join(home, "repository"), passwordFile: join(home, "password"), restored: join(home, "restored") };
}

/** Makes what is missing. @returns whether the repository is new */
async function prepareHome({ signal }: Run, home: Home): Promise<boolean> {
  mkdirSync(home.folder, { recursive: true, mode: 0o700 });
  if (existsSync(join(home.repository, "config"))) return false;
  if (!existsSync(home.passwordFile)) {
    await writeDurably(home.passwordFile, Buffer.from(`${randomBytes(24).toString("base64url")}\n`), { mode: 0o600 });
  }
  const password = await getPassword({ file: home.passwordFile }, { what: "password", signal });
  const store = openLocalStore(home.repository);
  try {
    await createRepository(store, { password, signal });
  } finally {
    await store.close();
  }
  return true;
}

type BackupSession = Session<Awaited<ReturnType<typeof loadSnapshots>>>;

function openForBackup(run: Run, address: RepositoryAddress, folder: string): Promise<BackupSession> {
  return openSession(run, {
    lock: "shared",
    address,
    onDeriving: () => prepareBackup(run.options.workers),
    prepare: async (repository, signal) => {
      const snapshots = await loadSnapshots(repository, { onDamaged: (_, failure) => run.warn(failure.message), signal });
      await loadRunIndex(run, repository, signal);
      return snapshots.filter(({ paths }) => paths.includes(folder));
    },
  });
}

async function backUp(run: Run, session: BackupSession, what: { folder: string; home: Home }): Promise<BackupReport> {
  const { repository, signal, prepared } = session;
  const timeNs = BigInt(systemClock.nowMs()) * 1_000_000n;
  const parent = findParent(prepared, { timeNs, hosts: [hostname()] }) ?? null;
  using progress = new ProgressReporter(run.output, { title: "backing up" });
  return await runBackup(repository, {
    targets: [bytesOfArgument(what.folder)],
    excludes: { ...noExcludes, patterns: [escapePattern(what.home.folder)] },
    hostname: hostname(),
    parent,
    allowShrink: true, // it is compared right away
    level: run.options.compressionLevel,
    workers: run.options.workers,
    programVersion: `granary ${version}`,
    onProgress: (counts) => {
      const done = counts.filesNew + counts.filesChanged + counts.filesUnmodified;
      const summary = parent?.summary;
      const totals = summary === null || summary === undefined ? {} : { totalBytes: summary.totalBytesProcessed, isEstimate: true };
      progress.update({ done, doneBytes: counts.bytesProcessed, ...totals });
    },
    onTrouble: ({ path, message }) => run.warn(`${toUtf8OrEscaped(path)}: ${message}`),
    signal,
  });
}

async function restoreBeside(
  run: Run,
  session: BackupSession,
  what: { tree: Parameters<typeof bytesOfId>[0]; home: Home },
): Promise<RestoreReport> {
  using progress = new ProgressReporter(run.output, { title: "restoring" });
  await using plan = await planRestore(session.repository, {
    tree: bytesOfId(what.tree),
    target: fromUtf8(what.home.restored),
    workers: run.options.workers,
    onProgress: ({ filesDone, filesTotal, bytesDone, bytesTotal }) =>
      progress.update({ done: filesDone, total: filesTotal, doneBytes: bytesDone, totalBytes: bytesTotal }),
    onTrouble: ({ path, message }) => run.warn(path === "" ? message : `${toUtf8OrEscaped(path)}: ${message}`),
    signal: session.signal,
  });
  return await runRestore(plan);
}

interface Findings {
  readonly counts: ComparisonCounts;
  readonly durationMs: number;
  /** Differences of entries that were changed after the backup began. */
  readonly changedLater: number;
}

async function compare(run: Run, what: { folder: string; home: Home; startedNs: bigint }): Promise<Findings> {
  const { output } = run;
  const startMs = systemClock.monotonicMs();
  let told = 0;
  let changedLater = 0;
  const onDifference = ({ path, what: text, changedNs }: FolderDifference): void => {
    const isLater = changedNs > what.startedNs;
    if (isLater) changedLater++;
    if (told++ >= toldDifferences) return;
    const shown = toUtf8OrEscaped(path) || ".";
    const hint = isLater ? " (changed since the backup began)" : "";
    output.complain(
      output.isJson ? JSON.stringify({ message_type: "difference", path: shown, what: text }) : `differs: ${shown}: ${text}${hint}`,
    );
  };
  using progress = new ProgressReporter(output, { title: "comparing" });
  const original = bytesOfArgument(what.folder);
  const counts = await compareFolders(original, fromUtf8(what.home.restored) + original, {
    except: what.home.folder,
    onDifference,
    onProgress: ({ files, bytes }) => progress.update({ done: files, doneBytes: bytes }),
    signal: run.signal,
  });
  return { counts, changedLater, durationMs: systemClock.monotonicMs() - startMs };
}

async function measure({ repository, signal }: BackupSession): Promise<{ snapshots: number; bytes: number }> {
  const sums = { snapshots: 0, bytes: 0 };
  for await (const { sizeBytes } of repository.store.list("pack", signal)) sums.bytes += sizeBytes;
  for await (const entry of repository.store.list("snapshot", signal)) if (entry.sizeBytes > 0) sums.snapshots++;
  return sums;
}

/** A pattern that matches this path only. */
function escapePattern(path: string): string {
  return path.replace(/[\\*?[]/g, "\\$&");
}

function describeSeconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(durationMs < 10_000 ? 2 : 1)} s`;
}

function describeBackup({ counts, durationMs, snapshotId, troubles }: BackupReport): string {
  const files = counts.filesNew + counts.filesChanged + counts.filesUnmodified;
  const kinds = `${formatCount(counts.filesNew)} new, ${formatCount(counts.filesChanged)} changed, ${formatCount(counts.filesUnmodified)} unmodified`;
  const speed = `${formatBytes(counts.bytesProcessed)} in ${describeSeconds(durationMs)} (${formatRate(counts.bytesProcessed, durationMs)})`;
  const stored = `${formatBytes(counts.dataAddedBytes)} added, stored as ${formatBytes(counts.dataAddedPackedBytes)}`;
  const warnings = troubles === 0 ? "" : `; ${formatMany(troubles, "warning")}`;
  return `${formatMany(files, "file")} (${kinds}), ${speed}\n         ${stored}; snapshot ${shortId(snapshotId ?? "")}${warnings}`;
}

function describeRestore({ files, links, directories, bytesWritten, durationMs }: RestoreReport): string {
  const speed = `${formatBytes(bytesWritten)} in ${describeSeconds(durationMs)} (${formatRate(bytesWritten, durationMs)})`;
  return `${formatMany(files + links, "file")}, ${formatMany(directories, "folder")}, ${speed}`;
}

function describeComparison({ counts, durationMs }: Findings): string {
  const what = `${formatMany(counts.files, "file")}, ${formatMany(counts.folders, "folder")}, ${formatCount(counts.others)} others, ${formatBytes(counts.bytes)} in ${describeSeconds(durationMs)}`;
  if (counts.differences > 0) return `${what}\n         ${formatMany(counts.differences, "difference")}`;
  return `${what}\n         all the same: content, modes, owners, times, links, attributes`;
}

function differs({ counts, changedLater }: Findings, { troubles }: BackupReport): Failure {
  const reasons = [
    ...(changedLater > 0 ? [`${changedLater} of entries that were changed while this ran`] : []),
    ...(troubles > 0 ? [`${formatMany(troubles, "warning")} of the backup tell of others`] : []),
  ];
  const why = reasons.length === 0 ? "" : ` (${reasons.join("; ")})`;
  return new Failure("CopyDiffers", `The restored copy differs from the folder in ${formatMany(counts.differences, "place")}${why}`, {
    details: { differences: counts.differences, changedLater, warnings: troubles },
  });
}

function renderJson(all: {
  folder: string;
  home: Home;
  isNew: boolean;
  backup: BackupReport;
  restore: RestoreReport;
  found: Findings;
  stored: { snapshots: number; bytes: number };
}): unknown {
  const { backup, restore, found, stored } = all;
  const { counts } = backup;
  return {
    message_type: "summary",
    folder: showArgument(all.folder),
    repository: all.home.repository,
    is_new: all.isNew,
    snapshot_id: backup.snapshotId,
    backup: {
      files_new: counts.filesNew,
      files_changed: counts.filesChanged,
      files_unmodified: counts.filesUnmodified,
      bytes: counts.bytesProcessed,
      data_added: counts.dataAddedBytes,
      data_added_packed: counts.dataAddedPackedBytes,
      warnings: backup.troubles,
      seconds: backup.durationMs / 1000,
    },
    restore: {
      files: restore.files + restore.links,
      folders: restore.directories,
      bytes: restore.bytesWritten,
      seconds: restore.durationMs / 1000,
    },
    compare: { ...found.counts, changed_later: found.changedLater, seconds: found.durationMs / 1000 },
    repository_bytes: stored.bytes,
    snapshots: stored.snapshots,
  };
}
