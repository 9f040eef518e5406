/** A folder to which random things happen: files come, grow, shrink, move and go, with links, attributes and odd names among them. */
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { writeAttribute } from "../src/native/libc.ts";
import { fillBytes, isRoot, makeSparse, setTimes } from "./sample-tree.ts";

/** Numbers of a fixed sequence: the same seed, the same numbers. */
export class RandomNumbers {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 to below 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 to below `count`. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  /** One of the choices, each as likely as its weight says. */
  weigh<T>(choices: readonly (readonly [weight: number, choice: T])[]): T {
    let left = this.next() * choices.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, choice] of choices) if ((left -= weight) < 0) return choice;
    return this.pick(choices)[1];
  }
}

const largestTreeBytes = 40 << 20;
const mostEntries = 300;
const namePieces = [
  "file",
  "Datei ä",
  "with space",
  "nl\nnl",
  "quote\"'",
  "back\\slash",
  "\xff\xfe raw",
  "long ".repeat(40),
  ".hidden",
  "*?[]",
];

export class RandomTree {
  readonly #folder: string;
  readonly #random: RandomNumbers;
  #made = 0;

  constructor(folder: string, random: RandomNumbers) {
    this.#folder = folder;
    this.#random = random;
  }

  /** Does one thing to the folder. @returns what */
  change(): string {
    const random = this.#random;
    const folders = this.#list("dir");
    const files = this.#list("file");
    const isFull =
      folders.length + files.length > mostEntries ||
      files.reduce((sum, file) => sum + Math.min(statSync(file).size, 9e6), 0) > largestTreeBytes;
    const act = files.length < 5 ? "create" : isFull ? "remove" : random.weigh(this.#acts);
    const file = files.length > 0 ? random.pick(files) : Buffer.from(this.#folder);
    const into = random.pick(folders);
    switch (act) {
      case "create":
        writeFileSync(this.#newIn(into), this.#content());
        break;
      case "append":
        appendFileSync(file, this.#content().subarray(0, 1 << 20));
        break;
      case "overwrite":
        writeFileSync(file, this.#content());
        break;
      case "patch":
        this.#patch(file);
        break;
      case "truncate":
        truncateSync(file, random.below(statSync(file).size + 1));
        break;
      case "rename":
        renameSync(file, this.#newIn(into));
        break;
      case "remove":
        rmSync(file);
        if (isFull) for (const other of files) if (random.next() < 0.3) rmSync(other, { force: true });
        break;
      case "folder":
        mkdirSync(this.#newIn(into));
        break;
      case "remove folder":
        if (into.latin1Slice() !== this.#folder) rmSync(into, { recursive: true });
        break;
      case "move folder":
        this.#moveFolder(folders);
        break;
      case "link":
        symlinkSync(random.pick(["nowhere", "../up", "/etc/passwd", "t".repeat(300)]), this.#newIn(into));
        break;
      case "hard link":
        linkSync(file, this.#newIn(into));
        break;
      case "sparse":
        this.#sparse(into);
        break;
      case "mode":
        chmodSync(random.pick([file, into]), random.pick([0o700, 0o755, 0o640, 0o4711, 0o1777, 0o2750]));
        break;
      case "owner":
        if (isRoot) chownSync(file, random.below(3000), random.below(3000));
        break;
      case "times":
        setTimes(file.latin1Slice(), random.below(4e9) - 1e9, random.below(1e9));
        break;
      case "attribute":
        writeAttribute(file.latin1Slice(), `user.a${random.below(3)}`, Buffer.from(`v${random.below(1e6)}`));
        break;
      case "kind":
        rmSync(file);
        mkdirSync(file);
        break;
    }
    return act;
  }

  readonly #acts: readonly (readonly [number, string])[] = [
    [14, "create"],
    [6, "append"],
    [6, "overwrite"],
    [6, "patch"],
    [3, "truncate"],
    [6, "rename"],
    [5, "remove"],
    [5, "folder"],
    [1, "remove folder"],
    [2, "move folder"],
    [2, "link"],
    [2, "hard link"],
    [2, "sparse"],
    [3, "mode"],
    [1, "owner"],
    [2, "times"],
    [1, "attribute"],
    [1, "kind"],
  ];

  /** Paths as bytes, the folder itself among the folders. */
  #list(type: "dir" | "file"): Buffer[] {
    const found: Buffer[] = type === "dir" ? [Buffer.from(this.#folder)] : [];
    const visit = (path: Buffer): void => {
      for (const entry of readdirSync(path, { encoding: "buffer", withFileTypes: true })) {
        const full = Buffer.concat([path, Buffer.from("/"), entry.name]);
        if (entry.isDirectory()) {
          if (type === "dir") found.push(full);
          visit(full);
        } else if (type === "file" && entry.isFile()) found.push(full);
      }
    };
    visit(Buffer.from(this.#folder));
    return found.sort((a, b) => Buffer.compare(a, b));
  }

  #newIn(folder: Buffer): Buffer {
    const name = `${this.#random.pick(namePieces)} ${this.#made++}`;
    return Buffer.concat([folder, Buffer.from(`/${name}`, "latin1")]);
  }

  #content(): Buffer {
    const random = this.#random;
    const sizeBytes = random.weigh<() => number>([
      [1, () => 0],
      [6, () => random.below(2000)],
      [5, () => random.below(100_000)],
      [3, () => 400_000 + random.below(300_000)],
      [1, () => random.below(9_000_000)],
    ])();
    if (random.next() < 0.3) return Buffer.alloc(sizeBytes, `${random.below(5)} text that repeats `);
    // From a few sources, so that parts of files are parts of others too.
    return fillBytes(sizeBytes, `${random.below(20)}`);
  }

  #patch(path: Buffer): void {
    const { size } = statSync(path);
    const file = openSync(path, "r+");
    for (let at = 0; at < 3; at++) writeSync(file, fillBytes(1000, `${this.#random.below(1e9)}`), 0, 1000, this.#random.below(size + 1));
    closeSync(file);
  }

  #moveFolder(folders: readonly Buffer[]): void {
    const from = this.#random.pick(folders).latin1Slice();
    const into = this.#random.pick(folders).latin1Slice();
    if (from === this.#folder || `${into}/`.startsWith(`${from}/`)) return;
    renameSync(Buffer.from(from, "latin1"), this.#newIn(Buffer.from(into, "latin1")));
  }

  #sparse(folder: Buffer): void {
    const random = this.#random;
    const plain = `${this.#folder}/sparse`;
    makeSparse(plain, random.below(20 << 20), [[random.below(5 << 20), random.below(100_000)]]);
    renameSync(plain, this.#newIn(folder));
  }
}
