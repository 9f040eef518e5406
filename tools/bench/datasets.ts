/**
 * The data that is backed up. Each set is made once in the work folder and reused while its seed and scale stay the same; each repeat
 * changes one per cent of it, the same for all programs. What a change writes depends on a generation counted beside the data, so that
 * no change writes what is there already, not even after an interrupted run.
 *
 * The last file written, in each set and after each change, is a small one named `newest`: borg reads the newest file of a backup again
 * the next time, and so it has to read only this.
 */

import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { openSeededBytes, type SeededBytes } from "./seeded-bytes.ts";
import { openSeededText } from "./seeded-text.ts";
import { copyFiles, listSystemFiles, selectFiles, sumSizes, takeBytes } from "./system-files.ts";
import { countTree, readTree, removeTree } from "./tree-compare.ts";
import type { DatasetFacts, DatasetKey } from "./vocabulary.ts";

/** A data set on the disk. */
export interface Dataset {
  readonly key: DatasetKey;
  readonly facts: DatasetFacts;
  /** What is backed up. */
  readonly folder: string;
  /** A third of it; (d) only. */
  readonly partFolder: string;
  /** Changes one per cent. */
  change(): void;
  /** Reads everything once. */
  warm(): void;
}

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;
const seed = "granary bench 1";
const systemFileBytesMax = 4 * mebibyte;
const imageFileBytesMax = 64 * mebibyte;
/** The block that a change overwrites: in (b) about as big as a chunk; in (c) a run of a file system's writes. */
const largeFileBlockBytes = mebibyte;
const imageBlockBytes = 256 * 1024;
const filesPerFolder = 1000;
/** Fixed, so that the image depends on its files alone. */
const imageUuid = "6b1f1d7e-0d3c-4a49-9a3e-5a1f4b0c2d11";

interface Recipe {
  readonly title: string;
  readonly change: string;
  make(folder: string, scale: number): void;
  /** @param random decides what is changed, and to what; another one for each generation */
  changeOnePercent(folder: string, random: SeededBytes): void;
}

const recipes: Readonly<Record<DatasetKey, Recipe>> = {
  a: {
    title: "small files, copies of system folders",
    change: "up to 64 bytes within 1 % of the files",
    make(folder, scale) {
      const wanted = { count: Math.round(50_000 * scale), sizeBytes: 1.5e9 * scale, maxFileBytes: systemFileBytesMax };
      const files = selectFiles(listSystemFiles(), wanted);
      if (files.length < wanted.count || sumSizes(files) < wanted.sizeBytes * 0.9)
        console.log(`bench: this machine has fewer files to copy than wanted: ${files.length}, ${Math.round(sumSizes(files) / 1e6)} MB`);
      copyFiles(files, folder);
    },
    changeOnePercent: changeFiles,
  },
  b: {
    title: "two large files, one random and one like text",
    change: "1 % of the blocks of 1 MiB, in place",
    make(folder, scale) {
      const random = openSeededBytes(`${seed} random file`);
      const text = openSeededText(`${seed} text file`);
      writeFile(join(folder, "random.bin"), gibibyte * scale, random);
      writeFile(join(folder, "text.log"), gibibyte * scale, text);
    },
    changeOnePercent(folder, random) {
      const text = openSeededText(String(random.nextBelow(2 ** 32)));
      overwriteBlocks(join(folder, "random.bin"), { random, source: random, blockBytes: largeFileBlockBytes });
      overwriteBlocks(join(folder, "text.log"), { random, source: text, blockBytes: largeFileBlockBytes });
    },
  },
  c: {
    title: "a sparse disk image with an ext4 file system",
    change: "1 % of the blocks of 256 KiB that hold data, in place",
    make: makeImage,
    changeOnePercent(folder, random) {
      const source = openSeededText(String(random.nextBelow(2 ** 32)));
      overwriteBlocks(join(folder, "disk.img"), { random, source, blockBytes: imageBlockBytes });
    },
  },
  d: {
    title: "tiny files of 20 to 600 bytes, 1,000 in each folder",
    change: "up to 64 bytes within 1 % of the files",
    make(folder, scale) {
      const folders = Math.max(3, Math.round(300 * scale));
      const random = openSeededBytes(`${seed} sizes`);
      const text = openSeededText(`${seed} tiny files`);
      for (let number = 0; number < folders; number += 1) {
        const place = join(folder, number < folders / 3 ? "first" : "rest", String(number).padStart(3, "0"));
        mkdirSync(place, { recursive: true });
        for (let file = 0; file < filesPerFolder; file += 1) {
          const content = Buffer.alloc(20 + random.nextBelow(581));
          text.fill(content);
          content.write(`${number}/${file}`, "latin1"); // no two files are the same
          writeFileSync(join(place, `record-${String(file).padStart(3, "0")}.txt`), content);
        }
      }
    },
    changeOnePercent: changeFiles,
  },
};

/** What the folder of a data set remembers of it, beside the data. */
interface Memory {
  readonly seed: string;
  readonly scale: number;
  readonly facts: DatasetFacts;
  readonly generation: number;
}

