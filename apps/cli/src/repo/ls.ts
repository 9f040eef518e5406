import { type Command } from "commander";
import { createTreeLoader, listSnapshot } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatLocalTime } from "../format-amount.ts";
import { stringifyExactly } from "../exact-json.ts";
import { addGlobalOptions } from "../global-options.ts";
import { bytesOfArgument } from "../raw-arguments.ts";
import { type Run, runWork } from "../run.ts";
import { findSubtree } from "./find-subtree.ts";
import { findWithIndex } from "./find-with-index.ts";
import { renderNode, renderNodeLine } from "./render-node.ts";
import { openSession } from "./session.ts";
import { addFilterOptions, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { renderSnapshotJson, shortId } from "./snapshot-json.ts";

interface LsFlags extends FilterFlags {
  readonly long?: boolean;
  readonly recursive?: boolean;
}

/** `granary repo ls` */
export function configureLs(command: Command): void {
  command
    .description("Lists what a snapshot holds. With folders, only these and what is directly in them.")
    .argument("<snapshot>", "the first characters of its id, or latest; with :folder behind it, that folder is the top")
    .argument("[folders...]", "absolute paths in the snapshot")
    .option("-l, --long", "show mode, owner, group, size and time")
    .option("--recursive", "go into the folders below those named, too");
  addFilterOptions(command, "for latest");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo ls latest", "lists everything in the newest snapshot"],
    ["repo ls --long latest /home/alice", "lists a folder in the snapshot, with details"],
  ]);
  command.action((name: string, folders: string[], flags: LsFlags) =>
    runWork(command, (run) => listEntries(run, { name, folders, flags })),
  );
}

async function listEntries(run: Run, what: { name: string; folders: readonly string[]; flags: LsFlags }): Promise<void> {
  const { output } = run;
  await using session = await openSession(run, {
    lock: "shared",
    prepare: (repository, signal) => findWithIndex(run, repository, { name: what.name, filter: readFilter(what.flags), signal }),
  });
  const { repository, signal } = session;
  const { snapshot, subpath } = session.prepared;
  const load = createTreeLoader(repository);
  const tree = await findSubtree(load, { tree: snapshot.tree, subpath, signal });
  if (output.isJson) output.print(`{"message_type":"snapshot","struct_type":"snapshot",${renderSnapshotJson(snapshot).slice(1)}`);
  else output.note(`snapshot ${shortId(snapshot.id)} of ${snapshot.paths.join(", ")} at ${formatLocalTime(snapshot.timeNs)}:`);
  const folders = what.folders.map(bytesOfArgument);
  for await (const batch of listSnapshot(load, tree, { folders, recursive: what.flags.recursive === true, signal })) {
    for (const { path, node } of batch) {
      if (output.isJson) output.print(stringifyExactly({ message_type: "node", struct_type: "node", ...renderNode(path, node) }));
      else output.printBytes(renderNodeLine(path, node, what.flags.long === true));
    }
  }
}
