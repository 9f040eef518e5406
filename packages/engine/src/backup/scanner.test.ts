/** Scanners in this thread, several of them, with work shared as often as possible and in any order: whatever happens, the tree is the same. */
import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { fillBytes } from "../../test/sample-tree.ts";
import { createGearCutter, deriveGearTable } from "../chunk/gear.ts";
import type { Cutter } from "../chunk/cutter.ts";
import { Sealer } from "../crypto/seal.ts";
import { hexOf } from "../format/ids.ts";
import { parseHeader } from "../format/pack.ts";
import { parsePackId } from "../format/ids.ts";
import { FileStatus, writeAttribute } from "../native/libc.ts";
import { parseNode } from "../format/parse-node.ts";
import { scanTree } from "../format/tree.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { BlobReader } from "../repository/blob-reader.ts";
import { type FinishedPack, PackBuilder } from "../repository/pack-builder.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import { noExcludes } from "../selection/exclude.ts";
import { Counters } from "./counters.ts";
import { FileSaver } from "./file-saver.ts";
import { Frames } from "./frames.ts";
import type { BackupTrouble, Task } from "./messages.ts";
import { ParentNodes } from "./parent-nodes.ts";
import { Scanner } from "./scanner.ts";

const key = { encrypt: Buffer.alloc(32, 1), macK: Buffer.alloc(16, 2), macR: Buffer.alloc(16, 3) };
const sizes = { minBytes: 64, normalBytes: 256, maxBytes: 1024 };

interface GangOptions {
  readonly scanners: number;
  /** How many are said to be idle at any time. */
  readonly hunger: number;
  /** Which of `count` choices is taken next. */
  readonly choose: (count: number) => number;
  readonly cutter?: Cutter;
  /** Called now and then while a large file is read. */
  readonly onBreath?: () => void;
}

/** Scanners with the repository they fill, and the main thread's part. */
class Gang {
  readonly troubles: BackupTrouble[] = [];
  readonly packs = new Map<string, Buffer>();
  tasksShared = 0;
  readonly #index = new BlobIndex();
  readonly #hunger = new Int32Array(2);
  readonly #queue: Task[] = [];
  readonly #scanners: Scanner[] = [];
  readonly #builders: PackBuilder[] = [];
  readonly #frames = new Frames({ onTree: (into, tree, directory) => this.#queue.push({ kind: "tree", into, tree, directory }) });
  readonly #options: GangOptions;
  readonly #reader: BlobReader;
  #root: Uint8Array | undefined;