/** Makes a data set under `workFolder`, or takes the one an earlier run left there. */
export function openDataset(key: DatasetKey, workFolder: string, scale: number): Dataset {
  const home = join(workFolder, "datasets", key);
  const folder = join(home, "data");
  const memoryPath = join(home, "dataset.json");
  const recipe = recipes[key];
  let memory = readMemory(memoryPath);
  if (memory?.seed !== seed || memory.scale !== scale) {
    console.log(`bench: making (${key}) ${recipe.title}`);
    removeTree(home);
    mkdirSync(folder, { recursive: true });
    recipe.make(folder, scale);
    memory = { seed, scale, generation: 0, facts: describe(recipe, folder) };
    writeNewest(folder, 0);
    writeMemory(memoryPath, memory);
  }
  let { generation } = memory;
  const { facts } = memory;
  return {
    key,
    facts,
    folder,
    partFolder: join(folder, "first"),
    change() {
      generation += 1;
      writeMemory(memoryPath, { seed, scale, facts, generation });
      recipe.changeOnePercent(folder, openSeededBytes(`${seed} change ${key} ${generation}`));
      writeNewest(folder, generation);
    },
    warm: () => readTree(folder),
  };
}

function describe({ title, change }: Recipe, folder: string): DatasetFacts {
  const { files, folders, sizeBytes } = countTree(folder);
  const facts = { title, change, files, folders, sizeBytes };
  if (!readdirSync(folder).includes("first")) return facts;
  const part = countTree(join(folder, "first"));
  return { ...facts, partEntries: part.files + part.folders };
}

function readMemory(path: string): Memory | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Memory; // written below, by this version or one with another seed
  } catch {
    return undefined;
  }
}

function writeMemory(path: string, memory: Memory): void {
  writeFileSync(`${path}.new`, JSON.stringify(memory));
  renameSync(`${path}.new`, path);
}

function writeNewest(folder: string, generation: number): void {
  // The kernel's clock for file times ticks every few milliseconds; this file must be newer than all others by a tick.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  writeFileSync(join(folder, "newest"), `${generation}\n`);
}

function writeFile(path: string, sizeBytes: number, source: { fill(target: Buffer): void }): void {
  const piece = Buffer.alloc(mebibyte);
  const file = openSync(path, "w");
  for (let done = 0; done < sizeBytes; done += piece.length) {
    source.fill(piece);
    writeSync(file, piece);
  }
  closeSync(file);
}

function makeImage(folder: string, scale: number): void {
  const content = join(folder, "../image-content");
  copyFiles(takeBytes(listSystemFiles(), { sizeBytes: 600e6 * scale, maxFileBytes: imageFileBytesMax }), content);
  const image = join(folder, "disk.img");
  const file = openSync(image, "w");
  ftruncateSync(file, Math.ceil((4 * gibibyte * scale) / mebibyte) * mebibyte);
  closeSync(file);
  const options = ["-q", "-F", "-U", imageUuid, "-E", `hash_seed=${imageUuid}`, "-d", content];
  const made = spawnSync("mkfs.ext4", [...options, image], { encoding: "utf8" });
  if (made.status !== 0) throw new Error(`Cannot make a file system in ${image}: mkfs.ext4 says ${made.stderr}`);
  removeTree(content);
}

function changeFiles(folder: string, random: SeededBytes): void {
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== "newest")
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  for (const path of pickSome(paths, Math.ceil(paths.length / 100), random)) {
    const content = readFileSync(path);
    const start = random.nextBelow(Math.max(1, content.length - 64));
    random.fill(content.subarray(start, start + 64));
    writeFileSync(path, content.length === 0 ? "no longer empty\n" : content);
  }
}

/** Overwrites 1 % of the blocks that hold data, at least one. */
function overwriteBlocks(
  path: string,
  { random, source, blockBytes }: { random: SeededBytes; source: { fill(target: Buffer): void }; blockBytes: number },
): void {
  const file = openSync(path, "r+");
  const block = Buffer.alloc(blockBytes);
  const zeros = Buffer.alloc(blockBytes);
  const withData: number[] = [];
  for (let number = 0; readSync(file, block, 0, blockBytes, number * blockBytes) === blockBytes; number += 1)
    if (!block.equals(zeros)) withData.push(number);
  for (const number of pickSome(withData, Math.ceil(withData.length / 100), random)) {
    source.fill(block);
    writeSync(file, block, 0, blockBytes, number * blockBytes);
  }
  closeSync(file);
}

/** `count` different members of a list, or all when it has fewer; the first steps of a Fisher-Yates shuffle. */
export function pickSome<T>(list: readonly T[], count: number, random: SeededBytes): T[] {
  const order = Uint32Array.from(list.keys());
  const last = Math.min(count, list.length);
  for (let at = 0; at < last; at += 1) {
    const other = at + random.nextBelow(order.length - at);
    [order[at], order[other]] = [order[other] ?? 0, order[at] ?? 0];
  }
  return Array.from(order.subarray(0, last), (index) => list.slice(index, index + 1)).flat();
}
