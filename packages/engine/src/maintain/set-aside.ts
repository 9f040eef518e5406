/** Repair deletes nothing: what it takes out of a repository it sets aside, where it can be brought back from. */
import { Failure, isFailure } from "@granary/base/errors";
import "../errors.ts";
import { describeRef } from "../store/layout.ts";
import type { FileRef, Store } from "../store/store.ts";

/** Where to. */
export interface SetAsideOptions {
  /** For stores that cannot set files aside themselves, as REST servers: another store that takes copies before files are removed. */
  readonly quarantine?: Store;
  readonly signal?: AbortSignal;
}

/** Fails unless files can be set aside; to be called before anything is changed. @throws InvalidArgument */
export function requireQuarantine(store: Store, { quarantine }: SetAsideOptions): void {
  if (store.quarantine !== undefined || quarantine !== undefined) return;
  throw new Failure(
    "InvalidArgument",
    `Cannot repair ${store.location}: the store cannot set files aside, and no other place for them was named`,
  );
}

/**
 * Takes a file out of the repository: to the store's own quarantine, or else as a copy to the one named. Runs twice; what is gone already
 * is no error.
 *
 * @throws InvalidArgument when there is no quarantine; StoreFull, StoreDenied, StoreUnavailable; Cancelled
 */
export async function setAside(store: Store, ref: FileRef, options: SetAsideOptions): Promise<void> {
  const { quarantine, signal } = options;
  requireQuarantine(store, options);
  try {
    if (store.quarantine !== undefined) return await store.quarantine(ref);
    await quarantine?.save(ref, await store.load(ref, undefined, signal), signal);
    await store.remove(ref, signal);
  } catch (error) {
    if (isFailure(error, "StoreFileNotFound")) return;
    if (!isFailure(error, "StoreFileExists")) throw error;
    throw new Failure("StoreFileExists", `Cannot set ${describeRef(ref)} aside: ${error.message}`, { details: { ...ref }, cause: error });
  }
}
