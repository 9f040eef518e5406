/**
 * The commands of `granary` and how they are found. A command's own file is loaded when it is called for, so that starting is quick.
 */

import { Command, CommanderError } from "commander";
import { Failure, toFailure } from "@granary/base/errors";
import { addExamples, type Example } from "./command-help.ts";
import { exitCodeOf } from "./exit-codes.ts";
import { addGlobalOptions } from "./global-options.ts";
import { Output } from "./output.ts";
import { showArgument } from "./raw-arguments.ts";
import { reportFailure } from "./run.ts";
import { version } from "./version.ts";

/** Gives a command its arguments, options, examples and work. */
export type Configure = (command: Command) => void;

interface Entry {
  readonly name: string;
  readonly summary: string;
  readonly alias?: string;
  readonly load: () => Promise<Configure>;
}

const everyday = "Back up and restore:";
const looking = "Look:";
const keeping = "Keep in order:";
const inside = "Inside:";

/** The commands of `granary repo`, in the order of its help. */
const repoEntries: readonly (Entry & { readonly group: string })[] = [
  { group: everyday, name: "init", summary: "Create a repository", load: async () => (await import("./repo/init.ts")).configureInit },
  {
    group: everyday,
    name: "backup",
    summary: "Back up files and folders into a new snapshot",
    load: async () => (await import("./repo/backup.ts")).configureBackup,
  },
  {
    group: everyday,
    name: "restore",
    summary: "Restore a snapshot, or part of it",
    load: async () => (await import("./repo/restore.ts")).configureRestore,
  },
  {
    group: looking,
    name: "snapshots",
    summary: "List snapshots",
    load: async () => (await import("./repo/snapshots.ts")).configureSnapshots,
  },
  { group: looking, name: "ls", summary: "List what a snapshot holds", load: async () => (await import("./repo/ls.ts")).configureLs },
  {
    group: looking,
    name: "find",
    summary: "Find files in snapshots, or what uses an object",
    load: async () => (await import("./repo/find.ts")).configureFind,
  },
  {
    group: looking,
    name: "diff",
    summary: "Show what differs between two snapshots",
    load: async () => (await import("./repo/diff.ts")).configureDiff,
  },
  {
    group: looking,
    name: "dump",
    summary: "Print a file of a snapshot, or a folder as an archive",
    load: async () => (await import("./repo/dump.ts")).configureDump,
  },
  { group: looking, name: "stats", summary: "Count files and sizes", load: async () => (await import("./repo/stats.ts")).configureStats },
  {
    group: keeping,
    name: "check",
    summary: "Check the repository for errors",
    load: async () => (await import("./repo/check.ts")).configureCheck,
  },
  {
    group: keeping,
    name: "forget",
    summary: "Remove snapshots by a policy",
    load: async () => (await import("./repo/forget.ts")).configureForget,
  },
  {
    group: keeping,
    name: "prune",
    summary: "Remove data that no snapshot needs",
    load: async () => (await import("./repo/prune.ts")).configurePrune,
  },
  {
    group: keeping,
    name: "copy",
    summary: "Copy snapshots from another repository",
    load: async () => (await import("./repo/copy.ts")).configureCopy,
  },
  { group: keeping, name: "tag", summary: "Change the tags of snapshots", load: async () => (await import("./repo/tag.ts")).configureTag },
  { group: keeping, name: "key", summary: "Manage passwords", load: async () => (await import("./repo/key.ts")).configureKey },
  { group: keeping, name: "unlock", summary: "Remove stale locks", load: async () => (await import("./repo/unlock.ts")).configureUnlock },
  {
    group: keeping,
    name: "repair",
    summary: "Repair the index, packs or snapshots",
    load: async () => (await import("./repo/repair.ts")).configureRepair,
  },
  {
    group: keeping,
    name: "rebuild-index",
    summary: "The same as repair index",
    load: async () => (await import("./repo/repair.ts")).configureIndexRepair,
  },
  { group: inside, name: "list", summary: "List the ids of objects", load: async () => (await import("./repo/list.ts")).configureList },
  { group: inside, name: "cat", summary: "Print an object", load: async () => (await import("./repo/cat.ts")).configureCat },
  {
    group: inside,
    name: "version",
    summary: "Print the versions of the program and of Node",
    load: async () => (await import("./print-version.ts")).configureVersion,
  },
];

const repoExamples: readonly Example[] = [
  ["repo init -r /srv/backup", "creates a repository; asks for a new password"],
  ["repo backup -r /srv/backup ~/documents --exclude '*.tmp'", "backs a folder up"],
  ["repo snapshots -r /srv/backup", "lists what there is"],
  ["repo restore -r /srv/backup latest --target /tmp/restored", "brings the newest back"],
];

