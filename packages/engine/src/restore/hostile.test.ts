/** Repositories that lie, and targets that change under the restore: nothing gets outside, and the rest is restored. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isFailure } from "@granary/base/errors";
import { sha256, sha256Hex } from "../crypto/hash.ts";
import { type MasterKey, Sealer } from "../crypto/seal.ts";
import { type ByteString, fromUtf8 } from "../format/byte-string.ts";
import { hexOf } from "../format/ids.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { createMemoryStore } from "../store/memory.ts";
import type { RestoreSource } from "./crew.ts";
import type { RestoreTrouble } from "./messages.ts";
import { planRestore, type RestoreOptions, type RestoreReport, runRestore } from "./restore.ts";

const key: MasterKey = { encrypt: Buffer.alloc(32, 1), macK: Buffer.alloc(16, 2), macR: Buffer.alloc(16, 3) };

/** A repository of one pack, written by hand. */
class HandMade {
  readonly #sealer = new Sealer(key);
  readonly #index = new BlobIndex();
  readonly #blobs: { id: Uint8Array; sealed: Uint8Array; claimedBytes: number }[] = [];

  /** @param claim what the index says instead of the truth */
  add(plain: Uint8Array | string, claim: { id?: Uint8Array; sealedBytes?: number } = {}): string {
    const bytes = Buffer.from(plain);
    const id = claim.id ?? sha256(bytes);
    const sealed = this.#sealer.seal(bytes);
    this.#blobs.push({ id, sealed, claimedBytes: claim.sealedBytes ?? sealed.length });
    return hexOf(id);
  }

  /** Adds a tree of these nodes, as they are. */
  addTree(...nodes: readonly object[]): string {
    return this.add(JSON.stringify({ nodes }));
  }

  async finish(): Promise<RestoreSource> {
    const store = createMemoryStore();
    const bytes = Buffer.concat(this.#blobs.map(({ sealed }) => sealed));
    const name = sha256Hex(bytes);
    await store.save({ kind: "pack", name }, bytes);
    const pack = this.#index.addPack(Buffer.from(name, "hex"));
    let offsetBytes = 0;
    for (const { id, sealed, claimedBytes } of this.#blobs) {
      this.#index.add(id, 0, { pack, offsetBytes, sealedBytes: claimedBytes, plainBytes: 0, isTree: false });
      offsetBytes += sealed.length;
    }
    return { store, key, index: this.#index };
  }
}

const times = { mtime: "2026-01-01T00:00:00Z", atime: "2026-01-01T00:00:00Z", ctime: "2026-01-01T00:00:00Z", uid: 0, gid: 0 };
const file = (name: string, ...content: string[]): object => ({
  name,
  type: "file",
  mode: 0o644,
  ...times,
  size: 4 * content.length,
  content,
});
const directory = (name: string, subtree: string): object => ({
  name,
  type: "dir",
  mode: 0o755 + 2 ** 31,
  ...times,
  content: null,
  subtree,
});
const link = (name: string, linktarget: string): object => ({
  name,
  type: "symlink",
  mode: 0o777 + 2 ** 27,
  ...times,
  linktarget,
  content: null,
});

interface Outcome {
  readonly report: RestoreReport;
  readonly troubles: RestoreTrouble[];
}

/** A folder with a target in it, and beside it what must stay as it is. */
class Scene {
  readonly folder = mkdtempSync(join(tmpdir(), "granary-hostile-"));
  readonly target: string = join(this.folder, "target");
  readonly outside: string = join(this.folder, "outside");

  constructor() {
    mkdirSync(this.outside);
    mkdirSync(this.target);
    writeFileSync(join(this.outside, "precious"), "precious");
  }

  async restore(source: RestoreSource, tree: string, options: Partial<RestoreOptions> = {}): Promise<Outcome> {
    const troubles: RestoreTrouble[] = [];
    const onTrouble = (trouble: RestoreTrouble): void => void troubles.push(trouble);
    await using plan = await planRestore(source, {
      tree: Buffer.from(tree, "hex"),
      target: fromUtf8(this.target),
      workers: 1,
      onTrouble,
      ...options,
    });
    return { report: await runRestore(plan), troubles };
  }

  /** Fails when anything but the target has changed. */
  assertContained(): void {
    assert.deepEqual(readdirSync(this.folder).sort(), ["outside", "target"]);
    assert.deepEqual(readdirSync(this.outside), ["precious"]);
    assert.equal(readFileSync(join(this.outside, "precious"), "utf8"), "precious");
  }

  [Symbol.dispose](): void {
    execFileSync("rm", ["-rf", this.folder]);
  }
}

test("names that are none are refused, and what has a name is restored", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const evil = hand.add("evil");
  const good = hand.add("good");
  const names = [
    "..",
    ".",
    "",
    "../outside/precious",
    "/tmp/absolute",
    "a/b",
    "nul\0",
    "\\u002e\\u002e",
    "x".repeat(256),
    "y".repeat(70_000),
  ];
  const below = hand.addTree(file("inner", evil));
  const tree = hand.addTree(
    ...names.map((name) => file(name, evil)),
    ...names.map((name) => directory(name, below)),
    ...names.map((name) => link(name, "/")),
    file("zz good", good),
  );
  const { report, troubles } = await scene.restore(await hand.finish(), tree);
  scene.assertContained();
  assert.deepEqual(readdirSync(scene.target), ["zz good"]);
  assert.equal(report.files, 1);
  assert.equal(report.lost, troubles.length);
  assert.equal(report.lost, names.length * 3);
});

test("a link and then a folder of the same name lead nowhere", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const evil = hand.add("evil");
  const below = hand.addTree(file("precious", evil));
  const tree = hand.addTree(
    link("a", scene.outside),
    directory("a", below),
    directory("b", below),
    link("b", scene.outside),
    link("c", join(scene.outside, "precious")),
    file("c", evil),
    link("d", "../outside"),
    directory("d", hand.addTree(directory("e", below))),
  );
  const { report, troubles } = await scene.restore(await hand.finish(), tree);
  scene.assertContained();
  assert.deepEqual(
    troubles.map(({ path, reason }) => `${path} ${reason}`),
    ["/a invalid", "/b invalid", "/c invalid", "/d invalid"],
  );
  assert.equal(readlinkSync(join(scene.target, "a")), scene.outside);
  assert.equal(readFileSync(join(scene.target, "b/precious"), "utf8"), "evil");
  assert.deepEqual([report.files, report.others], [1, 3]);
});

