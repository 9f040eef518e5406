/**
 * For tests: reads and writes repositories the plain way, with `JSON.parse` and maps of strings, one blob at a time. It shares nothing with
 * the code under test but the seal, so that it can be its oracle.
 */
import { createHash } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import type { Repository } from "../repository/repository.ts";
import type { FileKind } from "../store/store.ts";

export interface PlainBlob {
  readonly type: "data" | "tree";
  readonly plain: Uint8Array;
  readonly compress?: boolean;
}

interface IndexedBlob {
  readonly id: string;
  readonly type: string;
  readonly offset: number;
  readonly length: number;
  readonly uncompressed_length?: number;
}

/** As it stands in an index file. */
export interface IndexedPack {
  readonly id: string;
  readonly blobs: readonly IndexedBlob[];
}

export function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Saves a pack. @returns what an index file says of it */
export async function savePlainPack(repository: Repository, blobs: readonly PlainBlob[]): Promise<IndexedPack> {
  const parts: Uint8Array[] = [];
  const header: Uint8Array[] = [];
  const listed: IndexedBlob[] = [];
  let offset = 0;
  for (const { type, plain, compress = true } of blobs) {
    const isCompressed = compress && plain.length > 0;
    const sealed = repository.sealer.seal(isCompressed ? zstdCompressSync(plain) : plain);
    const entry = Buffer.alloc(isCompressed ? 41 : 37);
    entry[0] = (type === "tree" ? 1 : 0) + (isCompressed ? 2 : 0);
    entry.writeUInt32LE(sealed.length, 1);
    if (isCompressed) entry.writeUInt32LE(plain.length, 5);
    entry.set(createHash("sha256").update(plain).digest(), entry.length - 32);
    header.push(entry);
    parts.push(sealed);
    listed.push({
      id: hashOf(plain),
      type,
      offset,
      length: sealed.length,
      ...(isCompressed ? { uncompressed_length: plain.length } : {}),
    });
    offset += sealed.length;
  }
  const sealedHeader = repository.sealer.seal(Buffer.concat(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(sealedHeader.length);
  const pack = Buffer.concat([...parts, sealedHeader, length]);
  const id = hashOf(pack);
  await repository.store.save({ kind: "pack", name: id }, pack);
  return { id, blobs: listed };
}

/** Saves JSON as a sealed, uncompressed file. @returns its name */
export async function savePlainFile(repository: Repository, kind: FileKind, value: unknown): Promise<string> {
  const sealed = repository.sealer.seal(Buffer.from(JSON.stringify(value)));
  const name = hashOf(sealed);
  await repository.store.save({ kind, name }, sealed);
  return name;
}

/** The JSON of every file of a kind, by name. */
export async function readPlainFiles(repository: Repository, kind: FileKind): Promise<Map<string, unknown>> {
  const files = new Map<string, unknown>();
  for await (const { name } of repository.store.list(kind)) {
    const plain = repository.sealer.open(await repository.store.load({ kind, name }));
    const json = plain[0] === 2 ? zstdDecompressSync(plain.subarray(1)) : plain;
    files.set(name, JSON.parse(json.toString()));
  }
  return files;
}

interface PlainNode {
  readonly name: string;
  readonly type: string;
  readonly content?: readonly string[] | null;
  readonly subtree?: string;
}

/** A folder as a tree blob, from what is in it: data blobs of a file, or another folder. */
export function encodePlainTree(entries: Readonly<Record<string, readonly Uint8Array[] | Uint8Array>>): Uint8Array {
  const nodes = Object.keys(entries)
    .sort()
    .map((name) => {
      const entry = entries[name] ?? [];
      const common = { mtime: "2026-01-01T00:00:00Z", atime: "2026-01-01T00:00:00Z", ctime: "2026-01-01T00:00:00Z", uid: 0, gid: 0 };
      return entry instanceof Uint8Array
        ? { name, type: "dir", mode: 2147484141, ...common, content: null, subtree: hashOf(entry) }
        : {
            name,
            type: "file",
            mode: 420,
            ...common,
            size: entry.reduce((sum, { length }) => sum + length, 0),
            content: entry.map(hashOf),
          };
    });
  return Buffer.from(`${JSON.stringify({ nodes })}\n`);
}

export function plainSnapshot(tree: Uint8Array, second: number): unknown {
  return { time: `2026-01-01T00:00:${String(second % 60).padStart(2, "0")}Z`, tree: hashOf(tree), paths: ["/data"], hostname: "host" };
}

/** Every snapshot's files: path to the hash of the content. @throws when anything that is needed cannot be read */
export async function readEverything(repository: Repository): Promise<Map<string, Map<string, string>>> {
  const { store, sealer } = repository;
  const places = new Map<string, { readonly pack: string; readonly blob: IndexedBlob }[]>();
  for (const index of (await readPlainFiles(repository, "index")).values()) {
    for (const pack of (index as { packs: readonly IndexedPack[] }).packs) {
      for (const blob of pack.blobs)
        places.set(`${blob.type} ${blob.id}`, [...(places.get(`${blob.type} ${blob.id}`) ?? []), { pack: pack.id, blob }]);
    }
  }
  const read = async (type: string, id: string): Promise<Uint8Array> => {
    // Every copy that an index file lists must be good, not only one.
    let plain: Uint8Array | undefined;
    for (const { pack, blob } of places.get(`${type} ${id}`) ?? []) {
      const sealed = await store.load({ kind: "pack", name: pack }, { offsetBytes: blob.offset, lengthBytes: blob.length });
      const opened = sealer.open(sealed);
      plain = blob.uncompressed_length === undefined ? opened : zstdDecompressSync(opened);
      if (hashOf(plain) !== id) throw new Error(`${type} blob ${id} in pack ${pack} has other content`);
    }
    if (plain === undefined) throw new Error(`no index file lists ${type} blob ${id}`);
    return plain;
  };
  const all = new Map<string, Map<string, string>>();
  for (const [name, snapshot] of await readPlainFiles(repository, "snapshot")) {
    const files = new Map<string, string>();
    const walk = async (tree: string, path: string): Promise<void> => {
      const { nodes } = JSON.parse(Buffer.from(await read("tree", tree)).toString()) as { nodes: readonly PlainNode[] };
      for (const node of nodes) {
        const at = `${path}/${node.name}`;
        if (node.subtree !== undefined) await walk(node.subtree, at);
        const hash = createHash("sha256");
        for (const id of node.content ?? []) hash.update(await read("data", id));
        files.set(at, `${node.type} ${hash.digest("hex")}`);
      }
    };
    await walk((snapshot as { tree: string }).tree, "");
    all.set(name, files);
  }
  return all;
}
