import { type Command } from "commander";
import {
  bytesOfId,
  createTreeLoader,
  type DiffCounts,
  type DiffStatistics,
  diffTrees,
  findSnapshot,
  toUtf8OrEscaped,
} from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Run, runWork } from "../run.ts";
import { findSubtree } from "./find-subtree.ts";
import { findWithIndex } from "./find-with-index.ts";
import { pathMembers } from "./render-node.ts";
import { openSession } from "./session.ts";
import { shortId } from "./snapshot-json.ts";

/** `granary repo diff` */
export function configureDiff(command: Command): void {
  command
    .description(
      "Shows what differs between two snapshots: + added, - removed, M content changed, T type changed, U metadata changed (with --metadata), ? content changed while size and times stayed.",
    )
    .argument("<before>", "a snapshot, or snapshot:folder")
    .argument("<after>", "another")
    .option("--metadata", "show entries too of which only the metadata changed");
  addGlobalOptions(command);
  addExamples(command, [["repo diff 4d1f6a2c latest", "shows what has changed since that snapshot"]]);
  command.action((before: string, after: string, flags: { metadata?: boolean }) =>
    runWork(command, (run) => diff(run, [before, after], flags.metadata === true)),
  );
}

async function diff(run: Run, names: readonly [string, string], withMetadata: boolean): Promise<void> {
  const { output } = run;
  await using session = await openSession(run, {
    lock: "shared",
    prepare: async (opened, stop) => {
      const first = await findSnapshot(opened, names[0], { signal: stop });
      return [first, await findWithIndex(run, opened, { name: names[1], filter: {}, signal: stop })] as const;
    },
  });
  const { repository, signal } = session;
  const [before, after] = session.prepared;
  const load = createTreeLoader(repository);
  const [first, second] = [
    await findSubtree(load, { tree: before.snapshot.tree, subpath: before.subpath, signal }),
    await findSubtree(load, { tree: after.snapshot.tree, subpath: after.subpath, signal }),
  ];
  output.note(`comparing snapshot ${shortId(before.snapshot.id)} to ${shortId(after.snapshot.id)}:`);
  const subject = { load, index: repository.index, before: bytesOfId(first), after: bytesOfId(second) };
  for await (const event of diffTrees(subject, { withMetadata, signal })) {
    if (event.kind === "unreadable") {
      run.warn(`${toUtf8OrEscaped(event.path)}: ${event.failure.message}`);
    } else if (event.kind === "statistics") {
      const { statistics } = event;
      if (statistics.missingBlobs > 0)
        run.warn(`${statistics.missingBlobs} blobs are missing, so that sizes are too small; run \`granary repo check\``);
      if (output.isJson) output.printJson(renderStatistics(statistics, [before.snapshot.id, after.snapshot.id]));
      else sayStatistics(run, statistics);
    } else {
      for (const { path, modifier } of event.changes) {
        if (output.isJson) output.printJson({ message_type: "change", ...pathMembers(path), modifier });
        else output.printBytes({ bytes: `${modifier.padEnd(5)}${path}`, escaped: `${modifier.padEnd(5)}${toUtf8OrEscaped(path)}` });
      }
    }
  }
}

function renderStatistics(statistics: DiffStatistics, [before, after]: readonly [string, string]): unknown {
  const render = ({ files, dirs, others, dataBlobs, treeBlobs, sizeBytes }: DiffCounts): unknown => ({
    files,
    dirs,
    others,
    data_blobs: dataBlobs,
    tree_blobs: treeBlobs,
    bytes: sizeBytes,
  });
  return {
    message_type: "statistics",
    source_snapshot: before,
    target_snapshot: after,
    changed_files: statistics.changedFiles,
    added: render(statistics.added),
    removed: render(statistics.removed),
  };
}

function sayStatistics(run: Run, { added, removed, changedFiles }: DiffStatistics): void {
  const row = (name: string, counts: readonly [number, number, number?]): string => {
    const [plus, minus, changed] = counts.map((count) => String(count).padStart(5));
    return `${name.padEnd(11)} ${plus} new, ${minus} removed${changed === undefined ? "" : `, ${changed} changed`}`;
  };
  const { output } = run;
  output.say(`\n${row("Files:", [added.files, removed.files, changedFiles])}`);
  output.say(row("Dirs:", [added.dirs, removed.dirs]));
  output.say(row("Others:", [added.others, removed.others]));
  output.say(row("Data blobs:", [added.dataBlobs, removed.dataBlobs]));
  output.say(row("Tree blobs:", [added.treeBlobs, removed.treeBlobs]));
  output.say(`  Added:   ${formatBytes(added.sizeBytes)}\n  Removed: ${formatBytes(removed.sizeBytes)}`);
}
