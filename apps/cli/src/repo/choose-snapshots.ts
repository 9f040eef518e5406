import { type FileAccess, findSnapshot, loadSnapshots, matchesFilter, type SnapshotFilter, type StoredSnapshot } from "@granary/engine";
import type { Run } from "../run.ts";

/** Which snapshots a command is to work on. */
export interface SnapshotChoice {
  /** The first characters of ids, or `latest`, which obeys the filter; when there are none, all that the filter lets through are meant. */
  readonly names: readonly string[];
  readonly filter: SnapshotFilter;
  readonly signal: AbortSignal;
}

/**
 * The snapshots that are meant: those named, each once, in the order given; else all, oldest first. Damaged ones are warned of.
 *
 * @throws SnapshotNotFound, SnapshotAmbiguous
 */
export async function chooseSnapshots(run: Run, access: FileAccess, choice: SnapshotChoice): Promise<StoredSnapshot[]> {
  const { names, filter, signal } = choice;
  if (names.length === 0) {
    const all = await loadSnapshots(access, { onDamaged: (_, failure) => run.warn(failure.message), signal });
    return all.filter((snapshot) => matchesFilter(snapshot, filter));
  }
  const chosen = new Map<string, StoredSnapshot>();
  for (const name of names) {
    const { snapshot } = await findSnapshot(access, name, { ...filter, signal });
    chosen.set(snapshot.id, snapshot);
  }
  return [...chosen.values()];
}
