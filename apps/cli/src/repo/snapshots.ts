import { type Command, Option } from "commander";
import { type GroupBy, parseGroupBy, type StoredSnapshot } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatLocalTime, formatMany } from "../format-amount.ts";
import { renderTable } from "../format-table.ts";
import { addGlobalOptions } from "../global-options.ts";
import { parseCount } from "../parse-size.ts";
import { type Run, runWork } from "../run.ts";
import { chooseSnapshots } from "./choose-snapshots.ts";
import { openSession } from "./session.ts";
import { addFilterOptions, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { renderSnapshotJson, shortId } from "./snapshot-json.ts";

interface SnapshotsFlags extends FilterFlags {
  readonly latest?: string;
  readonly last?: boolean;
  readonly groupBy?: string;
  readonly compact?: boolean;
}

/** `granary repo snapshots` */
export function configureSnapshots(command: Command): void {
  command
    .description("Lists snapshots, oldest first.")
    .argument("[snapshots...]", "only these: the first characters of their ids, or latest");
  addFilterOptions(command);
  command
    .option("--latest <n>", "only the last n of each host and paths")
    .addOption(new Option("--last", "the same as --latest 1").hideHelp())
    .option("-g, --group-by <what>", "in groups by host, paths, tags, with commas between")
    .option("-c, --compact", "one line each, without paths");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo snapshots --host web1 --latest 3", "lists the last three of each set of paths of that machine"],
    ["repo snapshots --json | jq -r '.[-1].id'", "prints the id of the newest"],
  ]);
  command.action((names: string[], flags: SnapshotsFlags) => runWork(command, (run) => listSnapshots(run, names, flags)));
}

async function listSnapshots(run: Run, names: readonly string[], flags: SnapshotsFlags): Promise<void> {
  const { output } = run;
  const groupBy = parseGroupBy(flags.groupBy ?? "");
  const latest = flags.latest === undefined ? (flags.last === true ? 1 : undefined) : parseCount(flags.latest, "--latest", 1);
  await using session = await openSession(run, {
    lock: "shared",
    prepare: (repository, signal) => chooseSnapshots(run, repository, { names, filter: readFilter(flags), signal }),
  });
  const found = session.prepared;
  const isGrouped = flags.groupBy !== undefined && flags.groupBy !== "";
  const groups = groupSnapshots(latest === undefined ? found : keepLatest(found, latest), groupBy);
  if (output.isJson) {
    const lists = groups.map(({ key, members }) => ({ key, json: `[${members.map(renderSnapshotJson).join(",")}]` }));
    output.print(
      isGrouped
        ? `[${lists.map(({ key, json }) => `{"group_key":${JSON.stringify(key)},"snapshots":${json}}`).join(",")}]`
        : (lists[0]?.json ?? "[]"),
    );
    return;
  }
  for (const { key, members } of groups) {
    if (isGrouped) output.print(`snapshots${describeKey(key, groupBy)}:`);
    for (const line of renderSnapshotTable(members, flags.compact === true)) output.print(line);
    output.print(formatMany(members.length, "snapshot"));
  }
  if (groups.length === 0) output.print("0 snapshots");
}

interface GroupKey {
  readonly hostname: string;
  readonly paths: readonly string[] | null;
  readonly tags: readonly string[] | null;
}

interface SnapshotGroup {
  readonly key: GroupKey;
  readonly members: StoredSnapshot[];
}

function groupSnapshots(snapshots: readonly StoredSnapshot[], by: GroupBy): SnapshotGroup[] {
  const groups = new Map<string, SnapshotGroup>();
  for (const snapshot of snapshots) {
    const key = {
      hostname: by.host ? snapshot.hostname : "",
      paths: by.paths ? snapshot.paths.toSorted() : null,
      tags: by.tags ? snapshot.tags.toSorted() : null,
    };
    const text = JSON.stringify(key);
    const group = groups.get(text) ?? { key, members: [] };
    group.members.push(snapshot);
    groups.set(text, group);
  }
  return [...groups.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

/** The last of each host and paths, in the order given. */
function keepLatest(snapshots: readonly StoredSnapshot[], count: number): StoredSnapshot[] {
  const groups = groupSnapshots(snapshots, { host: true, paths: true, tags: false });
  const kept = new Set(groups.flatMap(({ members }) => members.slice(-count)));
  return snapshots.filter((snapshot) => kept.has(snapshot));
}

function describeKey(key: GroupKey, by: GroupBy): string {
  const parts = [
    ...(by.host ? [`host [${key.hostname}]`] : []),
    ...(by.tags ? [`tags [${(key.tags ?? []).join(", ")}]`] : []),
    ...(by.paths ? [`paths [${(key.paths ?? []).join(", ")}]`] : []),
  ];
  return parts.length === 0 ? "" : ` for (${parts.join(", ")})`;
}

/** The table that shows snapshots to people; `forget` shows it too. @param extra a column of reasons */
export function renderSnapshotTable(
  snapshots: readonly StoredSnapshot[],
  isCompact: boolean,
  extra?: ReadonlyMap<StoredSnapshot, readonly string[]>,
): string[] {
  const hasSize = snapshots.some(({ summary }) => summary !== null);
  const columns: readonly {
    readonly head: string;
    readonly isShown: boolean;
    readonly cell: (snapshot: StoredSnapshot) => readonly string[];
  }[] = [
    { head: "ID", isShown: true, cell: ({ id }) => [shortId(id)] },
    { head: "Time", isShown: true, cell: ({ timeNs }) => [formatLocalTime(timeNs)] },
    { head: "Host", isShown: true, cell: ({ hostname }) => [hostname] },
    { head: "Tags", isShown: true, cell: ({ tags }) => (isCompact ? [tags.join(",")] : tags) },
    { head: "Reasons", isShown: extra !== undefined && !isCompact, cell: (snapshot) => extra?.get(snapshot) ?? [] },
    { head: "Paths", isShown: !isCompact, cell: ({ paths }) => paths },
    { head: "Size", isShown: hasSize, cell: ({ summary }) => [summary === null ? "" : formatBytes(summary.totalBytesProcessed)] },
  ];
  const shown = columns.filter(({ isShown }) => isShown);
  const rows = snapshots.map((snapshot) => shown.map(({ cell }) => cell(snapshot)));
  return renderTable(
    shown.map(({ head }) => head),
    rows,
    new Set([shown.findIndex(({ head }) => head === "Size")]),
  );
}
