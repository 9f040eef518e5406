/** Finds which entries of a plan are names of one file, and makes all but one of each links. */
import { action, type EntryTable, fact, flag } from "./entry-table.ts";

/**
 * Settles hard links: of entries that had the same inode and have the same content, the first keeps its content and the others become links
 * to it.
 *
 * @param entries those with the flag `hardLinked`; in the order of the snapshot, as far as possible
 * @returns the entries that became links
 */
export function settleLinks(table: EntryTable, entries: readonly number[]): number[] {
  const primaries = new Map<string, number>();
  const links: number[] = [];
  for (const entry of entries) {
    if (!table.hasFlag(entry, flag.hardLinked)) continue;
    const [identity] = table.factsOf(entry, fact.identity);
    const key = `${table.kindOf(entry)}${identity?.latin1Slice() ?? ""}`;
    const primary = primaries.get(key);
    if (primary === undefined) primaries.set(key, entry);
    else {
      table.setAction(entry, action.link);
      table.setPrimary(entry, primary);
      links.push(entry);
    }
  }
  return links;
}
