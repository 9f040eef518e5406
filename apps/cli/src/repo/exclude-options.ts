/** The flags that leave files out: of a backup, and the patterns among them of a restore too. */

import { readFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { Failure, messageOf } from "@granary/base/errors";
import { compileExcluder, decodeTextFile, type ExcludeRules, parseExcludeFile, parsePresenceRule } from "@granary/engine";
import { parseSizeBytes } from "../parse-size.ts";
import type { Environment } from "../password.ts";
import { collect } from "./snapshot-filter.ts";

/** As commander leaves them. */
export interface PatternFlags {
  readonly exclude?: readonly string[];
  readonly iexclude?: readonly string[];
  readonly excludeFile?: readonly string[];
  readonly iexcludeFile?: readonly string[];
}

/** As commander leaves them. */
export interface ExcludeFlags extends PatternFlags {
  readonly excludeCaches?: boolean;
  readonly excludeIfPresent?: readonly string[];
  readonly excludeLargerThan?: string;
  readonly oneFileSystem?: boolean;
}

/** Adds `--exclude`, `--iexclude`, `--exclude-file` and `--iexclude-file`. */
export function addPatternOptions(command: Command): void {
  const option = (flags: string, text: string): Option => new Option(flags, text).argParser(collect);
  command.addOption(option("-e, --exclude <pattern>", "leave out what matches the pattern (may be repeated)"));
  command.addOption(option("--iexclude <pattern>", "the same, without regard to upper and lower case"));
  command.addOption(option("--exclude-file <file>", "leave out what matches the patterns in this file, one a line (may be repeated)"));
  command.addOption(option("--iexclude-file <file>", "the same, without regard to upper and lower case"));
}

/** Adds all flags of a backup that leave something out. */
export function addExcludeOptions(command: Command): void {
  addPatternOptions(command);
  command
    .option("--exclude-caches", "leave out what is in folders marked as caches by a CACHEDIR.TAG")
    .addOption(
      new Option(
        "--exclude-if-present <name[:header]>",
        "leave out what is in folders with a file of this name, which begins so (may be repeated)",
      ).argParser(collect),
    )
    .option("--exclude-larger-than <size>", "leave out files above this size; k, m, g or t behind it for KiB and so on")
    .option("-x, --one-file-system", "stay on the file systems of the given folders");
}

/** The patterns that the flags give. @throws InputUnreadable for a file; InvalidArgument for a malformed pattern */
export async function readPatterns(flags: PatternFlags, env: Environment): Promise<Pick<ExcludeRules, "patterns" | "insensitivePatterns">> {
  const rules = {
    patterns: [...(flags.exclude ?? []), ...(await readPatternFiles(flags.excludeFile ?? [], env))],
    insensitivePatterns: [...(flags.iexclude ?? []), ...(await readPatternFiles(flags.iexcludeFile ?? [], env))],
  };
  compileExcluder(rules);
  return rules;
}

/** All that the flags leave out. @throws as {@link readPatterns} */
export async function readExcludes(flags: ExcludeFlags, env: Environment): Promise<ExcludeRules> {
  return {
    ...(await readPatterns(flags, env)),
    ifPresent: (flags.excludeIfPresent ?? []).map(parsePresenceRule),
    caches: flags.excludeCaches === true,
    largerThanBytes: flags.excludeLargerThan === undefined ? 0 : parseSizeBytes(flags.excludeLargerThan, "--exclude-larger-than"),
    oneFileSystem: flags.oneFileSystem === true,
  };
}

async function readPatternFiles(paths: readonly string[], env: Environment): Promise<string[]> {
  const lists: string[][] = [];
  for (const path of paths)
    lists.push(parseExcludeFile(decodeTextFile(await readInput(path, "patterns"))).map((line) => expandVariables(line, env)));
  return lists.flat();
}

/** Reads a file that a flag names; `-` is standard input. @throws InputUnreadable */
export async function readInput(path: string, what: string): Promise<Buffer> {
  try {
    return await readFile(path === "-" ? "/dev/stdin" : path);
  } catch (cause) {
    throw new Failure("InputUnreadable", `Cannot read ${what} from "${path}": ${messageOf(cause)}`, { details: { path }, cause });
  }
}

/** Replaces `$NAME` and `${NAME}` by the environment's values, as restic does in pattern files; `$$` is a dollar sign. */
export function expandVariables(line: string, env: Environment): string {
  return line.replace(/\$(?:\$|\{[^}]*\}|\w+)/g, (found) => (found === "$$" ? "$" : (env[found.replace(/[${}]/g, "")] ?? "")));
}
