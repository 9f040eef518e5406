import { findSnapshot, type FoundSnapshot, type Repository, type SnapshotFilter } from "@granary/engine";
import type { Run } from "../run.ts";
import { loadRunIndex } from "./session.ts";

/** Finds the snapshot that a user names, and then reads the index. @throws SnapshotNotFound, SnapshotAmbiguous */
export async function findWithIndex(
  run: Run,
  repository: Repository,
  what: { readonly name: string; readonly filter: SnapshotFilter; readonly signal: AbortSignal },
): Promise<FoundSnapshot> {
  const found = await findSnapshot(repository, what.name, { ...what.filter, signal: what.signal });
  await loadRunIndex(run, repository, what.signal);
  return found;
}
