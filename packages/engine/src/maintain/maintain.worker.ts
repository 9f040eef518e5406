/** A worker of check, prune and repair. Everything it does is synchronous but waiting for the next message. */
import { parentPort, workerData } from "node:worker_threads";
import { encodeFailure, type Failure } from "@granary/base/errors";
import "../errors.ts";
import { Sealer } from "../crypto/seal.ts";
import { BlobIndex } from "../repository/blob-index.ts";
import { BlobReader } from "../repository/blob-reader.ts";
import { openPackReader } from "../repository/pack-reader.ts";
import type { FromMaintainWorker, MaintainWorkerData, ToMaintainWorker, VerifyTask } from "./maintain-messages.ts";
import { PackCopier } from "./pack-copier.ts";
import { PackVerifier } from "./pack-verifier.ts";
import { SharedWalk } from "./shared-walk.ts";
import { walkTrees } from "./tree-walker.ts";

const given = workerData as MaintainWorkerData; // by maintain-crew.ts
const port = parentPort;
if (port === null) throw new Error("maintain.worker.ts runs in a worker thread only");

function post(message: FromMaintainWorker): void {
  port?.postMessage(message);
}

/** A disk that cannot read one file may read the next; a store that does not answer ends the work. */
function isDamage(failure: Failure): boolean {
  return failure.kind === "corrupt" || failure.kind === "notFound" || (given.packs.kind === "local" && failure.kind === "unavailable");
}

const sealer = new Sealer(given.key);
const data = new BlobIndex(given.survey.data);
const trees = new BlobIndex(given.survey.trees);
const packs = openPackReader(given.packs);
const copier =
  given.writing === undefined
    ? undefined
    : new PackCopier({ ...given.writing, data, trees, packs, sealer, isDamage, emit: (pack) => post({ kind: "pack", pack }) });

function verify(task: VerifyTask): void {
  const numbers = new Int32Array(task.packs);
  const sizes = new Float64Array(task.sizes);
  const cursor = new Int32Array(task.cursor);
  const verifier = new PackVerifier({ data, trees, packs, sealer, isDamage });
  for (let at = Atomics.add(cursor, 0, 1); at < numbers.length; at = Atomics.add(cursor, 0, 1)) {
    const pack = numbers[at] ?? 0;
    post({ kind: "verified", pack, findings: verifier.verify(pack, sizes[at] ?? 0) });
  }
  post({ kind: "verifiedAll" });
}

function run(message: ToMaintainWorker): void {
  switch (message.kind) {
    case "walk":
      walkTrees(SharedWalk.attach(message.walk), {
        data,
        trees,
        reader: new BlobReader(trees, packs, sealer),
        isDamage,
        report: (tree, problems) => post({ kind: "tree", tree, problems }),
      });
      post({ kind: "walked" });
      break;
    case "verify":
      verify(message);
      break;
    case "copy":
      post({ kind: "copied", pack: message.pack, bad: copier?.copy(message) ?? [] });
      break;
    case "flush":
      copier?.flush();
      post({ kind: "flushed" });
      break;
  }
}

port.on("message", (message: ToMaintainWorker) => {
  try {
    run(message);
  } catch (error) {
    post({ kind: "failed", failure: encodeFailure(error) });
  }
});
