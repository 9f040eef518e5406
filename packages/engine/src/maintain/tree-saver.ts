/** Stores new trees from the main thread: in packs of their own, which index files list once they are durable. */
import { sha256, sha256Hex } from "../crypto/hash.ts";
import { type BlobId, blobIdOf, hexOf } from "../format/ids.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { IndexWriter } from "../repository/index-writer.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import { type FinishedPack, PackBuilder } from "../repository/pack-builder.ts";
import type { Repository } from "../repository/repository.ts";

const treePackBytes = 4 * 1024 * 1024;
const slackBytes = 1024 * 1024;

export class TreeSaver {
  trees = 0;
  readonly #repository: Repository;
  readonly #signal: AbortSignal | undefined;
  readonly #buffers = PackBuffers.create(2, treePackBytes + slackBytes);
  readonly #builder: PackBuilder;
  readonly #writer: IndexWriter;
  readonly #saved = new Set<string>();
  readonly #finished: FinishedPack[] = [];

  constructor(repository: Repository, signal: AbortSignal | undefined) {
    this.#repository = repository;
    this.#signal = signal;
    const level = repository.config.version > 1 ? 3 : 0;
    this.#builder = new PackBuilder({
      type: "tree",
      sealer: repository.sealer,
      buffers: this.#buffers,
      targetBytes: treePackBytes,
      level,
      emit: (pack) => void this.#finished.push(pack),
    });
    this.#writer = new IndexWriter({ ...repository, index: new BlobIndex() }, { ...(signal && { signal }) });
  }

  async save(tree: Uint8Array): Promise<BlobId> {
    const id = sha256(tree);
    const name = sha256Hex(tree);
    if (!this.#saved.has(name)) {
      this.#saved.add(name);
      this.trees++;
      this.#builder.add(id, tree);
      // Before the next tree, so that a buffer is always free.
      await this.#saveFinished();
    }
    return blobIdOf(id);
  }

  /** Waits until every tree is durable and in an index file. */
  async finish(): Promise<void> {
    this.#builder.finish();
    await this.#saveFinished();
    await this.#writer.flush();
  }

  async #saveFinished(): Promise<void> {
    for (const pack of this.#finished.splice(0)) {
      const bytes = pack.own ?? this.#buffers.bytes(pack.buffer).subarray(0, pack.sizeBytes);
      await this.#repository.store.save({ kind: "pack", name: hexOf(pack.id) }, bytes, this.#signal);
      if (pack.buffer >= 0) this.#buffers.release(pack.buffer);
      await this.#writer.add(pack);
    }
  }
}
