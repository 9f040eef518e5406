/** A worker of a restore. Everything it does is synchronous but waiting for the next message. */
import { parentPort } from "node:worker_threads";
import { encodeFailure } from "@granary/base/errors";
import "../errors.ts";
import { Sealer } from "../crypto/seal.ts";
import { openOpenssl } from "../native/openssl.ts";
import { openZstd } from "../native/zstd.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { BlobDecoder, BlobReader } from "../repository/blob-reader.ts";
import { openPackReader } from "../repository/pack-reader.ts";
import { ContentCheck } from "./content-check.ts";
import { Counters } from "./counters.ts";
import { DirectoryHandles } from "./directory-handles.ts";
import { EntryRunner } from "./entry-runner.ts";
import { EntryTable } from "./entry-table.ts";
import { FileWriter } from "./file-writer.ts";
import type { FromWorker, RestoreWorkerData, ToWorker, TroubleReason } from "./messages.ts";
import { MetadataWriter } from "./metadata.ts";
import { PieceRunner } from "./piece-runner.ts";
import { SharedState } from "./shared-state.ts";
import { TreePlanner } from "./tree-planner.ts";

const port = parentPort;
if (port === null) throw new Error("restore.worker.ts runs in a worker thread only");

function post(message: FromWorker): void {
  port?.postMessage(message);
}

/** Makes everything that a restore needs in this thread. @returns what handles a message */
function start(data: RestoreWorkerData): (message: ToWorker) => void {
  const report = (entry: number, reason: TroubleReason, message: string): void =>
    post({ kind: "trouble", trouble: { path: table.pathOf(entry), reason, message } });
  const { rules } = data;
  const sealer = new Sealer(data.key);
  const index = new BlobIndex(data.index);
  const packs = openPackReader(data.packs);
  const table = EntryTable.attach(data.table);
  const state = new SharedState(data.state);
  const counters = new Counters(data.counters, data.worker + 1);
  const content = new ContentCheck(index);
  const metadata = new MetadataWriter({ table, counters, state, onTrouble: (entry, message) => report(entry, "metadata", message) });
  const directories = new DirectoryHandles({ table, root: () => state.root, modeOf: (entry) => metadata.directoryMode(entry) });
  const files = new FileWriter({ table, directories, metadata, counters, rules, onTrouble: report });
  const decoder = new BlobDecoder(sealer);
  const pieces = new PieceRunner({ table, index, packs, decoder, files, state, isRemote: data.packs.kind === "remote" });
  const entries = new EntryRunner({ table, directories, files, metadata, content, counters, state, rules, onTrouble: report });
  const planner = new TreePlanner({
    table,
    index,
    reader: new BlobReader(index, packs, sealer),
    directories,
    content,
    counters,
    state,
    rules,
    onTrouble: (trouble) => post({ kind: "trouble", trouble }),
    give: (task) => post({ kind: "given", task }),
  });
  return (message) => {
    switch (message.kind) {
      case "plan":
        planner.run(message);
        // its handles were opened before anything was made
        directories.close();
        break;
      case "pieces":
        pieces.run(message);
        break;
      case "make":
      case "link":
      case "remove":
      case "finish":
      case "verify":
        entries.run(message);
        break;
      case "close":
        // handles are the process's, and would outlive the thread
        files.closeAll();
        directories.close();
        packs.close();
        state.noteClosed();
        return;
    }
    post({ kind: "idle" });
  };
}

// The thread may be started before there is a key: then what takes longest to load is loaded meanwhile.
openOpenssl();
openZstd();

let handle: ((message: ToWorker) => void) | undefined;
port.on("message", (message: RestoreWorkerData | ToWorker) => {
  try {
    if (handle !== undefined) return handle(message as ToWorker); // crew.ts sends tasks after the first message
    handle = start(message as RestoreWorkerData); // and the data first
    post({ kind: "idle" });
  } catch (error) {
    post({ kind: "failed", failure: encodeFailure(error) });
  }
});
