import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Bench, makeBench, parseLines } from "../testing/run-cli.ts";

let bench: Bench;
let source: string;
const ids: string[] = [];

function run(...args: readonly string[]): string {
  const { exitCode, stdout, stderr } = bench.granary("repo", ...args);
  assert.equal(exitCode, 0, `${args.join(" ")}: ${stderr}`);
  return stdout;
}

before(() => {
  bench = makeBench();
  source = join(bench.folder, "source");
  mkdirSync(join(source, "notes"), { recursive: true });
  writeFileSync(join(source, "notes/one.txt"), "one\n");
  writeFileSync(join(source, "notes/Two.TXT"), "two\n");
  writeFileSync(Buffer.concat([Buffer.from(`${source}/caf`), Buffer.from([0xe9])]), "odd");
  run("init");
  ids.push(String(parseLines(run("backup", source, "--json")).at(-1)?.snapshot_id));
  writeFileSync(join(source, "notes/one.txt"), "one and more\n");
  writeFileSync(join(source, "notes/three.txt"), "three\n");
  ids.push(String(parseLines(run("backup", source, "--json")).at(-1)?.snapshot_id));
});
after(() => bench[Symbol.dispose]());

test("ls lists paths, or details, of the whole snapshot or of folders", () => {
  const lines = run("ls", "latest").split("\n");
  assert.ok(lines.includes(`${source}/notes/three.txt`));
  const one = run("ls", "latest", `${source}/notes`, "--long").split("\n");
  assert.equal(one.length, 5);
  assert.match(one.find((line) => line.endsWith("one.txt")) ?? "", /^-rw-r--r-- +\d+ +\d+ +13 \d{4}-\d\d-\d\d \d\d:\d\d:\d\d /);
  assert.equal(run("ls", `${ids[0]?.slice(0, 8)}:${source}/notes`).split("\n").length, 3);
  const odd = bench.run(process.execPath, "--conditions=source", join(import.meta.dirname, "../main.ts"), "repo", "ls", "latest", "-q");
  assert.equal(odd.status, 0, odd.stderr);
});

test("ls --json writes the snapshot and then a line for each entry, in restic's shape", () => {
  const [snapshot, ...nodes] = parseLines(run("ls", "--json", "latest"));
  assert.equal(snapshot?.struct_type, "snapshot");
  assert.equal(snapshot?.id, ids[1]);
  const file = nodes.find((node) => node.name === "one.txt");
  assert.equal(file?.struct_type, "node");
  assert.equal(file?.type, "file");
  assert.equal(file?.size, 13);
  assert.equal(file?.path, `${source}/notes/one.txt`);
  assert.equal(file?.permissions, "-rw-r--r--");
  const odd = nodes.find((node) => "path_raw" in node);
  assert.ok(Buffer.from(String(odd?.path_raw), "base64").equals(Buffer.concat([Buffer.from(`${source}/caf`), Buffer.from([0xe9])])));
});

test("find finds by name in all snapshots, with or without regard to case", () => {
  assert.equal(
    run("find", "one.txt", "-q")
      .split("\n")
      .filter((line) => line.endsWith("/notes/one.txt")).length,
    2,
  );
  assert.doesNotMatch(run("find", "two.txt"), /Two/);
  assert.match(run("find", "two.txt", "-i"), /notes\/Two\.TXT/);
  const found = JSON.parse(run("find", "--json", "three*", "one*")) as { snapshot: string; hits: number; matches: { path: string }[] }[];
  assert.deepEqual(
    found.map(({ snapshot, hits, matches }) => [snapshot, hits, matches.length]),
    [
      [ids[0], 1, 1],
      [ids[1], 2, 2],
    ],
  );
  assert.deepEqual(JSON.parse(run("find", "--json", "nothing-like-it")), []);
});

test("find says what uses a blob, a tree, or a pack", () => {
  const blob = createHash("sha256").update("three\n").digest("hex");
  const [found] = JSON.parse(run("find", "--blob", "--json", "--show-pack-id", blob.slice(0, 12))) as Record<string, string>[];
  assert.equal(found?.object_type, "blob");
  assert.equal(found?.path, `${source}/notes/three.txt`);
  assert.match(run("find", "--pack", found?.pack ?? ""), new RegExp(`Found blob ${blob}`));
  assert.match(run("find", "--tree", found?.parent_tree ?? ""), new RegExp(`in ${source}/notes`));
  assert.equal(bench.granary("repo", "find", "--pack", "ffffffffffff").exitCode, 13);
});

