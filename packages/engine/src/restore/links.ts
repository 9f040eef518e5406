/** Finds which entries of a plan are names of one file, and makes all but one of each links. */
import { action, type EntryTable, fact } from "./entry-table.ts";

/**
 * Settles hard links: of entries that had the same inode and have the same content, one keeps its content and the others become links to it;
 * one that is in the target already, if there is such, else the first.
 *
 * @param entries those with the flag `hardLinked`; in the order of the snapshot, as far as possible
 * @returns the entries that became links
 */
export function settleLinks(table: EntryTable, entries: readonly number[]): number[] {
  const groups = new Map<string, number[]>();
  for (const entry of entries) {
    const [identity] = table.factsOf(entry, fact.identity);
    const key = `${table.kindOf(entry)}${identity?.latin1Slice() ?? ""}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [entry]);
    else group.push(entry);
  }
  const links: number[] = [];
  for (const group of groups.values()) {
    const primary =
      group.find((entry) => table.actionOf(entry) === action.refresh) ??
      group.find((entry) => table.actionOf(entry) === action.update) ??
      group[0];
    for (const entry of group) {
      if (entry === primary || primary === undefined) continue;
      table.setAction(entry, action.link);
      table.setPrimary(entry, primary);
      links.push(entry);
    }
  }
  return links;
}
