/**
 * An oracle for trees: what is in a folder, looked at with Node's own file functions and `getfattr`, and what is in a snapshot, read with the
 * engine's decoders; both in one form, so that they can be compared entry by entry. It shares no code with backup or restore.
 *
 * Paths are byte strings relative to the folder; the folder itself is "".
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { type ByteString, fromUtf8 } from "../src/format/byte-string.ts";
import { permissionsOfGoMode } from "../src/format/mode.ts";
import type { TreeNode } from "../src/format/node.ts";
import { parseNode } from "../src/format/parse-node.ts";
import { scanTree } from "../src/format/tree.ts";
import { loadBlob } from "../src/repository/blob-load.ts";
import type { Repository } from "../src/repository/repository.ts";

/** Everything that a backup keeps of one entry. */
export interface EntryRecord {
  readonly type: string;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly owner: string;
  readonly mtimeNs: bigint;
  readonly sizeBytes: bigint;
  /** SHA-256 of the content; "" of what is no file. */
  readonly content: string;
  readonly link: ByteString;
  readonly device: bigint;
  /** `name=hex`, sorted. */
  readonly attributes: readonly string[];
  /** The first path, in order, that is the same file; its own when it is alone. */
  readonly sameAs: ByteString;
}

export type TreeRecord = ReadonlyMap<ByteString, EntryRecord>;

const typeBits = 0o170000n;

/** Looks at all that is in a folder. Paths must be shorter than PATH_MAX. */
export function recordFolder(folder: string): TreeRecord {
  const attributes = readAttributes(folder);
  const records = new Map<ByteString, EntryRecord>();
  const firstOf = new Map<string, ByteString>();
  const visit = (path: ByteString): void => {
    const full = Buffer.from(path === "" ? fromUtf8(folder) : `${fromUtf8(folder)}/${path}`, "latin1");
    const stats = lstatSync(full, { bigint: true });
    const type = typeOf(stats.mode & typeBits);
    const identity = `${stats.dev}:${stats.ino}`;
    if (type !== "dir" && !firstOf.has(identity)) firstOf.set(identity, path);
    records.set(path, {
      type,
      mode: Number(stats.mode & 0o7777n),
      owner: `${stats.uid}:${stats.gid}`,
      mtimeNs: stats.mtimeNs,
      sizeBytes: type === "file" ? stats.size : 0n,
      content: type === "file" ? hashFile(full) : "",
      link: type === "symlink" ? readlinkSync(full, "buffer").latin1Slice() : "",
      device: type === "dev" || type === "chardev" ? stats.rdev : 0n,
      attributes: attributes.get(path) ?? [],
      sameAs: type === "dir" ? path : (firstOf.get(identity) ?? path),
    });
    if (type !== "dir") return;
    const names = readdirSync(full, "buffer").map((name) => name.latin1Slice());
    for (const name of names.sort()) visit(path === "" ? name : `${path}/${name}`);
  };
  visit("");
  return records;
}

function typeOf(format: bigint): string {
  const types = new Map([
    [0o100000n, "file"],
    [0o040000n, "dir"],
    [0o120000n, "symlink"],
    [0o060000n, "dev"],
    [0o020000n, "chardev"],
    [0o010000n, "fifo"],
    [0o140000n, "socket"],
  ]);
  return types.get(format) ?? "irregular";
}

function hashFile(path: Buffer): string {
  const hash = createHash("sha256");
  const file = openSync(path, "r");
  const piece = Buffer.alloc(1 << 20);
  try {
    for (let got = readSync(file, piece); got > 0; got = readSync(file, piece)) hash.update(piece.subarray(0, got));
  } finally {
    closeSync(file);
  }
  return hash.digest("hex");
}

