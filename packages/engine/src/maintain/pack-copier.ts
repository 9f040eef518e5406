/**
 * Copies blobs that are still needed from packs into new packs, sealed as they are. Each is opened and hashed first: what is damaged must not
 * get a new name and a clean bill.
 */
import { Buffer } from "node:buffer";
import { encodeFailure, type Failure, toFailure } from "@granary/base/errors";
import "../errors.ts";
import type { Sealer } from "../crypto/seal.ts";
import type { BlobType } from "../format/pack.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import { BlobDecoder } from "../repository/blob-reader.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import { type FinishedPack, PackBuilder } from "../repository/pack-builder.ts";
import type { PackReader } from "../repository/pack-mailbox.ts";
import { BLOB_WORDS, type BlobNumber } from "./index-survey.ts";
import type { BadBlob, CopyTask, WritingData } from "./maintain-messages.ts";

export interface PackCopierOptions extends WritingData {
  readonly data: BlobIndex;
  readonly trees: BlobIndex;
  readonly packs: PackReader;
  readonly sealer: Sealer;
  /** Whether a failure to read is one of the pack alone; what it denies ends the work. */
  readonly isDamage: (failure: Failure) => boolean;
  /** Takes a pack that is full. */
  readonly emit: (pack: FinishedPack) => void;
}

/** Blobs nearer to each other than this are read in one call: a seek, or a request, costs more than the bytes between. */
const gapBytes = 256 * 1024;
const readBytes = 4 * 1024 * 1024;

export class PackCopier {
  readonly #options: PackCopierOptions;
  readonly #decoder: BlobDecoder;
  readonly #builders: Readonly<Record<BlobType, PackBuilder>>;
  #memory: Buffer = Buffer.alloc(0);
  #scratch: Buffer = Buffer.alloc(0);

  constructor(options: PackCopierOptions) {
    this.#options = options;
    this.#decoder = new BlobDecoder(options.sealer);
    const { sealer, level, emit } = options;
    this.#builders = {
      data: new PackBuilder({
        type: "data",
        sealer,
        buffers: PackBuffers.attach(options.dataBuffers),
        targetBytes: options.dataPackBytes,
        level,
        emit,
      }),
      tree: new PackBuilder({
        type: "tree",
        sealer,
        buffers: PackBuffers.attach(options.treeBuffers),
        targetBytes: options.treePackBytes,
        level,
        emit,
      }),
    };
  }

  /**
   * Copies blobs of one pack.
   *
   * @returns those that are damaged, which are not copied
   * @throws what the pack reader throws and `isDamage` denies
   */
  copy(task: CopyTask): readonly BadBlob[] {
    const bad: BadBlob[] = [];
    const packId = this.#options.data.packId(task.pack);
    for (const run of planReads(readBlobs(task.blobs))) {
      this.#memory = grow(this.#memory, run.endBytes - run.startBytes);
      const content = this.#memory.subarray(0, run.endBytes - run.startBytes);
      const failure = this.#read(packId, run.startBytes, content);
      for (const blob of run.blobs) {
        const sealed = content.subarray(blob.offsetBytes - run.startBytes, blob.offsetBytes - run.startBytes + blob.sealedBytes);
        // When the whole span cannot be read, one blob of it may be.
        const damage = (failure === undefined ? undefined : this.#read(packId, blob.offsetBytes, sealed)) ?? this.#add(blob, sealed);
        if (damage !== undefined) bad.push({ blob: blob.blob, failure: encodeFailure(damage) });
      }
    }
    return bad;
  }

  /** Closes the packs under way. */
  flush(): void {
    this.#builders.data.finish();
    this.#builders.tree.finish();
  }

  #read(packId: Uint8Array, offsetBytes: number, target: Uint8Array): Failure | undefined {
    return this.#try(() => this.#options.packs.read(packId, offsetBytes, target));
  }

  #add(blob: BlobToCopy, sealed: Uint8Array): Failure | undefined {
    return this.#try(() => {
      const isTree = (blob.blob & 1) === 1;
      const id = isTree ? this.#options.trees.idOf(blob.blob >>> 1) : this.#options.data.idOf(blob.blob >>> 1);
      this.#scratch = grow(this.#scratch, sealed.length);
      const copy = this.#scratch.subarray(0, sealed.length);
      copy.set(sealed); // opening it overwrites it
      const plain = this.#decoder.decode(id, copy, blob.plainBytes);
      const builder = isTree ? this.#builders.tree : this.#builders.data;
      if (this.#options.recompress && blob.plainBytes === 0) builder.add(id, plain);
      else builder.addSealed(id, sealed, blob.plainBytes);
    });
  }

  #try(act: () => void): Failure | undefined {
    try {
      act();
      return undefined;
    } catch (error) {
      const failure = toFailure(error);
      if (!this.#options.isDamage(failure)) throw error;
      return failure;
    }
  }
}

interface BlobToCopy {
  readonly blob: BlobNumber;
  readonly offsetBytes: number;
  readonly sealedBytes: number;
  readonly plainBytes: number;
}

interface Run {
  readonly blobs: BlobToCopy[];
  readonly startBytes: number;
  endBytes: number;
}

function* readBlobs(words: Uint32Array): Generator<BlobToCopy> {
  for (let at = 0; at < words.length; at += BLOB_WORDS) {
    const [blob = 0, offsetBytes = 0, sealedBytes = 0, plainBytes = 0] = words.subarray(at, at + BLOB_WORDS);
    yield { blob, offsetBytes, sealedBytes, plainBytes };
  }
}

/** Puts blobs, in the order of their offsets, together that are read in one call. */
function* planReads(blobs: Iterable<BlobToCopy>): Generator<Run> {
  let run: Run | undefined;
  for (const blob of blobs) {
    const endBytes = blob.offsetBytes + blob.sealedBytes;
    if (run === undefined || blob.offsetBytes - run.endBytes > gapBytes || endBytes - run.startBytes > readBytes) {
      if (run !== undefined) yield run;
      run = { blobs: [], startBytes: blob.offsetBytes, endBytes };
    }
    run.blobs.push(blob);
    run.endBytes = Math.max(run.endBytes, endBytes);
  }
  if (run !== undefined) yield run;
}

function grow(memory: Buffer, lengthBytes: number): Buffer {
  return memory.length >= lengthBytes ? memory : Buffer.allocUnsafeSlow(lengthBytes);
}
