import type { Command } from "commander";
import { removeAllLocks, removeStaleLocks } from "@granary/engine";
import { addExamples } from "../command-help.ts";
import { formatMany } from "../format-amount.ts";
import { addGlobalOptions } from "../global-options.ts";
import { type Run, runWork } from "../run.ts";
import { openSession, prepareNothing } from "./session.ts";

/** `granary repo unlock` */
export function configureUnlock(command: Command): void {
  command
    .description("Removes stale locks: of processes of this machine that have ended, or not refreshed for 30 minutes.")
    .option("--remove-all", "remove all locks; only when nothing works on the repository");
  addGlobalOptions(command);
  addExamples(command, [["repo unlock", "removes what a crashed process left"]]);
  command.action((flags: { removeAll?: boolean }) => runWork(command, (run) => unlock(run, flags.removeAll === true)));
}

async function unlock(run: Run, isAll: boolean): Promise<void> {
  await using session = await openSession(run, { lock: "none", prepare: prepareNothing });
  const { repository, signal } = session;
  const count = isAll ? await removeAllLocks(repository, signal) : await removeStaleLocks(repository, { signal });
  if (run.output.isJson) run.output.printJson({ message_type: "unlocked", removed_locks: count });
  else run.output.say(count === 0 ? "no lock removed" : `${formatMany(count, "lock")} removed`);
}