/** `name=hex` of every entry that has some, POSIX ACLs among them, as getfattr sees them. */
function readAttributes(folder: string): Map<ByteString, string[]> {
  const text = execFileSync("getfattr", ["-R", "-h", "-P", "-d", "-m", "-", "-e", "hex", "--absolute-names", folder], {
    encoding: "latin1",
    maxBuffer: 2 ** 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const found = new Map<ByteString, string[]>();
  for (const block of text.split("\n\n")) {
    const [header = "", ...lines] = block.split("\n").filter((line) => line !== "");
    if (!header.startsWith("# file: ")) continue;
    const path = unescapeOctal(header.slice(8)).slice(fromUtf8(folder).length + 1);
    found.set(path, lines.map((line) => unescapeOctal(line).replace("=0x", "=")).sort());
  }
  return found;
}

function unescapeOctal(text: string): ByteString {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/**
 * Reads a whole snapshot from the repository, every blob of it, so that what it lacks is found.
 *
 * @param under the folder to be taken as the top, as a path in the snapshot
 */
export async function recordSnapshot(repository: Repository, tree: string, under: ByteString = ""): Promise<TreeRecord> {
  const records = new Map<ByteString, EntryRecord>();
  const firstOf = new Map<string, ByteString>();
  const top = under.replace(/^\//, "");
  const loadNodes = async (id: Uint8Array): Promise<TreeNode[]> => {
    const bytes = await loadBlob(repository, id);
    const nodes: TreeNode[] = [];
    scanTree(bytes, (_, start, end) => nodes.push(parseNode(bytes, start, end)));
    return nodes;
  };
  const visit = async (path: ByteString, node: TreeNode): Promise<void> => {
    const isShown = path === top || path.startsWith(top === "" ? "" : `${top}/`);
    if (!isShown && !top.startsWith(`${path}/`)) return;
    if (isShown) {
      const shown = path.slice(top === "" ? 0 : top.length + 1);
      const identity = node.links === 0 || node.links === 1 ? `own ${path}` : `${node.deviceId}:${node.inode}`;
      if (node.type !== "dir" && !firstOf.has(identity)) firstOf.set(identity, shown);
      const { sizeBytes, content } = await readContent(repository, node);
      assert.equal(sizeBytes, BigInt(node.size), `"${path}" has the content that its size says`);
      records.set(shown, {
        type: node.type,
        mode: permissionsOfGoMode(node.mode),
        owner: `${node.uid}:${node.gid}`,
        mtimeNs: BigInt(node.mtimeSeconds) * 1_000_000_000n + BigInt(node.mtimeNanos),
        sizeBytes,
        content,
        link: node.linkTarget,
        device: BigInt(node.device),
        attributes: node.extendedAttributes.map(({ name, value }) => `${fromUtf8(name)}=${Buffer.from(value).toString("hex")}`).sort(),
        sameAs: node.type === "dir" ? shown : (firstOf.get(identity) ?? shown),
      });
    }
    if (node.subtree === null) return;
    for (const child of await loadNodes(node.subtree)) await visit(path === "" ? child.name : `${path}/${child.name}`, child);
  };
  for (const node of await loadNodes(Buffer.from(tree, "hex"))) await visit(node.name, node);
  return records;
}

async function readContent(repository: Repository, node: TreeNode): Promise<{ sizeBytes: bigint; content: string }> {
  if (node.type !== "file") return { sizeBytes: 0n, content: "" };
  assert.ok(node.content !== null, `file "${node.name}" has content`);
  const hash = createHash("sha256");
  let sizeBytes = 0n;
  for (let at = 0; at < node.content.length; at += 32) {
    const blob = await loadBlob(repository, node.content.subarray(at, at + 32));
    hash.update(blob);
    sizeBytes += BigInt(blob.length);
  }
  return { sizeBytes, content: hash.digest("hex") };
}

/** What differs, one line an entry; empty when the trees are the same. @param ignore fields that do not count */
export function diffRecords(expected: TreeRecord, found: TreeRecord, ignore: readonly (keyof EntryRecord)[] = []): string[] {
  const lines: string[] = [];
  const show = (value: unknown): string => (typeof value === "bigint" ? String(value) : JSON.stringify(value));
  for (const [path, entry] of expected) {
    const other = found.get(path);
    if (other === undefined) lines.push(`${JSON.stringify(path)}: missing`);
    else {
      const fields = Object.keys(entry) as (keyof EntryRecord)[]; // the keys of a record that was made here
      const wrong = fields.filter((field) => !ignore.includes(field) && show(entry[field]) !== show(other[field]));
      for (const field of wrong) lines.push(`${JSON.stringify(path)}: ${field} is ${show(other[field])}, ${show(entry[field])} expected`);
    }
  }
  for (const path of found.keys()) if (!expected.has(path)) lines.push(`${JSON.stringify(path)}: not expected`);
  return lines;
}

/** Without what no backup keeps: sockets. The times of the folders that held them stay. */
export function withoutSockets(records: TreeRecord): TreeRecord {
  return new Map([...records].filter(([, { type }]) => type !== "socket"));
}
