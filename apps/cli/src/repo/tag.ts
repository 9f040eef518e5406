import { type Command, Option } from "commander";
import { Failure } from "@granary/base/errors";
import { changeTags, findSnapshot, loadSnapshots, matchesFilter, type StoredSnapshot, type TagChange } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatMany } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Run, runWork } from "../run.ts";
import { openSession, prepareNothing } from "./session.ts";
import { addFilterOptions, collect, type FilterFlags, readFilter, splitTags } from "./snapshot-filter.ts";
import { shortId } from "./snapshot-json.ts";

interface TagFlags extends FilterFlags {
  readonly set?: readonly string[];
  readonly add?: readonly string[];
  readonly remove?: readonly string[];
}

/** `granary repo tag` */
export function configureTag(command: Command): void {
  command
    .description(
      "Changes the tags of snapshots: those named, or all that --host, --tag and --path choose. A changed snapshot has a new id.",
    )
    .argument("[snapshots...]", "the first characters of their ids, or latest")
    .addOption(new Option("--set <tags>", "replace all tags by these, a,b,c; '' for none (may be repeated)").argParser(collect))
    .addOption(new Option("--add <tags>", "add these tags (may be repeated)").argParser(collect))
    .addOption(new Option("--remove <tags>", "take these tags away (may be repeated)").argParser(collect));
  addFilterOptions(command, "when none is named");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo tag --add keep latest", "tags the newest snapshot, for forget --keep-tag keep"],
    ["repo tag --tag test --set ''", "takes all tags from the snapshots tagged test"],
  ]);
  command.action((names: string[], flags: TagFlags) => runWork(command, (run) => tag(run, names, flags)));
}

async function tag(run: Run, names: readonly string[], flags: TagFlags): Promise<void> {
  const { output } = run;
  const change = readChange(flags);
  await using session = await openSession(run, { lock: "exclusive", prepare: prepareNothing });
  const { repository, signal } = session;
  const all = await loadSnapshots(repository, { onDamaged: (_, failure) => run.warn(failure.message), signal });
  const filter = readFilter(flags);
  const chosen: StoredSnapshot[] = [];
  for (const name of names) chosen.push((await findSnapshot(repository, name, { ...filter, signal })).snapshot);
  if (names.length === 0) chosen.push(...all.filter((snapshot) => matchesFilter(snapshot, filter)));
  const { changed } = await changeTags(repository, {
    chosen,
    all,
    change,
    onEvent: (event) => {
      if (event.kind === "failed") run.warn(`snapshot ${shortId(event.oldId)} could not be changed: ${event.failure.message}`);
      else if (output.isJson)
        output.printJson({ message_type: "changed", old_snapshot_id: event.oldId, new_snapshot_id: event.newId, tags: event.tags });
      else output.say(`snapshot ${shortId(event.oldId)} is now ${shortId(event.newId)}, tags ${event.tags.join(", ") || "none"}`);
    },
    signal,
  });
  if (output.isJson) output.printJson({ message_type: "summary", changed_snapshots: changed });
  else output.say(changed === 0 ? "no snapshot changed" : `changed ${formatMany(changed, "snapshot")}`);
}

function readChange(flags: TagFlags): TagChange {
  const list = (texts: readonly string[] | undefined): string[] => (texts ?? []).flatMap(splitTags);
  if (flags.set === undefined) return { kind: "edit", add: list(flags.add), remove: list(flags.remove) };
  if (flags.add === undefined && flags.remove === undefined) return { kind: "set", tags: list(flags.set) };
  throw new Failure("InvalidArgument", "Cannot use --set together with --add or --remove: either all tags are replaced, or some changed");
}
