/** For tests: trees written as literals, in memory, with an index that knows them. */
import { sha256 } from "../crypto/hash.ts";
import { hexOf } from "../format/ids.ts";
import type { TreeLoader } from "../repository/blob-load.ts";
import { BlobIndex } from "../repository/blob-index.ts";

/** A directory: names to what they are. A number is an empty file that claims that size, a text a file with that content. */
export interface Sample {
  readonly [name: string]: Sample | number | string;
}

export class SampleTrees {
  readonly blobs: Map<string, Buffer> = new Map();
  readonly index: BlobIndex = new BlobIndex();
  loads = 0;
  loading = 0;
  mostLoading = 0;
  readonly #pack = this.index.addPack(sha256(Buffer.from("pack")));

  add(sample: Sample): Buffer {
    const nodes = Object.keys(sample)
      .sort()
      .map((name) => {
        const value = sample[name];
        if (typeof value === "object") return { name, type: "dir", subtree: this.add(value).toString("hex") };
        if (typeof value === "number") return { name, type: "file", size: value, content: [] };
        return { name, type: "file", size: value?.length, content: [this.#addBlob(Buffer.from(value ?? ""), false).toString("hex")] };
      });
    return this.addRaw(JSON.stringify({ nodes }));
  }

  addRaw(json: string): Buffer {
    return this.#addBlob(Buffer.from(json), true);
  }

  readonly load: TreeLoader = async (id, signal) => {
    this.loads++;
    this.mostLoading = Math.max(this.mostLoading, ++this.loading);
    await new Promise((resolve) => setImmediate(resolve));
    this.loading--;
    signal?.throwIfAborted();
    const bytes = this.blobs.get(hexOf(id));
    if (bytes === undefined) throw Object.assign(new Error("gone"), { code: "BlobMissing", kind: "corrupt", details: {} });
    return bytes;
  };

  #addBlob(bytes: Buffer, isTree: boolean): Buffer {
    const id = sha256(bytes);
    this.blobs.set(hexOf(id), bytes);
    this.index.add(id, 0, { pack: this.#pack, offsetBytes: 0, sealedBytes: bytes.length + 32, plainBytes: 0, isTree });
    return id;
  }
}
