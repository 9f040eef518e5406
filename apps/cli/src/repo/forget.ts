import { type Command, Option } from "commander";
import { systemClock } from "@granary/base/clock";
import {
  countRules,
  emptyPolicy,
  type ForgetGroup,
  type ForgetPlan,
  type KeepPolicy,
  parseDuration,
  parseGroupBy,
  parseKeepCount,
  planForget,
  planForgetOf,
  runForget,
  type StoredSnapshot,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatMany } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { ProgressReporter } from "../progress.ts";
import { type Run, runWork } from "../run.ts";
import { chooseSnapshots } from "./choose-snapshots.ts";
import { addPruneOptions, type PruneFlags, pruneSession, readPruneOptions } from "./prune.ts";
import { openSession } from "./session.ts";
import { addFilterOptions, collect, type FilterFlags, readFilter, splitTags } from "./snapshot-filter.ts";
import { renderSnapshotJson, shortId } from "./snapshot-json.ts";
import { renderSnapshotTable } from "./snapshots.ts";

interface ForgetFlags extends FilterFlags, PruneFlags {
  readonly keepLast?: string;
  readonly keepHourly?: string;
  readonly keepDaily?: string;
  readonly keepWeekly?: string;
  readonly keepMonthly?: string;
  readonly keepYearly?: string;
  readonly keepWithin?: string;
  readonly keepWithinHourly?: string;
  readonly keepWithinDaily?: string;
  readonly keepWithinWeekly?: string;
  readonly keepWithinMonthly?: string;
  readonly keepWithinYearly?: string;
  readonly keepTag?: readonly string[];
  readonly groupBy: string;
  readonly compact?: boolean;
  readonly dryRun?: boolean;
  readonly prune?: boolean;
  readonly unsafeAllowRemoveAll?: boolean;
}

/** `granary repo forget` */
export function configureForget(command: Command): void {
  command
    .description(
      "Forgets snapshots: those named, or all that the policy of the --keep flags does not keep. Their data goes with the next prune.",
    )
    .argument("[snapshots...]", "exactly these, without a policy");
  const letters = { last: "l", hourly: "H", daily: "d", weekly: "w", monthly: "m", yearly: "y" } as const;
  for (const rule of countRules) {
    const what = rule === "last" ? "the last n snapshots" : `the newest snapshot of each of the last n ${nouns[rule]}`;
    command.option(`-${letters[rule]}, --keep-${rule} <n>`, `keep ${what} (or unlimited)`);
  }
  command.option("--keep-within <duration>", "keep all made within this time before the newest, such as 1y5m7d2h");
  for (const rule of countRules.filter((name) => name !== "last")) {
    command.option(`--keep-within-${rule} <duration>`, `keep the newest of each of the ${nouns[rule]} within this time`);
  }
  command
    .addOption(
      new Option("--keep-tag <tags>", "keep snapshots with all of these tags (may be repeated: any of the lists)").argParser(collect),
    )
    .option(
      "-g, --group-by <what>",
      "apply the policy to each host, paths, tags by itself, with commas between; '' for all together",
      "host,paths",
    )
    .option("-c, --compact", "show one line for each snapshot")
    .option("-n, --dry-run", "forget nothing, only say what would be done")
    .option("--prune", "remove the data that nothing needs any more, if a snapshot was forgotten")
    .option("--unsafe-allow-remove-all", "allow that a policy forgets all snapshots of a group");
  addFilterOptions(command, "", false);
  addPruneOptions(command);
  addGlobalOptions(command);
  addExamples(command, [
    ["repo forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run", "shows what this policy would keep and forget"],
    ["repo forget --keep-within 30d --prune", "forgets what is older, and removes its data"],
    ["repo forget 4d1f6a2c", "forgets this snapshot"],
  ]);
  command.action((names: string[], flags: ForgetFlags) => runWork(command, (run) => forget(run, names, flags)));
}

const nouns = { hourly: "hours", daily: "days", weekly: "weeks", monthly: "months", yearly: "years" } as const;

