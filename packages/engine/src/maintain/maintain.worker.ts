/** A worker of check, prune and repair. Everything it does is synchronous but waiting for the next message. */
import { parentPort } from "node:worker_threads";
import { encodeFailure, type Failure } from "@granary/base/errors";
import "../errors.ts";
import { Sealer } from "../crypto/seal.ts";
import { openOpenssl } from "../native/openssl.ts";
import { openZstd } from "../native/zstd.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { BlobReader } from "../repository/blob-reader.ts";
import { openPackReader } from "../repository/pack-reader.ts";
import type { FromMaintainWorker, MaintainWorkerData, ToMaintainWorker, VerifyTask } from "./maintain-messages.ts";
import { PackCopier } from "./pack-copier.ts";
import { PackVerifier } from "./pack-verifier.ts";
import { SharedWalk } from "./shared-walk.ts";
import { walkTrees } from "./tree-walker.ts";

const port = parentPort;
if (port === null) throw new Error("maintain.worker.ts runs in a worker thread only");

function post(message: FromMaintainWorker): void {
  port?.postMessage(message);
}

/** Makes everything that a job needs in this thread. @returns what handles a message */
function start(given: MaintainWorkerData): (message: ToMaintainWorker) => void {
  const sealer = new Sealer(given.key);
  const data = new BlobIndex(given.survey.data);
  const trees = new BlobIndex(given.survey.trees);
  const packs = openPackReader(given.packs);
  // A disk that cannot read one file may read the next; a store that does not answer ends the work.
  const isDamage = ({ kind }: Failure): boolean =>
    kind === "corrupt" || kind === "notFound" || (given.packs.kind === "local" && kind === "unavailable");
  const tools = { data, trees, packs, sealer, isDamage };
  const copier =
    given.writing === undefined ? undefined : new PackCopier({ ...given.writing, ...tools, emit: (pack) => post({ kind: "pack", pack }) });
  return (message) => {
    switch (message.kind) {
      case "walk": {
        const reader = new BlobReader(trees, packs, sealer);
        walkTrees(SharedWalk.attach(message.walk), {
          ...tools,
          reader,
          report: (tree, problems) => post({ kind: "tree", tree, problems }),
        });
        post({ kind: "walked" });
        break;
      }
      case "verify":
        verify(message, new PackVerifier(tools));
        break;
      case "copy":
        post({ kind: "copied", pack: message.pack, bad: copier?.copy(message) ?? [] });
        break;
      case "flush":
        copier?.flush();
        post({ kind: "flushed" });
        break;
    }
  };
}

function verify(task: VerifyTask, verifier: PackVerifier): void {
  const numbers = new Int32Array(task.packs);
  const sizes = new Float64Array(task.sizes);
  const cursor = new Int32Array(task.cursor);
  for (let at = Atomics.add(cursor, 0, 1); at < numbers.length; at = Atomics.add(cursor, 0, 1)) {
    const pack = numbers[at] ?? 0;
    post({ kind: "verified", pack, findings: verifier.verify(pack, sizes[at] ?? 0) });
  }
  post({ kind: "verifiedAll" });
}

// The thread may be started before there is a key: then what takes longest to load is loaded meanwhile.
openOpenssl();
openZstd();

let handle: ((message: ToMaintainWorker) => void) | undefined;
port.on("message", (message: MaintainWorkerData | ToMaintainWorker) => {
  try {
    if (handle === undefined)
      handle = start(message as MaintainWorkerData); // maintain-crew.ts sends the data first
    else handle(message as ToMaintainWorker); // and tasks after it
  } catch (error) {
    post({ kind: "failed", failure: encodeFailure(error) });
  }
});
