import type { Command } from "commander";
import { Failure } from "@granary/base/errors";
import { copySnapshots, loadSnapshots } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatBytes, formatLocalTime, formatMany } from "../format-amount.ts";
import { addFromOptions, addGlobalOptions, readFromAddress } from "../global-options.ts";
import { ProgressReporter } from "../progress.ts";
import { type Run, runWork } from "../run.ts";
import { chooseSnapshots } from "./choose-snapshots.ts";
import { loadRunIndex, openSession } from "./session.ts";
import { addFilterOptions, type FilterFlags, readFilter } from "./snapshot-filter.ts";
import { shortId } from "./snapshot-json.ts";

/** `granary repo copy` */
export function configureCopy(command: Command): void {
  command
    .description("Copies snapshots from another repository (--from-repo) into this one (-r). What is there already is not copied again.")
    .argument("[snapshots...]", "only these: the first characters of their ids, or latest");
  addFromOptions(command);
  addFilterOptions(command, "when none is named");
  addGlobalOptions(command);
  addExamples(command, [
    [
      "repo copy -r rest:https://backup.example/me/ --from-repo /srv/backup --from-password-file ~/.local-password",
      "copies everything to a second place",
    ],
    ["repo copy --from-repo /srv/backup latest", "copies the newest snapshot"],
  ]);
  command.action((names: string[], flags: FilterFlags) => runWork(command, (run) => copy(run, names, flags)));
}

async function copy(run: Run, names: readonly string[], flags: FilterFlags): Promise<void> {
  const { output } = run;
  const { packBytes, compressionLevel } = run.options;
  const address = readFromAddress(run.command, process.env);
  if (address.location === undefined) throw new Failure("RepositoryUnnamed", "Cannot copy: --from-repo says where from, and is needed");
  await using source = await openSession(run, {
    lock: "shared",
    address,
    what: "password for source repository",
    prepare: async (opened, stop) => {
      const chosen = await chooseSnapshots(run, opened, { names, filter: readFilter(flags), signal: stop });
      await loadRunIndex(run, opened, stop);
      return chosen;
    },
  });
  await using target = await openSession(run, {
    lock: "shared",
    prepare: async (opened, stop) => {
      const all = await loadSnapshots(opened, { onDamaged: (_, failure) => run.warn(failure.message), signal: stop });
      await loadRunIndex(run, opened, stop);
      return all;
    },
  });
  const signal = AbortSignal.any([source.signal, target.signal]);
  using progress = new ProgressReporter(output, { title: "copying" });
  const report = await copySnapshots(source.repository, target.repository, {
    snapshots: source.prepared,
    existing: target.prepared,
    packBytes,
    ...(compressionLevel === 0 ? {} : { level: Math.max(3, compressionLevel) }),
    workers: run.options.workers,
    onEvent: (event) => {
      if (event.kind === "progress") {
        progress.update({
          done: event.blobsDone,
          total: event.blobsTotal,
          noun: "blobs",
          doneBytes: event.bytesDone,
          totalBytes: event.bytesTotal,
          isEstimate: true,
        });
      } else if (event.kind === "saved" || event.kind === "skipped") {
        const { id, timeNs } = event.snapshot;
        if (output.isJson) output.printJson({ message_type: event.kind, source_snapshot: id, snapshot_id: event.copyId });
        else
          output.say(
            `snapshot ${shortId(id)} of ${formatLocalTime(timeNs)} ${event.kind === "saved" ? "copied" : "is there already"} as ${shortId(event.copyId)}`,
          );
      }
    },
    signal,
  });
  const { saved, skipped, blobs, sealedBytes } = report;
  if (output.isJson) {
    output.printJson({
      message_type: "summary",
      copied_snapshots: saved.size,
      skipped_snapshots: skipped.size,
      copied_blobs: blobs,
      copied_bytes: sealedBytes,
    });
  } else {
    output.say(`copied ${formatMany(saved.size, "snapshot")}: ${formatMany(blobs, "blob")}, ${formatBytes(sealedBytes)}`);
  }
}
