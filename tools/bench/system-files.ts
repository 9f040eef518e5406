/** Real files to copy: those of the operating system, which every machine has and which no seed could imitate. */

import { chmodSync, copyFileSync, lstatSync, mkdirSync, readdirSync, utimesSync } from "node:fs";
import { dirname, join } from "node:path";

/** A regular file of this machine. */
export interface SystemFile {
  /** Absolute. */
  readonly path: string;
  readonly sizeBytes: number;
}

/** How many files a copy should have and how big it should be. */
export interface Wanted {
  readonly count: number;
  readonly sizeBytes: number;
  readonly maxFileBytes: number;
}

const systemFolders = ["/usr", "/lib", "/opt"];

/** The regular files of the system folders, folder by folder, sorted by name within each; links and what cannot be listed are left out. */
export function listSystemFiles(folders: readonly string[] = systemFolders): SystemFile[] {
  const found: SystemFile[] = [];
  for (const folder of folders) if (lstatSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) addFiles(folder, found);
  return found;
}

function addFiles(folder: string, found: SystemFile[]): void {
  const entries = readdirSync(folder, { withFileTypes: true }).sort((one, other) => (one.name < other.name ? -1 : 1));
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) addFiles(path, found);
    else if (entry.isFile()) found.push({ path, sizeBytes: lstatSync(path).size });
  }
}

/**
 * The first `count` files in the order given, so chosen that they make about `sizeBytes`: when they would make less, the smallest are
 * passed over, as few as possible; when they would make more, the biggest. All there is when there is not enough.
 */
export function selectFiles(files: readonly SystemFile[], wanted: Wanted): SystemFile[] {
  const take = (least: number, most: number): SystemFile[] => {
    const taken: SystemFile[] = [];
    for (const file of files) {
      if (taken.length === wanted.count) break;
      if (file.sizeBytes >= least && file.sizeBytes <= most) taken.push(file);
    }
    return taken;
  };
  let best = take(0, wanted.maxFileBytes);
  if (sumSizes(best) > wanted.sizeBytes) {
    for (let most = wanted.maxFileBytes; sumSizes(best) > wanted.sizeBytes * 1.1 && most >= 4096; most *= 0.9) best = take(0, most);
    return best;
  }
  for (let least = 256; sumSizes(best) < wanted.sizeBytes && least < wanted.maxFileBytes; least += 256) {
    const taken = take(least, wanted.maxFileBytes);
    if (taken.length < best.length) break;
    best = taken;
  }
  return best;
}

/** The first files in the order given that together make `sizeBytes`, passing over those above `maxFileBytes`. */
export function takeBytes(files: readonly SystemFile[], { sizeBytes, maxFileBytes }: Omit<Wanted, "count">): SystemFile[] {
  const taken: SystemFile[] = [];
  let sum = 0;
  for (const file of files) {
    if (sum >= sizeBytes) break;
    if (file.sizeBytes > maxFileBytes) continue;
    taken.push(file);
    sum += file.sizeBytes;
  }
  return taken;
}

/** The sum of the sizes of files. */
export function sumSizes(files: readonly SystemFile[]): number {
  return files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

/** Copies files, with their times and plain permission bits, to the same paths below `target`. */
export function copyFiles(files: readonly SystemFile[], target: string): void {
  const made = new Set<string>();
  for (const { path } of files) {
    const copy = join(target, path);
    const folder = dirname(copy);
    if (!made.has(folder)) mkdirSync(folder, { recursive: true });
    made.add(folder);
    copyFileSync(path, copy);
    const { mode, atime, mtime } = lstatSync(path);
    chmodSync(copy, (mode & 0o755) | 0o600);
    utimesSync(copy, atime, mtime);
  }
}