test("diff tells what changed, for people and for programs", () => {
  const [first = "", second = ""] = ids;
  const text = run("diff", first, second);
  assert.match(text, new RegExp(`^M {4}${source}/notes/one\\.txt$`, "m"));
  assert.match(text, new RegExp(`^\\+ {4}${source}/notes/three\\.txt$`, "m"));
  assert.match(text, /Files: +1 new, +0 removed, +1 changed/);
  const lines = parseLines(run("diff", "--json", first, second));
  assert.deepEqual(
    lines.filter(({ message_type }) => message_type === "change").map(({ modifier }) => modifier),
    ["M", "+"],
  );
  const statistics = lines.at(-1) as { message_type: string; changed_files: number; added: { files: number } };
  assert.equal(statistics.message_type, "statistics");
  assert.equal(statistics.changed_files, 1);
  assert.equal(statistics.added.files, 1);
});

test("dump writes a file as it is, and a folder as an archive", () => {
  assert.equal(run("dump", ids[0] ?? "", `${source}/notes/one.txt`), "one\n");
  assert.equal(run("dump", `latest:${source}`, "notes/one.txt"), "one and more\n");
  const archive = join(bench.folder, "notes.tar");
  run("dump", "latest", `${source}/notes`, "--target", archive);
  assert.match(bench.run("tar", "tf", archive).stdout, /notes\/three\.txt/);
  run("dump", "latest", "/", "--archive", "zip", "--target", `${archive}.zip`);
  assert.equal(readFileSync(`${archive}.zip`).subarray(0, 2).toString(), "PK");
  const missing = bench.granary("repo", "dump", "latest", "/nowhere");
  assert.equal(missing.exitCode, 13);
  assert.match(missing.stderr, /PathNotFound/);
});

test("stats counts in each mode", () => {
  const restore = JSON.parse(run("stats", "--json", "latest")) as Record<string, number>;
  assert.equal(restore.total_size, 13 + 4 + 6 + 3);
  assert.equal(restore.snapshots_count, 1);
  const raw = JSON.parse(run("stats", "--json", "--mode", "raw-data")) as Record<string, number>;
  assert.equal(raw.snapshots_count, 2);
  assert.ok((raw.total_blob_count ?? 0) > 5 && (raw.compression_ratio ?? 0) > 0);
  assert.match(run("stats", "--mode", "files-by-contents"), /Total Size: {2}30 B/);
});

test("list and cat show what is inside, but not the master key", () => {
  assert.deepEqual(run("list", "snapshots").trim().split("\n").sort(), ids.toSorted());
  assert.match(run("list", "blobs"), /^data [0-9a-f]{64}$/m);
  const [pack] = parseLines(run("list", "packs", "--json")) as { id: string; size: number }[];
  const content = bench.run(
    "sh",
    "-c",
    `"$0" --conditions=source "$1" repo cat pack ${pack?.id} | sha256sum`,
    process.execPath,
    join(import.meta.dirname, "../main.ts"),
  );
  assert.equal(content.stdout.slice(0, 64), pack?.id);
  const config = JSON.parse(run("cat", "config")) as { version: number; chunker_polynomial: string };
  assert.equal(config.version, 2);
  assert.match(config.chunker_polynomial, /^[0-9a-f]+$/);
  const snapshot = JSON.parse(run("cat", "snapshot", ids[0]?.slice(0, 10) ?? "")) as { tree: string };
  const tree = JSON.parse(run("cat", "tree", snapshot.tree)) as { nodes: unknown[] };
  assert.equal(tree.nodes.length, 1);
  assert.deepEqual(JSON.parse(run("cat", "tree", ids[0] ?? "")), tree);
  assert.equal(run("cat", "blob", createHash("sha256").update("three\n").digest("hex")), "three\n");
  const key = run("cat", "key", run("list", "keys").trim());
  assert.match(key, /"kdf": "scrypt"/);
});

test("the output's reader may stop reading: no message, exit code 141, no lock left", () => {
  const script = `"$0" --conditions=source "$1" repo ls latest | true; echo "\${PIPESTATUS[0]}"`;
  const closed = bench.run("bash", "-c", script, process.execPath, join(import.meta.dirname, "../main.ts"));
  assert.doesNotMatch(closed.stderr, /EPIPE|Error|Bug/);
  assert.match(closed.stdout.trim(), /^(?:141|0)$/); // 0 when all was written before the pipe closed
  assert.equal(run("list", "locks"), "");
});
