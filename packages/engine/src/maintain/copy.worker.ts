/**
 * A worker of copy: reads blobs from packs of one repository, proves each against its id, and packs it anew under the key of another.
 * Compressed blobs are not compressed again: what the seal held goes under a new seal, which is opened once more and compared.
 */
import { Buffer } from "node:buffer";
import { parentPort, workerData } from "node:worker_threads";
import { encodeFailure, Failure } from "@granary/base/errors";
import "../errors.ts";
import { Sealer } from "../crypto/seal.ts";
import { hexOf } from "../format/ids.ts";
import { SEAL_BYTES } from "../format/pack.ts";
import { BlobIndex, type BlobPlace } from "../repository/blob-index.ts";
import { BlobDecoder } from "../repository/blob-reader.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import { PackBuilder } from "../repository/pack-builder.ts";
import { openPackReader } from "../repository/pack-reader.ts";
import type { CopyTask, CopyWorkerData, FromCopyWorker, ToCopyWorker } from "./copy-messages.ts";

/** Blobs nearer to each other than this are read in one call: a seek, or a request, costs more than the bytes between. */
const gapBytes = 256 * 1024;
const readBytes = 8 * 1024 * 1024;

const given = workerData as CopyWorkerData; // by copy-crew.ts
const port = parentPort;
if (port === null) throw new Error("copy.worker.ts runs in a worker thread only");

function post(message: FromCopyWorker): void {
  port?.postMessage(message);
}

const index = new BlobIndex(given.sourceIndex);
const packs = openPackReader(given.packs);
const decoder = new BlobDecoder(new Sealer(given.sourceKey));
const sealer = new Sealer(given.targetKey);
const level = given.compression === "remove" ? 0 : given.level;
const emit = (pack: Extract<FromCopyWorker, { kind: "pack" }>["pack"]): void => post({ kind: "pack", pack });
const dataBuilder = new PackBuilder({
  type: "data",
  sealer,
  buffers: PackBuffers.attach(given.dataBuffers),
  targetBytes: given.dataPackBytes,
  level,
  emit,
});
const treeBuilder = new PackBuilder({
  type: "tree",
  sealer,
  buffers: PackBuffers.attach(given.treeBuffers),
  targetBytes: given.treePackBytes,
  level,
  emit,
});

let span: Buffer = Buffer.alloc(0);
let sealedAnew: Buffer = Buffer.alloc(0);
let openedAgain: Buffer = Buffer.alloc(0);

function grow(memory: Buffer, lengthBytes: number): Buffer {
  return memory.length >= lengthBytes ? memory : Buffer.allocUnsafeSlow(lengthBytes);
}

interface PlacedBlob {
  readonly id: Uint8Array;
  readonly place: BlobPlace;
}

function copy(task: CopyTask): void {
  const packId = index.packId(task.pack);
  let run: PlacedBlob[] = [];
  let startBytes = 0;
  let endBytes = 0;
  for (const entry of task.entries) {
    const place = index.placeOf(entry);
    if (place === undefined) throw new Failure("Bug", "A blob to be copied has no place");
    const blobEndBytes = place.offsetBytes + place.sealedBytes;
    if (run.length > 0 && (place.offsetBytes - endBytes > gapBytes || blobEndBytes - startBytes > readBytes)) {
      copyRun(packId, run);
      run = [];
    }
    if (run.length === 0) startBytes = place.offsetBytes;
    run.push({ id: index.idOf(entry), place });
    endBytes = Math.max(run.length === 1 ? 0 : endBytes, blobEndBytes);
  }
  if (run.length > 0) copyRun(packId, run);
}

/** Copies blobs that are read in one call. */
function copyRun(packId: Uint8Array, run: readonly PlacedBlob[]): void {
  const startBytes = run[0]?.place.offsetBytes ?? 0;
  const lengthBytes = run.reduce((end, { place }) => Math.max(end, place.offsetBytes + place.sealedBytes), 0) - startBytes;
  span = grow(span, lengthBytes);
  packs.read(packId, startBytes, span.subarray(0, lengthBytes));
  let sealedBytes = 0;
  for (const { id, place } of run) {
    const at = place.offsetBytes - startBytes;
    copyBlob(id, span.subarray(at, at + place.sealedBytes), place);
    sealedBytes += place.sealedBytes;
  }
  post({ kind: "copied", blobs: run.length, sealedBytes });
}

function copyBlob(id: Uint8Array, sealed: Buffer, { plainBytes, isTree }: BlobPlace): void {
  const plain = decoder.decode(id, sealed, plainBytes);
  const builder = isTree ? treeBuilder : dataBuilder;
  const isKept =
    given.compression === "keep" || (given.compression === "add" && plainBytes > 0) || (given.compression === "remove" && plainBytes === 0);
  if (!isKept) {
    builder.add(id, plain);
    return;
  }
  // opened in place: what the seal held stands at the beginning
  const body = sealed.subarray(0, sealed.length - SEAL_BYTES);
  sealedAnew = grow(sealedAnew, sealed.length);
  const anew = sealedAnew.subarray(0, sealer.sealInto(sealedAnew, 0, body));
  openedAgain = grow(openedAgain, body.length);
  const openedBytes = sealer.openInto(openedAgain, 0, anew);
  if (!openedAgain.subarray(0, openedBytes).equals(body)) {
    const blobId = hexOf(id);
    throw new Failure(
      "BlobInvalid",
      `Cannot copy blob "${blobId}": its new seal opens to something else; this machine's memory or processor may be faulty`,
      {
        details: { blobId },
      },
    );
  }
  builder.addSealed(id, anew, plainBytes);
}

port.on("message", (message: ToCopyWorker) => {
  try {
    if (message.kind === "copy") copy(message);
    else {
      dataBuilder.finish();
      treeBuilder.finish();
      post({ kind: "flushed" });
    }
  } catch (error) {
    port.postMessage({ kind: "failed", failure: encodeFailure(error) });
  }
});
