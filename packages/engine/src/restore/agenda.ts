/** Divides the entries of a finished plan among the steps in which they are dealt with, and counts them. */
import { action, type EntryTable, flag, kind } from "./entry-table.ts";
import { settleLinks } from "./links.ts";

/** How many entries there are, after links are settled. */
export interface Tally {
  directories: number;
  files: number;
  links: number;
  others: number;
  bytes: number;
  filesToWrite: number;
  filesToReplace: number;
  filesUnchanged: number;
  extras: number;
}

/** What is to be done beside writing pieces, by entry. */
export interface Agenda {
  /** Directories, special files, and files of which no piece is written. */
  readonly toMake: readonly number[];
  readonly toLink: readonly number[];
  readonly toRemove: readonly number[];
  /** Directories by depth, the deepest first: what is done in one changes the time of the one above. */
  readonly toFinish: readonly (readonly number[])[];
  readonly tally: Readonly<Tally>;
}

/** Settles hard links, and goes through all entries. */
export function makeAgenda(table: EntryTable): Agenda {
  const toLink = settleLinks(table, listWith(table, flag.hardLinked));
  const toMake: number[] = [];
  const toRemove: number[] = [];
  const levels: number[][] = [];
  const tally: Tally = {
    directories: 0,
    files: 0,
    links: toLink.length,
    others: 0,
    bytes: 0,
    filesToWrite: 0,
    filesToReplace: 0,
    filesUnchanged: 0,
    extras: 0,
  };
  for (const entry of listNeeded(table)) {
    const what = table.kindOf(entry);
    if (table.actionOf(entry) === action.link) continue;
    if (what === kind.file) {
      countFile(table, entry, tally);
      if (table.piecesLeftOf(entry) === 0) toMake.push(entry);
    } else if (what === kind.extra) {
      tally.extras++;
      toRemove.push(entry);
    } else {
      toMake.push(entry);
      if (what !== kind.directory) tally.others++;
      else {
        tally.directories++;
        const depth = table.depthOf(entry);
        const level = levels[depth];
        if (level === undefined) levels[depth] = [entry];
        else level.push(entry);
      }
    }
  }
  return { toMake, toLink, toRemove, toFinish: levels.filter((level) => level !== undefined).reverse(), tally };
}

/** Entries that are restored or removed. */
export function* listNeeded(table: EntryTable): Generator<number, void, void> {
  const limit = table.entryLimit;
  for (let entry = 1; entry < limit; entry++) {
    if (table.kindOf(entry) !== kind.none && table.hasFlag(entry, flag.needed)) yield entry;
  }
}

function listWith(table: EntryTable, wanted: number): number[] {
  const entries: number[] = [];
  for (const entry of listNeeded(table)) if (table.hasFlag(entry, wanted)) entries.push(entry);
  return entries;
}

function countFile(table: EntryTable, entry: number, tally: Tally): void {
  tally.files++;
  tally.bytes += table.sizeOf(entry);
  const done = table.actionOf(entry);
  if (done === action.refresh) tally.filesUnchanged++;
  else if (done === action.create) tally.filesToWrite++;
  else tally.filesToReplace++;
}