  constructor(options: GangOptions) {
    this.#options = options;
    this.#reader = new BlobReader(
      this.#index,
      {
        read: (packId, offset, target) => target.set(this.packs.get(hexOf(packId))?.subarray(offset, offset + target.length) ?? []),
        close: () => undefined,
      },
      new Sealer(key),
    );
    for (let worker = 0; worker < options.scanners; worker++) this.#addScanner(worker);
  }

  #addScanner(worker: number): void {
    const buffers = PackBuffers.create(4, 1 << 20);
    const counters = Counters.create(worker + 1);
    const sealer = new Sealer(key);
    const createBuilder = (type: "data" | "tree"): PackBuilder => {
      const builder = new PackBuilder({ type, sealer, buffers, targetBytes: 100_000, level: 1, emit: (pack) => this.#keep(pack, buffers) });
      this.#builders.push(builder);
      return builder;
    };
    const files: FileSaver = new FileSaver(
      {
        cutter: this.#options.cutter ?? createGearCutter(deriveGearTable(Buffer.alloc(32, 9)), sizes),
        index: this.#index,
        packs: createBuilder("data"),
        counters,
        breathe: () => {
          this.#options.onBreath?.();
          scanner.feed(true);
        },
        isWorkWanted: () => scanner.isExtentWanted(),
        share: (extent) => scanner.shareExtent(extent),
      },
      new FileStatus(),
    );
    const scanner: Scanner = new Scanner({
      worker,
      index: this.#index,
      reader: this.#reader,
      trees: createBuilder("tree"),
      files,
      counters,
      hunger: this.#hunger,
      excludes: noExcludes,
      targets: [],
      withAtime: false,
      ignoreCtime: false,
      ignoreInode: false,
      offload: (task) => {
        this.tasksShared++;
        this.#queue.push(task);
      },
      postFrame: (frame) => this.#frames.add(frame),
      postDone: (into, nodes) => this.#deliver(into, nodes),
      report: (trouble) => this.troubles.push(trouble),
    });
    this.#scanners.push(scanner);
  }

  #deliver(into: { frame: number; hole: number }, nodes: Uint8Array): void {
    if (into.frame === -1) this.#root = nodes;
    else this.#frames.deliver(into, nodes);
  }

  #keep(pack: FinishedPack, buffers: PackBuffers): void {
    const bytes = Buffer.from(pack.own ?? buffers.bytes(pack.buffer).subarray(0, pack.sizeBytes));
    if (pack.buffer >= 0) buffers.release(pack.buffer);
    this.packs.set(hexOf(pack.id), bytes);
    const number = this.#index.addPack(pack.id);
    for (const entry of parseHeader(pack.header, { id: parsePackId(hexOf(pack.id)), sizeBytes: pack.sizeBytes }).entries()) {
      const found = this.#index.find(entry.id, 0, entry.type === "tree");
      this.#index.place(found, { ...entry, pack: number, isTree: entry.type === "tree" });
    }
  }

  /** Goes through the entries of a folder. @returns the id of its tree */
  run(path: string, names: readonly string[], parentNodes?: Uint8Array): string {
    this.#root = undefined;
    this.#frames.add({ kind: "frame", id: 0, into: { frame: -1, hole: 0 }, parts: [1], directory: { head: new Uint8Array(0) } });
    const nodes = parentNodes === undefined ? {} : { parentNodes };
    this.#queue.push({
      kind: "slice",
      into: { frame: 0, hole: 1 },
      path,
      names: [...names].sort(),
      directories: names,
      ...nodes,
      fileSystem: 0n,
    });
    for (let rounds = 0; this.#queue.length > 0; rounds++) {
      assert.ok(rounds < 100_000, "work is shared without end");
      const [task] = this.#queue.splice(this.#options.choose(this.#queue.length), 1);
      const scanner = this.#scanners[this.#options.choose(this.#scanners.length)];
      this.#hunger[0] = this.#options.hunger;
      if (task === undefined || scanner === undefined) throw new Error("nothing chosen");
      if (task.kind === "slice") scanner.runSlice(task);
      else if (task.kind === "tree") this.#deliver(task.into, scanner.saveTree(task.tree, task.directory));
      else if (task.kind === "extent") this.#deliver(task.into, scanner.saveExtent(task));
    }
    this.#frames.assertEmpty();
    for (const builder of this.#builders) builder.finish();
    assert.ok(this.#root !== undefined);
    return hexOf(this.#root);
  }

  /** What a file of the tree holds. */
  readFile(tree: string, path: string): Buffer {
    const [name = "", ...rest] = path.split("/");
    const bytes = Buffer.from(this.#reader.read(Buffer.from(tree, "hex")));
    const found: Buffer[] = [];
    scanTree(bytes, (visited, start, end) => {
      if (visited !== name) return;
      const node = parseNode(bytes, start, end);
      if (node.subtree !== null) found.push(this.readFile(hexOf(node.subtree), rest.join("/")));
      else if (node.content !== null) {
        for (let at = 0; at < node.content.length; at += 32) found.push(Buffer.from(this.#reader.read(node.content.subarray(at, at + 32))));
        assert.equal(Buffer.concat(found).length, node.size);
      }
    });
    return Buffer.concat(found);
  }

  subtreeOf(tree: string, name: string): string {
    const nodes = new ParentNodes(this.readTree(tree));
    assert.ok(nodes.seek(name));
    return hexOf(nodes.findSubtree() ?? Buffer.alloc(32));
  }

  readTree(tree: string): Buffer {
    return Buffer.from(this.#reader.read(Buffer.from(tree, "hex")));
  }
}

class Folder {
  readonly path: string = mkdtempSync(join(tmpdir(), "granary-scanner-"));

  at(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

const alone: GangOptions = { scanners: 1, hunger: 0, choose: () => 0 };

/** A number of each level of a tree: how many files, links and folders each folder has. */
interface Shape {
  readonly files: readonly number[];
  readonly folders: readonly Shape[];
}

function makeShape(folder: string, { files, folders }: Shape): void {
  files.forEach((sizeBytes, at) => writeFileSync(join(folder, `file ${at}`), fillBytes(sizeBytes, `${sizeBytes} ${at % 3}`)));
  if (files.length > 3) symlinkSync("file 0", join(folder, "link"));
  folders.forEach((below, at) => {
    mkdirSync(join(folder, `${at % 2 === 0 ? "a" : "x"} folder ${at}`));
    makeShape(join(folder, `${at % 2 === 0 ? "a" : "x"} folder ${at}`), below);
  });
}

function shapeOf(depth: number): fc.Arbitrary<Shape> {
  const files = fc.array(fc.constantFrom(0, 1, 63, 64, 65, 300, 5000, 40_000), { maxLength: 80 });
  return fc.record({ files, folders: depth === 0 ? fc.constant([]) : fc.array(shapeOf(depth - 1), { maxLength: 4 }) });
}

test("work that is shared as often as possible, done by anyone in any order, makes the same tree, with and without a parent", () => {
  fc.assert(
    fc.property(
      shapeOf(3),
      fc.record({ scanners: fc.integer({ min: 1, max: 5 }), hunger: fc.integer({ min: 1, max: 4 }) }),
      fc.infiniteStream(fc.nat()),
      (shape, { scanners, hunger }, choices) => {
        using folder = new Folder();
        makeShape(folder.path, shape);
        const names = [...Array.from(shape.files.keys(), (at) => `file ${at}`), ...(shape.files.length > 3 ? ["link"] : [])];
        names.push(...Array.from(shape.folders.keys(), (at) => `${at % 2 === 0 ? "a" : "x"} folder ${at}`));
        const expected = new Gang(alone).run(folder.path, names);
        const choose = (count: number): number => (choices.next().value ?? 0) % count;
        const gang = new Gang({ scanners, hunger, choose });
        assert.equal(gang.run(folder.path, names), expected);
        assert.deepEqual(gang.troubles, []);
        const shared = gang.tasksShared;
        if (shape.folders.length > 1) assert.ok(shared > 0, "nothing was shared");
        assert.equal(gang.run(folder.path, names, gang.readTree(expected)), expected);
      },
    ),
    { seed: 4, numRuns: 40 },
  );
});

test("a large file that others read parts of has the same content", () => {
  using folder = new Folder();
  const content = fillBytes(70 << 20, "shared");
  writeFileSync(folder.at("large"), content);
  const cutter = createGearCutter(deriveGearTable(Buffer.alloc(32, 9)));
  const expected = new Gang({ ...alone, cutter }).run(folder.path, ["large"]);
  let turn = 0;
  const gang = new Gang({ scanners: 3, hunger: 100, choose: (count) => turn++ % count, cutter });
  assert.equal(gang.run(folder.path, ["large"]), expected);
  assert.ok(gang.tasksShared > 3, `${gang.tasksShared} parts shared`);
  assert.ok(gang.readFile(expected, "large").equals(content));
});

test("names that are gone, or are folders and files no longer, are told and left out; the others are saved", () => {
  using folder = new Folder();
  writeFileSync(folder.at("a"), "a");
  writeFileSync(folder.at("z"), "z");
  const gang = new Gang(alone);
  const tree = gang.run(folder.path, ["a", "gone", "z"]);
  assert.deepEqual(
    gang.troubles.map(({ path, reason }) => [path, reason]),
    [[folder.at("gone"), "vanished"]],
  );
  assert.equal(gang.readFile(tree, "a").toString() + gang.readFile(tree, "z").toString(), "az");
  const nowhere = new Gang(alone);
  nowhere.run(folder.at("nowhere"), ["a"]);
  assert.deepEqual(
    nowhere.troubles.map(({ path, reason }) => [path, reason]),
    [[folder.at("nowhere"), "vanished"]],
  );
});

/** Runs `change` in the midst of reading a large file. @returns what was saved of it, and what was told */
function saveWhile(change: (path: string) => void, hunger = 0): { saved: Buffer; reasons: string[]; before: Buffer } {
  using folder = new Folder();
  const path = folder.at("large");
  const before = fillBytes(40 << 20, "changing");
  writeFileSync(path, before);
  let breaths = 0;
  const cutter = createGearCutter(deriveGearTable(Buffer.alloc(32, 9)));
  const onBreath = (): void => {
    if (breaths++ === 1) change(path);
  };
  const gang = new Gang({ scanners: 2, hunger, choose: (count) => count - 1, cutter, onBreath });
  const tree = gang.run(folder.path, ["large"]);
  assert.ok(breaths > 1);
  return { saved: gang.readFile(tree, "large"), reasons: gang.troubles.map(({ reason }) => reason), before };
}

for (const [hunger, how] of [
  [0, "alone"],
  [50, "with others"],
] as const) {
  test(`a file that grows while it is read (${how}) is saved up to the size it had, and told`, () => {
    const { saved, reasons, before } = saveWhile((path) => appendFileSync(path, "more"), hunger);
    assert.ok(saved.equals(before));
    assert.equal(reasons[0], "changed");
  });

  test(`a file that is cut short while it is read (${how}) is saved with the size that its node says, and told`, () => {
    const { saved, reasons, before } = saveWhile((path) => truncateSync(path, 20 << 20), hunger);
    assert.ok(saved.subarray(0, 16 << 20).equals(before.subarray(0, 16 << 20)));
    assert.ok(saved.length <= before.length);
    assert.ok(saved.subarray(20 << 20).every((byte) => byte === 0));
    assert.equal(reasons[0], "changed");
  });

  test(`a file that is removed while it is read (${how}) is saved whole, for it is open, and told`, () => {
    const { saved, reasons, before } = saveWhile((path) => unlinkSync(path), hunger);
    assert.ok(saved.equals(before));
    assert.equal(reasons[0], "changed");
  });

  test(`a file in whose place another is put while it is read (${how}) is saved as it was, and told`, () => {
    const { saved, reasons, before } = saveWhile((path) => {
      writeFileSync(`${path}.new`, Buffer.alloc(40 << 20, "secret"));
      renameSync(`${path}.new`, path);
    }, hunger);
    assert.ok(saved.equals(before));
    assert.equal(reasons[0], "changed");
  });
}

test("a folder in whose place another is put before its second half is read is saved as it was", () => {
  using folder = new Folder();
  mkdirSync(folder.at("a"));
  for (let at = 0; at < 200; at++) writeFileSync(folder.at(`a/${String(at).padStart(3, "0")}`), "own");
  writeFileSync(folder.at("a/000"), fillBytes(20 << 20, "first"));
  assert.equal(writeAttribute(folder.at("a/151"), "user.kept", Buffer.from("kept")), 0);
  const cutter = createGearCutter(deriveGearTable(Buffer.alloc(32, 9)));
  let isDone = false;
  const gang = new Gang({
    scanners: 2,
    hunger: 1,
    choose: (count) => count - 1,
    cutter,
    onBreath: () => {
      if (isDone) return;
      isDone = true;
      renameSync(folder.at("a"), folder.at("b"));
      mkdirSync(folder.at("a"));
      for (let at = 0; at < 200; at += 3) writeFileSync(folder.at(`a/${String(at).padStart(3, "0")}`), "another's");
    },
  });
  const tree = gang.run(folder.path, ["a"]);
  assert.ok(isDone);
  assert.ok(gang.tasksShared > 0);
  for (const name of ["001", "100", "199"]) assert.equal(gang.readFile(tree, `a/${name}`).toString(), "own");
  assert.match(gang.readTree(gang.subtreeOf(tree, "a")).toString(), /user\.kept/);
});
