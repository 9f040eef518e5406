/** Whether a restored tree is what was backed up. */

import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";

/** How many entries a tree has and how many bytes its files. */
export interface TreeSize {
  readonly files: number;
  readonly folders: number;
  readonly sizeBytes: number;
}

/** Counts what is in a folder, at any depth; the folder itself is counted too. */
export function countTree(folder: string): TreeSize {
  let [files, folders, sizeBytes] = [0, 1, 0];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      const inner = countTree(path);
      files += inner.files;
      folders += inner.folders;
      sizeBytes += inner.sizeBytes;
    } else {
      files += 1;
      sizeBytes += lstatSync(path).size;
    }
  }
  return { files, folders, sizeBytes };
}

const pieceBytes = 4 * 2 ** 20;
const onePiece = Buffer.alloc(pieceBytes);
const otherPiece = Buffer.alloc(pieceBytes);

/**
 * Compares two trees: names, kinds, permissions, owners, times in nanoseconds, sizes, link targets, and every byte.
 *
 * @throws Error naming the first entry that differs, and in what
 */
export function compareTrees(source: string, copy: string): void {
  const fail = (what: string, expected: unknown, found: unknown): never => {
    throw new Error(`${copy} is not what was backed up: ${what} should be ${String(expected)} and is ${String(found)}`);
  };
  const one = lstatSync(source, { bigint: true });
  const other = lstatSync(copy, { bigint: true, throwIfNoEntry: false });
  if (other === undefined) return fail("the entry", "there", "missing");
  for (const field of ["mode", "uid", "gid", "mtimeNs"] as const) if (one[field] !== other[field]) fail(field, one[field], other[field]);
  if (one.isDirectory()) {
    const names = readdirSync(source).sort();
    const otherNames = readdirSync(copy).sort();
    if (names.length !== otherNames.length) fail("the number of entries", names.length, otherNames.length);
    for (const name of names) compareTrees(join(source, name), join(copy, name));
  } else if (one.isSymbolicLink()) {
    if (readlinkSync(source) !== readlinkSync(copy)) fail("the link target", readlinkSync(source), readlinkSync(copy));
  } else {
    if (one.size !== other.size) fail("the size", one.size, other.size);
    const differsAt = findDifference(source, copy);
    if (differsAt !== undefined) fail("the content", "the same", `different near byte ${differsAt}`);
  }
}

/** Where two files of one size begin to differ, to the piece; undefined when they do not. */
function findDifference(source: string, copy: string): number | undefined {
  const one = openSync(source, "r");
  const other = openSync(copy, "r");
  try {
    for (let at = 0; ; ) {
      const length = readSync(one, onePiece, 0, pieceBytes, at);
      const otherLength = readSync(other, otherPiece, 0, pieceBytes, at);
      if (length !== otherLength || onePiece.compare(otherPiece, 0, length, 0, length) !== 0) return at;
      if (length === 0) return undefined;
      at += length;
    }
  } finally {
    closeSync(one);
    closeSync(other);
  }
}

/** Reads every file of a tree once, so that it is in the page cache as far as memory allows. */
export function readTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) readTree(path);
    else if (entry.isFile()) {
      const file = openSync(path, "r");
      while (readSync(file, onePiece) > 0);
      closeSync(file);
    }
  }
}

/** Removes a folder and all that is in it, if it is there. */
export function removeTree(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}
