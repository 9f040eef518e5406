/** Which files a backup is asked for: arguments and lists of them. */

import { existsSync, readdirSync } from "node:fs";
import { Failure } from "@granary/base/errors";
import {
  compilePatterns,
  decodeTextFile,
  fromBytes,
  fromUtf8,
  parseFilesFrom,
  parseFilesFromRaw,
  parseFilesFromVerbatim,
} from "@granary/engine";
import { bytesOfArgument } from "../raw-arguments.ts";
import { readInput } from "./exclude-options.ts";

/** As commander leaves them. */
export interface TargetFlags {
  readonly filesFrom?: readonly string[];
  readonly filesFromVerbatim?: readonly string[];
  readonly filesFromRaw?: readonly string[];
}

/**
 * Everything to back up, raw bytes, in the order: globs of lists, verbatim lists, raw lists, arguments, as restic has it.
 *
 * @param onNoMatch told of a glob that matches nothing
 * @throws InputUnreadable; InvalidArgument for a malformed list, or when there is nothing
 */
export async function readTargets(args: readonly string[], flags: TargetFlags, onNoMatch: (pattern: string) => void): Promise<string[]> {
  const targets: string[] = [];
  for (const path of flags.filesFrom ?? []) {
    for (const pattern of parseFilesFrom(decodeTextFile(await readInput(path, "the list of files")))) {
      const found = expandGlob(pattern);
      if (found.length === 0) onNoMatch(pattern);
      targets.push(...found);
    }
  }
  for (const path of flags.filesFromVerbatim ?? []) {
    targets.push(...parseFilesFromVerbatim(decodeTextFile(await readInput(path, "the list of files"))).map(fromUtf8));
  }
  for (const path of flags.filesFromRaw ?? []) targets.push(...parseFilesFromRaw(await readInput(path, "the list of files")));
  targets.push(...args.map(bytesOfArgument));
  if (targets.length > 0) return targets;
  throw new Failure("InvalidArgument", "Cannot back up nothing: name at least one file or folder, or use --files-from or --stdin");
}

/** The paths that a glob matches, raw bytes, sorted; a glob without special characters is a path that must exist. */
export function expandGlob(pattern: string): string[] {
  let found = [pattern.startsWith("/") ? "/" : ""];
  for (const component of pattern.split("/").filter((part) => part !== "")) {
    found = found.flatMap((folder) => matchIn(folder, component));
  }
  return found;
}

function matchIn(folder: string, component: string): string[] {
  const at = (name: string): string => (folder === "" || folder === "/" ? `${folder}${name}` : `${folder}/${name}`);
  if (!/[*?[\\]/.test(component)) {
    const path = at(fromUtf8(component));
    return existsSync(Buffer.from(path, "latin1")) ? [path] : [];
  }
  const list = compilePatterns([`/${component}`], { insensitive: false });
  return listNames(folder === "" ? "." : folder)
    .filter((name) => list.matches(`/${name}`))
    .map(at);
}

function listNames(folder: string): string[] {
  try {
    return readdirSync(Buffer.from(folder, "latin1"), { encoding: "buffer" }).map(fromBytes).sort();
  } catch {
    return []; // no folder, so nothing in it matches
  }
}
