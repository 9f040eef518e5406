/** A worker of a backup: goes through the slices it is given. Everything it does is synchronous but waiting for the next message. */
import { parentPort } from "node:worker_threads";
import { encodeFailure } from "@granary/base/errors";
import "../errors.ts";
import type { Cutter } from "../chunk/cutter.ts";
import { createFixedCutter } from "../chunk/fixed.ts";
import { createGearCutter } from "../chunk/gear.ts";
import { createRabinCutter } from "../chunk/rabin.ts";
import { Sealer } from "../crypto/seal.ts";
import type { BlobType } from "../format/pack.ts";
import { FileStatus } from "../native/libc.ts";
import { openOpenssl } from "../native/openssl.ts";
import { openZstd } from "../native/zstd.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { BlobReader } from "../repository/blob-reader.ts";
import { PackBuffers } from "../repository/pack-buffers.ts";
import { PackBuilder } from "../repository/pack-builder.ts";
import { openPackReader } from "../repository/pack-reader.ts";
import { Counters } from "./counters.ts";
import { FileSaver } from "./file-saver.ts";
import type { BackupWorkerData, FromWorker, ToWorker } from "./messages.ts";
import { Scanner } from "./scanner.ts";

const port = parentPort;
if (port === null) throw new Error("backup.worker.ts runs in a worker thread only");

function post(message: FromWorker): void {
  port?.postMessage(message);
}

function createCutter(cut: BackupWorkerData["cut"]): Cutter {
  switch (cut.kind) {
    case "gear":
      return createGearCutter(cut.table);
    case "rabin":
      return createRabinCutter(cut.polynomial);
    case "fixed":
      return createFixedCutter(cut.sizeBytes);
  }
}

/** Makes everything that a backup needs in this thread. @returns what handles a message */
function start(data: BackupWorkerData): (message: ToWorker) => void {
  const sealer = new Sealer(data.key);
  const index = new BlobIndex(data.index);
  const counters = new Counters(data.counters, data.worker);
  const createBuilder = (type: BlobType): PackBuilder => {
    const buffers = PackBuffers.attach(type === "data" ? data.dataBuffers : data.treeBuffers);
    const targetBytes = type === "data" ? data.dataPackBytes : data.treePackBytes;
    return new PackBuilder({ type, sealer, buffers, targetBytes, level: data.level, emit: (pack) => post({ kind: "pack", pack }) });
  };
  const dataPacks = createBuilder("data");
  const treePacks = createBuilder("tree");
  const files = new FileSaver(
    {
      cutter: createCutter(data.cut),
      index,
      packs: dataPacks,
      counters,
      breathe: () => scanner.feed(true),
      isWorkWanted: () => scanner.isExtentWanted(),
      share: (extent) => scanner.shareExtent(extent),
    },
    new FileStatus(),
  );
  const scanner = new Scanner({
    ...data,
    hunger: new Int32Array(data.hunger),
    index,
    reader: new BlobReader(index, openPackReader(data.packs), sealer),
    trees: treePacks,
    files,
    counters,
    offload: (task) => post({ kind: "task", task }),
    postFrame: post,
    postDone: (into, nodes) => post({ kind: "done", into, nodes }),
    report: (trouble) => post({ kind: "trouble", trouble }),
  });
  return (message) => {
    switch (message.kind) {
      case "slice":
        scanner.runSlice(message);
        break;
      case "tree":
        post({ kind: "done", into: message.into, nodes: scanner.saveTree(message.tree, message.directory) });
        break;
      case "extent":
        post({ kind: "done", into: message.into, nodes: scanner.saveExtent(message) });
        break;
      case "stream":
        post({ kind: "done", into: message.into, nodes: scanner.saveStream(message) });
        break;
      case "finish":
        dataPacks.finish();
        treePacks.finish();
        post({ kind: "finished" });
        return;
    }
    post({ kind: "idle" });
  };
}

// The thread may be started before there is a key: then what takes longest to load is loaded meanwhile.
openOpenssl();
openZstd();

let handle: ((message: ToWorker) => void) | undefined;
port.on("message", (message: BackupWorkerData | ToWorker) => {
  try {
    if (handle !== undefined) return handle(message as ToWorker); // crew.ts sends tasks after the first message
    handle = start(message as BackupWorkerData); // and the data first
    post({ kind: "idle" });
  } catch (error) {
    post({ kind: "failed", failure: encodeFailure(error) });
  }
});