async function forget(run: Run, names: readonly string[], flags: ForgetFlags): Promise<void> {
  const { output } = run;
  const policy = readPolicy(flags);
  const groupBy = parseGroupBy(flags.groupBy);
  const pruneOptions = readPruneOptions(flags);
  const isDryRun = flags.dryRun === true;
  const filter = readFilter(flags);
  await using session = await openSession(run, {
    lock: isDryRun ? "shared" : "exclusive",
    prepare: (opened, stop) => chooseSnapshots(run, opened, { names, filter, signal: stop }),
  });
  const { repository, signal } = session;
  const snapshots = session.prepared;
  const plan =
    names.length > 0
      ? planForgetOf(snapshots)
      : planForget(snapshots, policy, {
          groupBy,
          nowNs: BigInt(systemClock.nowMs()) * 1_000_000n,
          timeZone: Temporal.Now.timeZoneId(),
          allowRemoveAll: flags.unsafeAllowRemoveAll === true,
          isFiltered: filter.isFiltered,
        });
  if (output.isJson) output.print(`[${plan.groups.map(renderGroup).join(",")}]`);
  else sayPlan(run, plan, flags.compact === true);
  if (isDryRun) {
    output.say(`would forget ${formatMany(plan.remove.length, "snapshot")}`);
  } else {
    using progress = new ProgressReporter(output, { title: "forgetting" });
    const { removed } = await runForget(repository.store, plan, {
      onEvent: (event) => {
        if (event.kind === "removed") progress.update({ done: event.doneCount, total: event.totalCount, noun: "snapshots" });
        else run.warn(`snapshot ${shortId(event.id)} could not be removed: ${event.failure.message}`);
      },
      signal,
    });
    output.say(`${formatMany(removed.length, "snapshot")} forgotten`);
  }
  if (flags.prune === true && plan.remove.length > 0) {
    await pruneSession(run, session, { ...pruneOptions, isDryRun, ignored: isDryRun ? plan.remove.map(({ id }) => id) : [] });
  }
}

function readPolicy(flags: ForgetFlags): KeepPolicy {
  const count = (text: string | undefined): number => (text === undefined ? 0 : parseKeepCount(text));
  return {
    ...emptyPolicy,
    last: count(flags.keepLast),
    hourly: count(flags.keepHourly),
    daily: count(flags.keepDaily),
    weekly: count(flags.keepWeekly),
    monthly: count(flags.keepMonthly),
    yearly: count(flags.keepYearly),
    within: parseDuration(flags.keepWithin ?? ""),
    withinHourly: parseDuration(flags.keepWithinHourly ?? ""),
    withinDaily: parseDuration(flags.keepWithinDaily ?? ""),
    withinWeekly: parseDuration(flags.keepWithinWeekly ?? ""),
    withinMonthly: parseDuration(flags.keepWithinMonthly ?? ""),
    withinYearly: parseDuration(flags.keepWithinYearly ?? ""),
    tags: (flags.keepTag ?? []).map(splitTags),
  };
}

function sayPlan(run: Run, plan: ForgetPlan<StoredSnapshot>, isCompact: boolean): void {
  const { output } = run;
  if (plan.policy !== "") output.say(`Applying policy: ${plan.policy}`);
  for (const group of plan.groups) {
    output.say(`\nsnapshots for ${describeGroup(group)}:`);
    if (group.keep.length > 0) {
      output.say(`keep ${formatMany(group.keep.length, "snapshot")}:`);
      const reasons = new Map(group.reasons.map(({ snapshot, matches }) => [snapshot, matches]));
      for (const line of renderSnapshotTable(group.keep, isCompact, reasons)) output.say(line);
    }
    if (group.remove.length > 0) {
      output.say(`remove ${formatMany(group.remove.length, "snapshot")}:`);
      for (const line of renderSnapshotTable(group.remove, isCompact)) output.say(line);
    }
  }
}

function describeGroup({ host, paths, tags }: ForgetGroup<StoredSnapshot>): string {
  const parts = [
    ...(host === "" ? [] : [`host [${host}]`]),
    ...(tags === null ? [] : [`tags [${tags.join(", ")}]`]),
    ...(paths === null ? [] : [`paths [${paths.join(", ")}]`]),
  ];
  return parts.length === 0 ? "the repository" : `(${parts.join(", ")})`;
}

/** restic's shape of a group. */
function renderGroup({ host, paths, tags, keep, remove, reasons }: ForgetGroup<StoredSnapshot>): string {
  const list = (snapshots: readonly StoredSnapshot[]): string =>
    snapshots.length === 0 ? "null" : `[${snapshots.map(renderSnapshotJson).join(",")}]`;
  const because = reasons.map(
    ({ snapshot, matches, counters }) =>
      `{"snapshot":${renderSnapshotJson(snapshot)},"matches":${JSON.stringify(matches)},"counters":${JSON.stringify(counters)}}`,
  );
  const key = `"tags":${JSON.stringify(tags)},"host":${JSON.stringify(host)},"paths":${JSON.stringify(paths)}`;
  return `{${key},"keep":${list(keep)},"remove":${list(remove)},"reasons":${because.length === 0 ? "null" : `[${because.join(",")}]`}}`;
}
