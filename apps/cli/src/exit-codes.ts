/** Which exit code a run ends with: one table, in the documentation too. restic's codes where they say the same. */

import type { Failure, FailureKind } from "@granary/base/errors";

/** One exit code. */
export interface ExitCodeEntry {
  readonly exitCode: number;
  readonly meaning: string;
  /** Failures of these kinds end with it, unless another entry names their code. */
  readonly kinds?: readonly FailureKind[];
  readonly codes?: readonly string[];
}

/** Everything was done. */
export const exitDone = 0;
/** Done, but something was left out or went wrong on the way; each was reported. */
export const exitWithWarnings = 3;

/** All exit codes, ascending. */
export const exitCodeTable: readonly ExitCodeEntry[] = [
  { exitCode: exitDone, meaning: "Done." },
  {
    exitCode: 1,
    meaning: "What was asked cannot be done as asked: an unknown flag, a wrong argument, nothing to read.",
    kinds: ["invalid"],
  },
  { exitCode: 2, meaning: "A fault of the program itself. Report it.", kinds: ["bug"] },
  {
    exitCode: exitWithWarnings,
    meaning: "Finished with warnings: some files could not be read, or some snapshots not removed; each is named.",
  },
  { exitCode: 10, meaning: "There is no repository at that place.", codes: ["RepositoryNotFound"] },
  { exitCode: 11, meaning: "The repository is locked by another process.", codes: ["RepositoryLocked"] },
  { exitCode: 12, meaning: "The password is wrong.", codes: ["WrongPassword"] },
  { exitCode: 13, meaning: "What was named is not there: a snapshot, a path, a key.", kinds: ["notFound"] },
  { exitCode: 14, meaning: "What is there does not agree with what was asked, such as a source that has shrunk.", kinds: ["conflict"] },
  { exitCode: 15, meaning: "Not allowed.", kinds: ["denied"] },
  { exitCode: 16, meaning: "Not possible now, but perhaps later: a server that does not answer.", kinds: ["unavailable"] },
  { exitCode: 17, meaning: "Something is used up: space, memory, handles.", kinds: ["exhausted"] },
  { exitCode: 18, meaning: "Data is not what was written: the repository is damaged, or a restored copy differs.", kinds: ["corrupt"] },
  { exitCode: 19, meaning: "This version, or this machine, cannot do it.", kinds: ["unsupported"] },
  {
    exitCode: 130,
    meaning: "Interrupted, by Ctrl-C or a signal. What was stored stays and is used by the next run.",
    kinds: ["cancelled"],
  },
  { exitCode: 141, meaning: "Whoever read the output has stopped reading, as `head` does.", codes: ["OutputClosed"] },
];

const fallbackExitCode = 1;

/** The exit code of a run that ends with this failure. */
export function exitCodeOf(failure: Pick<Failure, "code" | "kind">): number {
  const byCode = exitCodeTable.find(({ codes }) => codes?.includes(failure.code));
  const byKind = exitCodeTable.find(({ kinds }) => kinds?.includes(failure.kind));
  return (byCode ?? byKind)?.exitCode ?? fallbackExitCode;
}
