import { type Command, Option } from "commander";
import { Failure } from "@granary/base/errors";
import { type ArchiveFormat, createTreeLoader, openDump, toUtf8OrEscaped } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { addGlobalOptions } from "../global-options.ts";
import { bytesOfArgument } from "../raw-arguments.ts";
import { type Run, runWork } from "../run.ts";
import { findSubtree } from "./find-subtree.ts";
import { findWithIndex } from "./find-with-index.ts";
import { openSession } from "./session.ts";
import { addFilterOptions, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { writeBytes } from "./write-bytes.ts";

interface DumpFlags extends FilterFlags {
  readonly archive: ArchiveFormat;
  readonly target?: string;
}

/** `granary repo dump` */
export function configureDump(command: Command): void {
  command
    .description("Writes a file of a snapshot to standard output; a folder as a tar or zip archive.")
    .argument("<snapshot>", "the first characters of its id, or latest; with :folder behind it, that folder is the top")
    .argument("<path>", "a file or folder in it; / is everything")
    .addOption(new Option("-a, --archive <format>", "the archive for a folder").choices(["tar", "zip"]).default("tar"))
    .option("-t, --target <file>", "write to this file instead");
  addFilterOptions(command, "for latest");
  addGlobalOptions(command);
  addExamples(command, [
    ["repo dump latest /home/alice/notes.txt", "prints a file"],
    ["repo dump latest /home/alice --archive zip > alice.zip", "makes an archive of a folder"],
    ["repo dump latest:/srv/shop dump.sql | psql shop", "hands a file to another program"],
  ]);
  command.action((name: string, path: string, flags: DumpFlags) => runWork(command, (run) => dump(run, { name, path, flags })));
}

async function dump(run: Run, what: { name: string; path: string; flags: DumpFlags }): Promise<void> {
  const { flags } = what;
  await using session = await openSession(run, {
    lock: "shared",
    prepare: (repository, signal) => findWithIndex(run, repository, { name: what.name, filter: readFilter(flags), signal }),
  });
  const { repository, signal } = session;
  const { snapshot, subpath } = session.prepared;
  const tree = await findSubtree(createTreeLoader(repository), { tree: snapshot.tree, subpath, signal });
  const { isArchive, bytes } = await openDump(
    { source: repository, tree, path: bytesOfArgument(what.path), format: flags.archive },
    {
      onEvent: (event) => {
        if (event.kind === "skipped") run.warn(`${toUtf8OrEscaped(event.path)}: left out, a ${flags.archive} archive has no ${event.type}`);
      },
      signal,
    },
  );
  if (isArchive && flags.target === undefined && process.stdout.isTTY) {
    throw new Failure("InvalidArgument", "Cannot write an archive to a terminal: send it to a file with > or --target");
  }
  await writeBytes(run, bytes, flags.target);
}
