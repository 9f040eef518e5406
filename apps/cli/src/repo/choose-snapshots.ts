import { findSnapshot, loadSnapshots, matchesFilter, type SnapshotFilter, type StoredSnapshot } from "@granary/engine";
import type { Run } from "../run.ts";
import type { Session } from "./session.ts";

/**
 * The snapshots with these names, each once, in the order given.
 *
 * @param names the first characters of ids, or `latest`, which obeys the filter
 * @throws SnapshotNotFound, SnapshotAmbiguous
 */
export async function chooseByNames(session: Session, names: readonly string[], filter: SnapshotFilter): Promise<StoredSnapshot[]> {
  const chosen = new Map<string, StoredSnapshot>();
  for (const name of names) {
    const { snapshot } = await findSnapshot(session.repository, name, { ...filter, signal: session.signal });
    chosen.set(snapshot.id, snapshot);
  }
  return [...chosen.values()];
}

/** The snapshots that a command is to work on: those named, else all that the filter lets through, oldest first. Damaged ones are warned of. */
export async function chooseSnapshots(
  run: Run,
  session: Session,
  choice: { names: readonly string[]; filter: SnapshotFilter },
): Promise<StoredSnapshot[]> {
  const { names, filter } = choice;
  if (names.length > 0) return chooseByNames(session, names, filter);
  const all = await loadSnapshots(session.repository, { onDamaged: (_, failure) => run.warn(failure.message), signal: session.signal });
  return all.filter((snapshot) => matchesFilter(snapshot, filter));
}
