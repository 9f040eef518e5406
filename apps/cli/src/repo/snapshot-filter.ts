/** The flags that choose snapshots: --host, --tag, --path. */

import { resolve } from "node:path";
import { type Command, Option } from "commander";
import type { SnapshotFilter } from "@granary/engine";

/** As commander leaves them. */
export interface FilterFlags {
  readonly host?: readonly string[];
  readonly tag?: readonly string[];
  readonly path?: readonly string[];
}

/** Collects the values of a flag that may be given several times. */
export function collect(value: string, sofar: readonly string[] | undefined): readonly string[] {
  return [...(sofar ?? []), value];
}

/**
 * Adds the flags.
 *
 * @param when what they apply to, such as `when no snapshot is named`
 * @param hasShortHost whether `-H` means the host, as it does everywhere but in `forget`
 */
export function addFilterOptions(command: Command, when = "", hasShortHost = true): void {
  const only = `only snapshots${when === "" ? "" : `, ${when},`}`;
  command.addOption(new Option(`${hasShortHost ? "-H, " : ""}--host <host>`, `${only} of this host (may be repeated)`).argParser(collect));
  command.addOption(
    new Option("--tag <tags>", `${only} with all of these tags, a,b,c (may be repeated: any of the lists)`).argParser(collect),
  );
  command.addOption(new Option("--path <path>", `${only} of this absolute path (may be repeated: all of them)`).argParser(collect));
}

/** What the flags ask for. */
export function readFilter(flags: FilterFlags): SnapshotFilter & { readonly isFiltered: boolean } {
  const { host = [], tag = [], path = [] } = flags;
  return {
    hosts: host,
    tags: tag.map(splitTags),
    paths: path.map((text) => resolve(text)),
    isFiltered: host.length + tag.length + path.length > 0,
  };
}

/** The tags of a list such as `a,b,c`; the empty text is the list with the empty tag, which stands for having none. */
export function splitTags(text: string): string[] {
  return text.split(",").map((tag) => tag.trim());
}
