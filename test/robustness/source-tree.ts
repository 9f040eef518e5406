/** A folder that somebody works in: every step changes something in it, by lot. */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import type { Lot } from "./lot.ts";

/** Above this, as many bytes go as come. */
const mostBytes = 120_000_000;
const mostEntries = 1500;
/** Below this nothing is deleted: a backup refuses sources that have shrunk to a tenth. */
const leastEntries = 150;
const isRoot = process.getuid?.() === 0;
const oddParts = ["ä", " ", "'", '"', "\n", "\\", "日本", "-", "%", "*", "🙂", "a\u0308", "\x7f", "..", "#"];

interface Contents {
  readonly folders: string[];
  readonly files: string[];
  readonly links: string[];
  readonly bytes: number;
}

export class SourceTree {
  readonly folder: string;
  readonly #lot: Lot;
  #names = 0;

  constructor(folder: string, lot: Lot) {
    this.folder = folder;
    this.#lot = lot;
    mkdirSync(folder);
    for (let i = 0; i < 2 * leastEntries; i++) this.#create(this.#look());
  }

  /** Changes something. @returns what, in words */
  change(): string {
    const contents = this.#look();
    const entries = contents.files.length + contents.folders.length + contents.links.length;
    const isFull = contents.bytes > mostBytes || entries > mostEntries;
    const shrink = entries < leastEntries ? 0 : isFull ? 200 : 12;
    return this.#lot.pickWeighted<(contents: Contents) => string>([
      [isFull ? 0 : 25, (now) => this.#create(now)],
      [isFull ? 0 : 4, (now) => this.#createBig(now)],
      [isFull ? 0 : 4, (now) => this.#createSparse(now)],
      [isFull ? 0 : 4, (now) => this.#makeFolder(now)],
      [15, (now) => this.#append(now)],
      [15, (now) => this.#overwrite(now)],
      [4, (now) => this.#overwriteSecretly(now)],
      [5, (now) => this.#truncate(now)],
      [10, (now) => this.#rename(now)],
      [shrink, (now) => this.#delete(now)],
      [8, (now) => this.#chmod(now)],
      [5, (now) => this.#touch(now)],
      [6, (now) => this.#symlink(now)],
      [6, (now) => this.#link(now)],
      [3, (now) => this.#swapKind(now)],
    ])(contents);
  }

  #look(): Contents {
    const contents = { folders: [this.folder], files: [] as string[], links: [] as string[], bytes: 0 };
    for (const entry of readdirSync(this.folder, { recursive: true, withFileTypes: true }).sort((a, b) => compare(pathOf(a), pathOf(b)))) {
      const path = pathOf(entry);
      if (entry.isDirectory()) contents.folders.push(path);
      else if (entry.isSymbolicLink()) contents.links.push(path);
      else {
        contents.files.push(path);
        contents.bytes += statSync(path).blocks * 512;
      }
    }
    return contents;
  }

  #newPath(now: Contents): string {
    const odd = this.#lot.isHeads(0.3) ? this.#lot.pick(oddParts) : "";
    return join(this.#lot.pick(now.folders), `${odd}${this.#names++}${odd}`);
  }

  #size(): number {
    const count = (most: number): number => this.#lot.count(0, most);
    return this.#lot.pickWeighted([
      [1, 0],
      [6, count(2_000)],
      [6, count(100_000)],
      [2, count(1_500_000)],
    ]);
  }

  #create(now: Contents): string {
    if (this.#lot.isHeads(0.1)) return this.#makeFolder(now);
    const path = this.#newPath(now);
    writeFileSync(path, this.#lot.bytes(this.#size()));
    return `create ${path}`;
  }

  #createBig(now: Contents): string {
    const path = this.#newPath(now);
    writeFileSync(path, this.#lot.bytes(this.#lot.count(1_000_000, 20_000_000)));
    return `create big ${path}`;
  }

  #createSparse(now: Contents): string {
    const path = this.#newPath(now);
    const file = openSync(path, "w");
    const sizeBytes = this.#lot.count(1, 20_000_000);
    for (let i = this.#lot.count(0, 4); i > 0; i--) {
      const bytes = this.#lot.bytes(this.#lot.count(1, 100_000));
      writeSync(file, bytes, 0, bytes.length, this.#lot.count(0, sizeBytes));
    }
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    return `create sparse ${path}`;
  }

  #makeFolder(now: Contents): string {
    const path = this.#newPath(now);
    mkdirSync(path);
    return `make folder ${path}`;
  }

  #append(now: Contents): string {
    const path = this.#lot.pick(now.files);
    appendFileSync(path, this.#lot.bytes(this.#size()));
    return `append to ${path}`;
  }

  #overwrite(now: Contents): string {
    const path = this.#lot.pick(now.files);
    const file = openSync(path, "r+");
    const bytes = this.#lot.bytes(this.#lot.count(1, 50_000));
    writeSync(file, bytes, 0, bytes.length, this.#lot.count(0, statSync(path).size));
    closeSync(file);
    return `overwrite part of ${path}`;
  }

  /** Other content of the same size and time: only the change time tells. */
  #overwriteSecretly(now: Contents): string {
    const path = this.#lot.pick(now.files);
    const { size, atimeNs, mtimeNs } = statSync(path, { bigint: true });
    // to the microsecond, as far as Node can set it
    const seconds = Number(mtimeNs / 1_000_000n) / 1000;
    utimesSync(path, Number(atimeNs / 1_000_000n) / 1000, seconds);
    const file = openSync(path, "r+");
    const bytes = this.#lot.bytes(Math.min(Number(size), 10_000));
    writeSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
    utimesSync(path, seconds, seconds);
    return `overwrite ${path} and set its time back`;
  }

  #truncate(now: Contents): string {
    const path = this.#lot.pick(now.files);
    const file = openSync(path, "r+");
    ftruncateSync(file, this.#lot.count(0, statSync(path).size));
    closeSync(file);
    return `truncate ${path}`;
  }

  #rename(now: Contents): string {
    const from = this.#lot.pick([...now.files, ...now.links, ...now.folders.slice(1)]);
    const to = this.#newPath({ ...now, folders: now.folders.filter((folder) => !`${folder}/`.startsWith(`${from}/`)) });
    renameSync(from, to);
    return `rename ${from} to ${to}`;
  }

  #delete(now: Contents): string {
    const small = now.folders.slice(1).filter((folder) => readdirSync(folder, { recursive: true }).length < 20);
    const path = this.#lot.pick(this.#lot.isHeads(0.1) && small.length > 0 ? small : [...now.files, ...now.links]);
    rmSync(path, { recursive: true });
    return `delete ${path}`;
  }

  #chmod(now: Contents): string {
    const path = this.#lot.pick([...now.files, ...now.folders]);
    // others than root must still be able to read it
    const least = isRoot ? 0 : lstatSync(path).isDirectory() ? 0o700 : 0o600;
    const mode = this.#lot.count(0, 0o7777) | least;
    chmodSync(path, mode);
    return `chmod ${mode.toString(8)} ${path}`;
  }

  #touch(now: Contents): string {
    const path = this.#lot.pick([...now.files, ...now.folders]);
    utimesSync(path, this.#lot.count(0, 2_000_000_000), this.#lot.count(-1_000_000, 4_000_000_000) + this.#lot.draw());
    return `touch ${path}`;
  }

  #symlink(now: Contents): string {
    const path = this.#newPath(now);
    const target = this.#lot.isHeads(0.3)
      ? `no/such/${this.#names}`
      : relative(dirname(path), this.#lot.pick([...now.files, ...now.folders]));
    symlinkSync(target === "" ? "." : target, path);
    return `symlink ${path}`;
  }

  #link(now: Contents): string {
    const [from, to] = [this.#lot.pick(now.files), this.#newPath(now)];
    linkSync(from, to);
    return `link ${from} as ${to}`;
  }

  /** A file becomes a folder of the same name, or the other way round. */
  #swapKind(now: Contents): string {
    const empty = now.folders.slice(1).filter((folder) => readdirSync(folder).length === 0);
    const path = this.#lot.pick([...empty, this.#lot.pick(now.files)]);
    const wasFolder = lstatSync(path).isDirectory();
    rmSync(path, { recursive: true });
    if (wasFolder) writeFileSync(path, this.#lot.bytes(100));
    else mkdirSync(path);
    return `make ${path} a ${wasFolder ? "file" : "folder"}`;
  }
}

function pathOf(entry: { readonly parentPath: string; readonly name: string }): string {
  return join(entry.parentPath, entry.name);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