const repoFooter = `
Where the repository is and what opens it need not be repeated:
  export GRANARY_REPOSITORY=/srv/backup GRANARY_PASSWORD_FILE=~/.granary-password
Variables of restic are understood too (RESTIC_REPOSITORY, RESTIC_PASSWORD…); those of granary come first.
A password is never an argument. Exit codes and JSON: docs/granary-repo.md.`;

/** Builds the whole program. @param writeOut takes help; standard output when absent */
export function createProgram(writeOut?: (text: string) => void): Command {
  const program = new Command("granary")
    .description("Backs up into repositories of restic's format, and restores from them.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .enablePositionalOptions()
    .configureHelp({ sortSubcommands: false })
    .exitOverride()
    .configureOutput({ outputError: () => {}, ...(writeOut && { writeOut }) }); // runProgram tells of errors
  addEntry(program, {
    name: "start",
    summary: "Back a folder up, restore it beside, compare: a demonstration on your own data",
    load: async () => (await import("./start/start.ts")).configureStart,
  });
  addRepoCommand(program);
  addEntry(program, {
    name: "version",
    summary: "Print the versions of the program and of Node",
    load: async () => (await import("./print-version.ts")).configureVersion,
  });
  addExamples(program, [
    ["start ~/documents", "backs a folder up into .granary/, restores it beside, compares every file"],
    ["repo --help", "lists the commands that work with repositories"],
  ]);
  addHelpCommand(program);
  return program;
}

function addRepoCommand(program: Command): void {
  const repo = program
    .command("repo")
    .summary("Work with a repository: back up, restore, maintain")
    .description("Works with a repository.");
  addGlobalOptions(repo);
  for (const entry of repoEntries) addEntry(repo, entry).helpGroup(entry.group);
  addExamples(repo, repoExamples);
  repo.addHelpText("after", repoFooter);
  addHelpCommand(repo);
  // they are the same for each command, whose help shows them; here they would hide the commands
  repo.configureHelp({ ...repo.configureHelp(), visibleOptions: () => [] });
}

function addEntry(parent: Command, entry: Entry): Command {
  const command = parent.command(entry.name).summary(entry.summary);
  if (entry.alias !== undefined) command.alias(entry.alias);
  let isConfigured = false;
  parent.hook("preSubcommand", async (_, called) => {
    if (called !== command || isConfigured) return;
    isConfigured = true;
    (await entry.load())(command);
  });
  return command;
}

/** `granary help x` for `granary x --help`: commander's own would not load the command first. */
function addHelpCommand(parent: Command): void {
  parent
    .helpCommand(false)
    .command("help [command]", { hidden: true })
    .action(async (name?: string) => {
      await parent.parseAsync(name === undefined ? ["--help"] : [name, "--help"], { from: "user" });
    });
}

/** The names of all commands, such as `repo backup`, for the test that compares them with the documentation. */
export async function listCommands(command: Command = createProgram(), prefix = ""): Promise<string[]> {
  const names: string[] = [];
  for (const { name, called } of command.commands
    .filter((child) => child.name() !== "help")
    .map((child) => ({ name: child.name(), called: child }))) {
    names.push(`${prefix}${name}`);
    if (prefix === "repo ") await loadEntry(name, called);
    names.push(...(await listCommands(called, `${prefix}${name} `)));
  }
  return names;
}

async function loadEntry(name: string, command: Command): Promise<void> {
  const entry = repoEntries.find((candidate) => candidate.name === name);
  if (entry !== undefined) (await entry.load())(command);
}

/** Runs the command that the arguments name, and sets the process's exit code. Never rejects. */
export async function runProgram(args: readonly string[]): Promise<void> {
  try {
    await createProgram().parseAsync(args.flatMap(expandVerbose), { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return; // help and version, which were printed
    const failure = error instanceof CommanderError ? describeUsageError(error) : toFailure(error);
    process.exitCode = exitCodeOf(failure);
    if (error instanceof CommanderError && error.code === "commander.help") return; // no command was named: help was printed
    reportFailure(failure, new Output({ isJson: args.includes("--json"), verbosity: 1 }));
  }
}

/** `--verbose=2` says as much as `-vv`. */
function expandVerbose(argument: string): string[] {
  const [, times] = /^--verbose=(\d)$/.exec(argument) ?? [];
  return times === undefined ? [argument] : Array.from({ length: Number(times) }, () => "--verbose");
}

function describeUsageError(error: CommanderError): Failure {
  return new Failure(
    "InvalidArgument",
    `Cannot run the command: ${showArgument(error.message.replace(/^error: /, "").replaceAll("\n", " "))}`,
    {
      details: { reason: error.code },
    },
  );
}
