/**
 * Takes a batch of pieces of one pack from the store to the files, in a worker: reads spans of the pack, opens and checks each blob once, and
 * writes it wherever it belongs.
 */
import { Buffer } from "node:buffer";
import { isFailure, messageOf, toFailure } from "@granary/base/errors";
import { hexOf } from "../format/ids.ts";
import type { BlobIndex } from "../repository/blob-index.ts";
import type { BlobDecoder } from "../repository/blob-reader.ts";
import type { PackReader } from "../repository/pack-mailbox.ts";
import type { EntryTable } from "./entry-table.ts";
import type { FileWriter } from "./file-writer.ts";
import type { PiecesTask } from "./messages.ts";
import type { SharedState } from "./shared-state.ts";

export interface PieceRunnerOptions {
  readonly table: EntryTable;
  readonly index: BlobIndex;
  readonly packs: PackReader;
  readonly decoder: BlobDecoder;
  readonly files: FileWriter;
  readonly state: SharedState;
  /** Whether a read costs a round trip, so that larger gaps are worth reading over. */
  readonly isRemote: boolean;
}

/** Bytes read from a pack at once, unless one blob is larger. */
const localReadBytes = 2 * 1024 * 1024;
const remoteReadBytes = 8 * 1024 * 1024;
/** Bytes between two blobs that are read along rather than in two reads. */
const localGapBytes = 64 * 1024;
const remoteGapBytes = 1024 * 1024;

/** Some pieces of a batch, next to each other in the pack. */
interface Run {
  readonly from: number;
  readonly to: number;
  readonly offsetBytes: number;
  readonly endBytes: number;
}

export class PieceRunner {
  readonly #options: PieceRunnerOptions;
  readonly #readBytes: number;
  readonly #gapBytes: number;
  #data = Buffer.alloc(0);

  constructor(options: PieceRunnerOptions) {
    this.#options = options;
    this.#readBytes = options.isRemote ? remoteReadBytes : localReadBytes;
    this.#gapBytes = options.isRemote ? remoteGapBytes : localGapBytes;
  }

  /** @throws TargetFull; StoreUnavailable, StoreDenied; Cancelled */
  run(task: PiecesTask): void {
    const order = new Uint32Array(task.order);
    try {
      for (let at = task.from; at < task.to && !this.#options.state.isStopping; ) {
        const run = this.#findRun(order, at, task.to);
        this.#restore(order, run);
        at = run.to;
      }
    } finally {
      this.#options.files.closeAll();
    }
  }

  #findRun(order: Uint32Array, from: number, limit: number): Run {
    const { table } = this.#options;
    const offsetBytes = table.packOffsetOf(order[from] ?? 0);
    let endBytes = offsetBytes + this.#sealedBytesOf(order[from] ?? 0);
    let to = from + 1;
    for (; to < limit; to++) {
      const nextBytes = table.packOffsetOf(order[to] ?? 0);
      const nextEndBytes = Math.max(endBytes, nextBytes + this.#sealedBytesOf(order[to] ?? 0));
      if (nextBytes - endBytes > this.#gapBytes || (nextEndBytes > endBytes && nextEndBytes - offsetBytes > this.#readBytes)) break;
      endBytes = nextEndBytes;
    }
    return { from, to, offsetBytes, endBytes };
  }

  #sealedBytesOf(piece: number): number {
    return this.#options.index.placeOf(this.#options.table.blobOf(piece))?.sealedBytes ?? 0;
  }

  #restore(order: Uint32Array, run: Run): void {
    const { table } = this.#options;
    const isRead = this.#read(table.packOf(order[run.from] ?? 0), run.offsetBytes, run.endBytes - run.offsetBytes) === undefined;
    let lastBlob = -1;
    let content: Uint8Array | string = "";
    for (let at = run.from; at < run.to; at++) {
      const piece = order[at] ?? 0;
      const blob = table.blobOf(piece);
      if (blob !== lastBlob) content = this.#open(blob, isRead ? run.offsetBytes : -1);
      lastBlob = blob;
      const entry = table.entryOf(piece);
      if (typeof content === "string") this.#options.files.lose(entry, content);
      else this.#options.files.write(entry, table.fileOffsetOf(piece), content);
    }
  }

  /** A blob's content, or why there is none. @param fromBytes where in the pack the data begins that was read; -1: nothing could be read */
  #open(blob: number, fromBytes: number): Uint8Array | string {
    const { index, decoder } = this.#options;
    const place = index.placeOf(blob);
    if (place === undefined) return "the index lost one of its blobs";
    let at = place.offsetBytes - fromBytes;
    if (fromBytes < 0) {
      // the blobs of a pack that is cut off are read one by one: those before the cut are whole
      const problem = this.#read(place.pack, place.offsetBytes, place.sealedBytes);
      if (problem !== undefined) return problem;
      at = 0;
    }
    try {
      return decoder.decode(index.idOf(blob), this.#data.subarray(at, at + place.sealedBytes), place.plainBytes);
    } catch (error) {
      if (!isFailure(error, "BlobInvalid")) throw error;
      return `${messageOf(error)}, in pack "${hexOf(index.packId(place.pack))}"`;
    }
  }

  /** Reads a span of a pack to the beginning of `#data`. @returns why it cannot be read, when the pack is to blame */
  #read(pack: number, offsetBytes: number, lengthBytes: number): string | undefined {
    const { index, packs, isRemote } = this.#options;
    if (this.#data.length < lengthBytes) this.#data = Buffer.allocUnsafeSlow(lengthBytes);
    try {
      packs.read(index.packId(pack), offsetBytes, this.#data.subarray(0, lengthBytes));
      return undefined;
    } catch (error) {
      const failure = toFailure(error);
      // a disk that cannot read one place can read others; a server that does not answer will not
      const isOfPack = failure.kind === "corrupt" || failure.kind === "notFound" || (!isRemote && failure.kind === "unavailable");
      if (!isOfPack) throw failure;
      return failure.message;
    }
  }
}