test("links that are in the target already are replaced, never written through", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const good = hand.add("good");
  const tree = hand.addTree(directory("folder", hand.addTree(file("precious", good))), file("precious", good));
  symlinkSync(scene.outside, join(scene.target, "folder"));
  symlinkSync(join(scene.outside, "precious"), join(scene.target, "precious"));
  const { troubles } = await scene.restore(await hand.finish(), tree);
  scene.assertContained();
  assert.deepEqual(troubles, []);
  assert.equal(readFileSync(join(scene.target, "folder/precious"), "utf8"), "good");
  assert.equal(statSync(join(scene.target, "precious")).size, 4);
});

test("folders that are swapped for links while the restore runs lead nowhere", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const entries = Array.from({ length: 3000 }, (_, at) => file(`${at}`.padStart(5, "0"), hand.add(`content ${at}`)));
  const tree = hand.addTree(
    directory("a", hand.addTree(...entries)),
    directory("b", hand.addTree(directory("c", hand.addTree(...entries)))),
  );
  const source = await hand.finish();
  const swap = 'while :; do for d in a b b/c; do mv "$d" moved; ln -s "$0" "$d"; rm -f "$d"; mv -T moved "$d"; done; done';
  for (const name of ["a", "b", "b/c"]) mkdirSync(join(scene.target, name));
  const swapper = spawn("sh", ["-c", swap, scene.outside], { cwd: scene.target, stdio: "ignore" });
  try {
    for (let time = 0; time < 3; time++) await scene.restore(source, tree, { workers: 2, overwrite: "always" });
  } finally {
    swapper.kill("SIGKILL");
    await new Promise((resolve) => swapper.once("close", resolve));
  }
  assert.deepEqual(readdirSync(scene.outside), ["precious"]);
});

test("sizes that cannot be are not believed", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const good = hand.add("good");
  const huge = hand.add("huge", { sealedBytes: 2 ** 32 - 1 });
  const short = hand.add("short", { sealedBytes: 5 });
  const beyond = hand.add("beyond", { sealedBytes: 100_000 });
  const missing = "ab".repeat(32);
  const tree = hand.addTree(
    { ...file("claims", good), size: 2 ** 53 - 1 },
    file("huge", good, huge),
    file("short", short),
    file("beyond", beyond),
    file("missing", good, missing, good),
    { ...file("sane", good), size: 4 },
  );
  const { report, troubles } = await scene.restore(await hand.finish(), tree, { sparse: true });
  assert.deepEqual(readdirSync(scene.target).sort(), ["claims", "sane"]);
  assert.equal(statSync(join(scene.target, "claims")).size, 4);
  const told = troubles.map(({ path, reason }) => `${path} ${reason}`).sort();
  assert.deepEqual(told, [
    "/beyond damaged",
    "/beyond metadata",
    "/claims metadata",
    "/huge damaged",
    "/missing damaged",
    "/short damaged",
  ]);
  assert.equal(report.lost, 4);
});

