import { Argument, type Command } from "commander";
import { hexOf, listFiles, scanAllIndexes } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Run, runWork } from "../run.ts";
import { openSession, prepareNothing, type Session } from "./session.ts";

const kinds = ["blobs", "packs", "index", "snapshots", "keys", "locks"] as const;
type Kind = (typeof kinds)[number];

/** `granary repo list` */
export function configureList(command: Command): void {
  command.description("Lists the ids of the objects of a kind.").addArgument(new Argument("<kind>", "what to list").choices(kinds));
  addGlobalOptions(command);
  addExamples(command, [
    ["repo list packs | wc -l", "counts the pack files"],
    ["repo list blobs", "lists type and id of every blob that the index has"],
  ]);
  command.action((kind: Kind) => runWork(command, (run) => list(run, kind)));
}

async function list(run: Run, kind: Kind): Promise<void> {
  const { output } = run;
  await using session = await openSession(run, { lock: kind === "locks" ? "none" : "shared", prepare: prepareNothing });
  const { repository, signal } = session;
  if (kind === "blobs") {
    await listBlobs(run, session);
  } else if (kind === "packs") {
    for await (const { name, sizeBytes } of repository.store.list("pack", signal)) tell(run, "pack", { id: name, sizeBytes });
  } else {
    const fileKind = ({ index: "index", snapshots: "snapshot", keys: "key", locks: "lock" } as const)[kind];
    for await (const file of listFiles(repository.store, fileKind, signal)) tell(run, fileKind, file);
  }
  output.flush();
}

function tell(run: Run, type: string, { id, sizeBytes }: { id: string; sizeBytes: number }): void {
  if (run.output.isJson) run.output.printJson({ message_type: type, id, size: sizeBytes });
  else run.output.print(id);
}

async function listBlobs(run: Run, { repository, signal }: Session): Promise<void> {
  const { output } = run;
  let packId = "";
  await scanAllIndexes(
    repository,
    {
      pack: (id) => {
        packId = hexOf(id);
      },
      blob: ({ id, isTree, offsetBytes, sealedBytes, plainBytes }) => {
        const [type, blobId] = [isTree ? "tree" : "data", hexOf(id)];
        if (!output.isJson) output.print(`${type} ${blobId}`);
        else {
          output.printJson({
            message_type: "blob",
            type,
            id: blobId,
            pack: packId,
            offset: offsetBytes,
            length: sealedBytes,
            uncompressed_length: plainBytes,
          });
        }
      },
    },
    { signal },
  );
}