test("nodes that make no sense are reported, one by one", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const good = hand.add("good");
  const attribute = (name: string): object => ({ ...file(`attribute ${name}`, good), extended_attributes: [{ name, value: "eA==" }] });
  const tree = hand.addTree(
    { ...file("1 no type", good), type: "irregular" },
    { ...file("2 wrong type", good), type: "folder" },
    { ...file("3 wrong content"), content: ["zz"] },
    { ...directory("4 no subtree", good), subtree: null },
    directory("5 subtree is a file", good),
    directory("6 subtree is missing", "cd".repeat(32)),
    link("7 to nothing", ""),
    attribute(""),
    attribute("nul\0"),
    attribute("n".repeat(300)),
    file("good", good),
  );
  const { report, troubles } = await scene.restore(await hand.finish(), tree);
  assert.deepEqual(readdirSync(scene.target).sort(), ["5 subtree is a file", "6 subtree is missing", "good"]);
  assert.equal(report.lost, 10);
  assert.equal(troubles.length, 10);
  assert.ok(troubles.every(({ message }) => message.startsWith("Cannot restore it: ")));
});

test("a tree that is broken in its middle is restored up to there, and nothing in its folder is taken for extra", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const good = hand.add("good");
  const whole = JSON.stringify({ nodes: [file("a", good), file("b", good)] });
  const tree = hand.addTree(directory("broken", hand.add(whole.slice(0, -20))));
  mkdirSync(join(scene.target, "broken"));
  writeFileSync(join(scene.target, "broken/b"), "to be kept");
  const { report } = await scene.restore(await hand.finish(), tree, { deleteExtra: true });
  assert.deepEqual(readdirSync(join(scene.target, "broken")), ["a", "b"]);
  assert.deepEqual([report.lost, report.extrasRemoved], [1, 0]);
});

test("a tree whose content has another hash is not followed, so none can contain itself", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const id = "ef".repeat(32);
  hand.add(JSON.stringify({ nodes: [directory("again", id)] }), { id: Buffer.from(id, "hex") });
  const tree = hand.addTree(directory("cycle", id));
  const { report } = await scene.restore(await hand.finish(), tree);
  assert.deepEqual([report.lost, report.directories], [1, 1]);
});

test("folders beyond any depth are reported, those above are restored", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  let tree = hand.addTree(file("bottom", hand.add("good")));
  for (let depth = 0; depth < 10_050; depth++) tree = hand.addTree(directory("d", tree));
  const { report, troubles } = await scene.restore(await hand.finish(), tree);
  assert.deepEqual([report.lost, report.directories], [1, 10_000]);
  assert.match(troubles[0]?.message ?? "", /10000 folders deep/);
});

test("a snapshot that unfolds to more than memory holds is refused before anything is written", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  let tree = hand.addTree(file("bottom", hand.add("good")));
  for (let depth = 0; depth < 40; depth++) tree = hand.addTree(directory("a", tree), directory("b", tree));
  const source = await hand.finish();
  await assert.rejects(scene.restore(source, tree, { planBytes: 16 << 20 }), (error) => isFailure(error, "RestoreTooLarge"));
  assert.deepEqual(readdirSync(scene.target), []);
});

test("a root that cannot be read fails the restore", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const wrong = "12".repeat(32);
  hand.add("other", { id: Buffer.from(wrong, "hex") });
  const source = await hand.finish();
  await assert.rejects(scene.restore(source, "34".repeat(32)), (error) => isFailure(error, "BlobMissing"));
  await assert.rejects(scene.restore(source, wrong), (error) => isFailure(error, "BlobInvalid"));
});

test("one blob in many places is read once and written everywhere", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const zeros = hand.add(Buffer.alloc(1 << 20));
  const small = hand.add("good");
  const tree = hand.addTree(...Array.from({ length: 3000 }, (_, at) => file(`${at}`.padStart(5, "0"), small)), {
    ...file("image", ...Array.from({ length: 4000 }, () => zeros)),
    size: 4000 * 2 ** 20,
  });
  const { report, troubles } = await scene.restore(await hand.finish(), tree, { sparse: true, workers: 2 });
  assert.deepEqual(troubles, []);
  assert.equal(report.files, 3001);
  const { size, blocks } = statSync(join(scene.target, "image"));
  assert.deepEqual([size, blocks], [4000 * 2 ** 20, 0]);
});

test("names of any bytes and times of any age go through", async () => {
  using scene = new Scene();
  const hand = new HandMade();
  const names: ByteString[] = ["\xff\xfe", "new\nline", "\\x41"];
  const tree = hand.addTree(
    { ...file("\\n", hand.add("good")), mtime: "1066-10-14T09:00:00.123456789Z", atime: "9999-12-31T23:59:59Z" },
    { ...file("\\xff\\xfe", hand.add("more")), name: "\\xff\\xfe" },
  );
  await scene.restore(await hand.finish(), tree);
  const found = readdirSync(scene.target, { encoding: "buffer" }).map((name) => name.latin1Slice());
  assert.deepEqual(found.sort(), ["\n", names[0]]);
  rmSync(scene.target, { recursive: true });
});
